/* A GPU that computes nothing: the CUDA libraries that ONNX Runtime's CUDA provider is linked with, as far as it calls
 * them. Device memory is the host's, all of it zero at first; copies copy; kernels are counted and named, not run.
 *
 * With it the real provider loads, places nodes, checks shapes, chooses kernels, records and replays graphs on any
 * machine. What it does that no CUDA graph allows is written down. What kernels would compute cannot be seen.
 *
 * Compiled once for each library (-DLIB_cudart and so on; build.py). Environment:
 *   NULL_GPU_LOG     file that gets a line for each event: "kernel NAME", "begin", "end COUNT", "replay",
 *                    "copy BYTES" (within the device), "forbidden WHAT" (while recording, by whatever thread)
 *   NULL_GPU_FAILS   replay that fails, counted from 1, as if a kernel had read where it may not; nothing works
 *                    after it, and nothing can be destroyed
 *   NULL_GPU_RECORD_US  how long each recording takes, in microseconds
 *   NULL_GPU_BYTES   memory of the GPU; 64 GiB
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NOTHING(name) int name(void) { return 0; }

#ifdef LIB_cuda
int cuInit(unsigned flags) { return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
NOTHING(cuTensorMapEncodeTiled)
#endif

#if defined LIB_cublas || defined LIB_cublasLt
#define CREATE(name) int name(void **handle) { *handle = calloc(1, 4096); return 0; }
#define NAME(name) const char *name(int code) { return "a null GPU's status"; }
extern void null_gpu_event(const char *what, const char *name) __attribute__((weak));
#define KERNEL(name) int name(void) { if (null_gpu_event) null_gpu_event("kernel", #name); return 0; }
#endif

#ifdef LIB_cublas
CREATE(cublasCreate_v2)
NAME(cublasGetStatusName) NAME(cublasGetStatusString)
NOTHING(cublasDestroy_v2) NOTHING(cublasSetMathMode) NOTHING(cublasSetStream_v2)
int cublasGetMathMode(void *handle, int *mode) { *mode = 0; return 0; }
KERNEL(cublasGemmEx) KERNEL(cublasGemmBatchedEx) KERNEL(cublasGemmStridedBatchedEx)
KERNEL(cublasSgemm_v2) KERNEL(cublasSgemmBatched) KERNEL(cublasSgemmStridedBatched)
KERNEL(cublasDgemm_v2) KERNEL(cublasDgemmBatched) KERNEL(cublasDgemmStridedBatched)
KERNEL(cublasSgeam) KERNEL(cublasDgeam) KERNEL(cublasScopy_v2) KERNEL(cublasSscal_v2)
KERNEL(cublasSgetrfBatched) KERNEL(cublasDgetrfBatched) KERNEL(cublasSgetriBatched) KERNEL(cublasDgetriBatched)
#endif

#ifdef LIB_cublasLt
CREATE(cublasLtCreate) CREATE(cublasLtMatmulDescCreate) CREATE(cublasLtMatmulPreferenceCreate)
CREATE(cublasLtMatrixLayoutCreate) CREATE(cublasLtMatrixTransformDescCreate)
NOTHING(cublasLtDestroy) NOTHING(cublasLtMatmulDescDestroy) NOTHING(cublasLtMatmulPreferenceDestroy)
NOTHING(cublasLtMatrixLayoutDestroy) NOTHING(cublasLtMatrixTransformDescDestroy)
NOTHING(cublasLtMatmulAlgoConfigSetAttribute) NOTHING(cublasLtMatmulAlgoInit)
NOTHING(cublasLtMatmulDescSetAttribute) NOTHING(cublasLtMatmulPreferenceSetAttribute)
NOTHING(cublasLtMatrixLayoutSetAttribute)
int cublasLtMatmulAlgoGetHeuristic(void *handle, void *product, void *a, void *b, void *c, void *d, void *preference,
                                   int wanted, void *results, int *count) { *count = 1; return 0; }
KERNEL(cublasLtMatmul) KERNEL(cublasLtMatrixTransform)
#endif

#ifdef LIB_cudart
typedef struct { unsigned x, y, z; } dim3;
enum { HOST_TO_DEVICE = 1, DEVICE_TO_HOST = 2, DEVICE_TO_DEVICE = 3, OUT_OF_MEMORY = 2, ILLEGAL_ADDRESS = 700 };
/* Compute capability 9.0, as the shipped kernels of the provider know it. */
enum { MAJOR = 9, MINOR = 0, PROCESSORS = 132, THREADS = 1024, SHARED = 232448 };

static size_t bytes_in_use;
static long num_launches, num_replays;
static int is_recording;
static int error;

static FILE *event_log(void) {
    static FILE *file;
    const char *path = getenv("NULL_GPU_LOG");
    if (!file && path) { file = fopen(path, "a"); setvbuf(file, NULL, _IOLBF, 0); }
    return file;
}
void null_gpu_event(const char *what, const char *name) {
    if (event_log()) fprintf(event_log(), "%s %s\n", what, name);
}
static void forbidden(const char *name) { if (is_recording) null_gpu_event("forbidden", name); }
static int destroy(void) { return error; }
static size_t total_bytes(void) {
    const char *given = getenv("NULL_GPU_BYTES");
    return given ? strtoull(given, NULL, 10) : (size_t)64 << 30;
}

/* Devices. The offsets are those of CUDA 13's cudaDeviceProp. */
int cudaGetDeviceCount(int *count) { *count = 1; return 0; }
int cudaGetDevice(int *device) { *device = 0; return 0; }
int cudaSetDevice(int device) { return 0; }
int cudaDriverGetVersion(int *version) { *version = 13000; return 0; }
int cudaRuntimeGetVersion(int *version) { *version = 13000; return 0; }
int cudaGetDeviceProperties(char *properties, int device) {
    static const struct { size_t offset; int value; } facts[] = {
        {296, 49152}, {304, 65536}, {308, 32}, {320, THREADS}, {324, THREADS}, {328, THREADS}, {332, 64},
        {336, 0x7fffffff}, {340, 65535}, {344, 65535}, {360, MAJOR}, {364, MINOR}, {384, PROCESSORS},
        {596, 50 << 20}, {604, 2048}, {624, 233472}, {672, SHARED}};
    size_t total = total_bytes();
    memset(properties, 0, 1008);
    strcpy(properties, "null GPU");
    memcpy(properties + 288, &total, sizeof total);
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++) memcpy(properties + facts[i].offset, &facts[i].value, 4);
    return 0;
}
int cudaDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? MAJOR : attribute == 76 ? MINOR : attribute == 16 ? PROCESSORS
           : attribute == 97 ? SHARED : THREADS;
    return 0;
}
int cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    *total = total_bytes();
    *free_bytes = *total - bytes_in_use;
    return 0;
}

/* Memory */
static int allocate(void **pointer, size_t size) {
    if (posix_memalign(pointer, 512, size ? size : 1)) return OUT_OF_MEMORY;
    memset(*pointer, 0, size);
    return 0;
}
/* Its size stands before it, so that what is free is known exactly. */
enum { BEFORE = 512 };
int cudaMalloc(void **pointer, size_t size) {
    forbidden("cudaMalloc");
    if (__sync_add_and_fetch(&bytes_in_use, size) > total_bytes() || allocate(pointer, size + BEFORE)) {
        __sync_sub_and_fetch(&bytes_in_use, size);
        return OUT_OF_MEMORY;
    }
    *(size_t *)*pointer = size;
    *pointer = (char *)*pointer + BEFORE;
    return error;
}
int cudaMallocHost(void **pointer, size_t size) { return allocate(pointer, size); }
int cudaHostAlloc(void **pointer, size_t size, unsigned flags) { return allocate(pointer, size); }
int cudaMallocFromPoolAsync(void **pointer, size_t size, void *pool, void *stream) { return allocate(pointer, size); }
int cudaFree(void *pointer) {
    forbidden("cudaFree");
    if (!pointer) return error;
    __sync_sub_and_fetch(&bytes_in_use, *(size_t *)((char *)pointer - BEFORE));
    free((char *)pointer - BEFORE);
    return error;
}
int cudaFreeHost(void *pointer) { free(pointer); return 0; }
int cudaFreeAsync(void *pointer, void *stream) { free(pointer); return 0; }
int cudaMemset(void *to, int value, size_t size) { memset(to, value, size); return error; }
int cudaMemsetAsync(void *to, int value, size_t size, void *stream) { memset(to, value, size); return error; }
int cudaMemcpy(void *to, const void *from, size_t size, int kind) {
    forbidden("cudaMemcpy");
    memcpy(to, from, size);
    return error;
}
int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream) {
    char bytes[32];
    if (kind != DEVICE_TO_DEVICE) forbidden(kind == HOST_TO_DEVICE ? "copy to the device" : "copy to the host");
    snprintf(bytes, sizeof bytes, "%zu", size);
    if (kind == DEVICE_TO_DEVICE) null_gpu_event("copy", bytes);
    memcpy(to, from, size);
    return error;
}
int cudaMemcpy2DAsync(char *to, size_t step, const char *from, size_t from_step, size_t width, size_t height, int kind,
                      void *stream) {
    if (kind != DEVICE_TO_DEVICE) forbidden("two-dimensional copy");
    for (size_t i = 0; i < height; i++) memcpy(to + i * step, from + i * from_step, width);
    return error;
}
int cudaMemcpyFromSymbol(void *to, const void *symbol, size_t size, size_t offset, int kind) {
    memset(to, 0, size);
    return error;
}
int cudaPointerGetAttributes(void *attributes, const void *pointer) {
    struct { int type, device; const void *on_device, *on_host; } found = {2, 0, pointer, NULL};
    memset(attributes, 0, 88);
    memcpy(attributes, &found, sizeof found);
    return 0;
}

/* Streams, events, pools: nothing is ever late */
#define HANDLE(pointer) (*(void **)(pointer) = calloc(1, 64), 0)
int cudaStreamCreate(void *stream) { return HANDLE(stream); }
int cudaStreamCreateWithFlags(void *stream, unsigned flags) { return HANDLE(stream); }
int cudaStreamSynchronize(void *stream) { forbidden("cudaStreamSynchronize"); return error; }
int cudaDeviceSynchronize(void) { forbidden("cudaDeviceSynchronize"); return error; }
int cudaEventCreate(void *event) { return HANDLE(event); }
int cudaEventCreateWithFlags(void *event, unsigned flags) { return HANDLE(event); }
int cudaEventElapsedTime(float *ms, void *first, void *last) { *ms = 0; return error; }
int cudaEventSynchronize(void *event) { forbidden("cudaEventSynchronize"); return error; }
int cudaMemPoolCreate(void *pool, const void *properties) { return HANDLE(pool); }
int cudaMemPoolGetAttribute(void *pool, int attribute, unsigned long long *value) { *value = 0; return 0; }
int cudaStreamDestroy(void *stream) { return destroy(); }
int cudaEventDestroy(void *event) { return destroy(); }
NOTHING(cudaStreamWaitEvent) NOTHING(cudaEventRecord)
NOTHING(cudaEventRecordWithFlags) NOTHING(cudaMemPoolDestroy) NOTHING(cudaMemPoolSetAttribute)
NOTHING(cudaMemPoolTrimTo)
int cudaLaunchHostFunc(void *stream, void (*function)(void *), void *data) {
    forbidden("cudaLaunchHostFunc");
    function(data);
    return error;
}

/* Recorded graphs */
int cudaStreamBeginCapture(void *stream, int mode) {
    is_recording = 1;
    num_launches = 0;
    null_gpu_event("begin", "");
    return error;
}
int cudaStreamEndCapture(void *stream, void *graph) {
    char count[32];
    const char *duration = getenv("NULL_GPU_RECORD_US");
    if (duration) usleep(atoi(duration));
    is_recording = 0;
    snprintf(count, sizeof count, "%ld", num_launches);
    null_gpu_event("end", count);
    return HANDLE(graph);
}
int cudaStreamIsCapturing(void *stream, int *status) { *status = is_recording; return 0; }
int cudaGraphInstantiate(void *executable, void *graph, unsigned long long flags) { return HANDLE(executable); }
int cudaGraphLaunch(void *executable, void *stream) {
    const char *fails = getenv("NULL_GPU_FAILS");
    null_gpu_event("replay", "");
    if (fails && ++num_replays == atol(fails)) error = ILLEGAL_ADDRESS; /* as on a GPU: nothing works any more */
    return error;
}
NOTHING(cudaGraphDestroy) NOTHING(cudaGraphExecDestroy)

/* Kernels: an open hash table from the host's function to its name */
#define PLACES (1 << 20)
static struct { const void *function; const char *name; } kernels[PLACES];
static size_t place_of(const void *function) {
    size_t place = ((size_t)function * 2654435761u >> 7) % PLACES;
    while (kernels[place].function && kernels[place].function != function) place = (place + 1) % PLACES;
    return place;
}
void __cudaRegisterFunction(void **handle, const char *function, char *device_function, const char *name, int limit,
                            void *thread, void *block, dim3 *blocks, dim3 *grid, int *size) {
    if (!event_log()) return;
    size_t place = place_of(function);
    kernels[place].function = function;
    kernels[place].name = name;
}
static int launch(const void *function) {
    num_launches++;
    if (event_log()) {
        const char *name = kernels[place_of(function)].name;
        null_gpu_event("kernel", name ? name : "?");
    }
    return error;
}
int cudaLaunchKernel(const void *function, dim3 grid, dim3 block, void **arguments, size_t shared, void *stream) {
    return launch(function);
}
int __cudaLaunchKernel(const void *function, dim3 grid, dim3 block, void **arguments, size_t shared, void *stream) {
    return launch(function);
}
int cudaLaunchCooperativeKernel(const void *function, dim3 grid, dim3 block, void **arguments, size_t shared,
                                void *stream) { return launch(function); }
int cudaLaunchKernelExC(const void *configuration, const void *function, void **arguments) { return launch(function); }
static _Thread_local struct { dim3 grid, block; size_t shared; void *stream; } pushed;
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void *stream) {
    pushed.grid = grid, pushed.block = block, pushed.shared = shared, pushed.stream = stream;
    return 0;
}
int __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void **stream) {
    *grid = pushed.grid, *block = pushed.block, *shared = pushed.shared, *stream = pushed.stream;
    return 0;
}
void **__cudaRegisterFatBinary(void *binary) { return calloc(1, 64); }
void __cudaRegisterFatBinaryEnd(void **handle) {}
void __cudaUnregisterFatBinary(void **handle) {}
void __cudaRegisterVar(void **handle, char *host, char *device, const char *name, int external, size_t size, int constant,
                       int global) {}
int __cudaGetKernel(const void **kernel, const void *function) { *kernel = function; return 0; }
int cudaFuncGetAttributes(char *attributes, const void *function) {
    static const int threads = THREADS, version = 90;
    memset(attributes, 0, 144);
    memcpy(attributes + 24, &threads, 4);
    memcpy(attributes + 32, &version, 4);
    memcpy(attributes + 36, &version, 4);
    return 0;
}
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *count, const void *function, int size, size_t shared,
                                                           unsigned flags) { *count = 2; return 0; }
NOTHING(cudaFuncSetAttribute) NOTHING(cudaKernelSetAttributeForDevice) NOTHING(cudaLibraryUnload)
int cudaLibraryLoadData(void *library) { return HANDLE(library); }
int cudaLibraryGetKernel(void *kernel) { return HANDLE(kernel); }
int cudaGetDriverEntryPointByVersion(const char *name, void **function) { *function = NULL; return 0; }

const char *cudaGetErrorName(int code) { return code == ILLEGAL_ADDRESS ? "cudaErrorIllegalAddress" : "a CUDA error"; }
const char *cudaGetErrorString(int code) {
    return code == ILLEGAL_ADDRESS ? "an illegal memory access was encountered" : "a null GPU's error";
}
int cudaGetLastError(void) { return error; }
int cudaPeekAtLastError(void) { return error; }
#endif
