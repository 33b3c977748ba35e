/* The kernels as operators of ONNX Runtime, in the domain "dragoman".
 *
 * Knows: names and types of the operators. Does not know: what they do. What each means is said in ONNX's own operators
 * in every graph that has it (export/fused.py), under the same name and with the same inputs and outputs.
 */
#include "operator.h"
#include <cpuid.h>
#include <pthread.h>

#define MAX_INPUTS 13
#define MAX_OUTPUTS 4

const Function *api;
const Kernels *kernels;

typedef struct {
    const char *name;
    int inputs[MAX_INPUTS], outputs[MAX_OUTPUTS]; /* element types, ended by 0 */
    int num_counts;                               /* how many of the attributes below it has */
    Compute *compute;
    enum { NO_PRODUCT, PLAIN_PRODUCT, ROUNDED_PRODUCT } product;
} Description;

static const char *const count_names[NUM_ATTRIBUTES] = {"num_heads", "num_beams"};

static const Description descriptions[] = {
    {"Embed", {INT64, INT32, FLOAT, FLOAT, FLOAT}, {FLOAT}, 0, .compute = compute_embed},
    {"EmbedInt8", {INT64, INT32, INT8, FLOAT, FLOAT, FLOAT}, {FLOAT}, 0, .compute = compute_embed_int8},
    {"AddNorm", {FLOAT, FLOAT, FLOAT, FLOAT}, {FLOAT, FLOAT}, 0, .compute = compute_add_norm},
    {"AddNormRound", {FLOAT, FLOAT, FLOAT, FLOAT, FLOAT, UINT8}, {FLOAT, UINT8}, 0, .compute = compute_add_norm_round},
    {"SelfAttention", {FLOAT, FLOAT, FLOAT, INT32, INT32}, {FLOAT, FLOAT, FLOAT}, 1, .compute = compute_self_attention},
    {"SelfAttentionInt8", {FLOAT, INT8, INT8, INT32, INT32, FLOAT, FLOAT}, {FLOAT, INT8, INT8}, 1,
     .compute = compute_self_attention_int8},
    {"SelfAttentionInt8Round", {FLOAT, INT8, INT8, INT32, INT32, FLOAT, FLOAT, FLOAT, UINT8}, {UINT8, INT8, INT8},
     1, .compute = compute_self_attention_int8_round},
    {"CrossAttention", {FLOAT, FLOAT, FLOAT, INT32, INT32, INT64, INT64, FLOAT}, {FLOAT, FLOAT, FLOAT}, 2,
     .compute = compute_cross_attention},
    {"CrossAttentionInt8", {FLOAT, INT8, INT8, INT32, INT32, INT64, INT64, FLOAT, FLOAT, FLOAT}, {FLOAT, INT8, INT8},
     2, .compute = compute_cross_attention_int8},
    {"CrossAttentionInt8Round",
     {FLOAT, INT8, INT8, INT32, INT32, INT64, INT64, FLOAT, FLOAT, FLOAT, FLOAT, UINT8}, {UINT8, INT8, INT8}, 2,
     .compute = compute_cross_attention_int8_round},
    {"SentenceAttention", {FLOAT, INT64, INT64, FLOAT, INT64, INT64}, {FLOAT}, 1,
     .compute = compute_sentence_attention},
    {"SentenceAttentionRound", {FLOAT, INT64, INT64, FLOAT, INT64, INT64, FLOAT, UINT8}, {UINT8}, 1,
     .compute = compute_sentence_attention_round},
    {"BestCandidates", {FLOAT, INT64}, {FLOAT, INT64}, 0, .compute = compute_best_candidates},
    {"Product", {UINT8, INT8, FLOAT, FLOAT, UINT8, FLOAT}, {FLOAT}, 0, compute_product, PLAIN_PRODUCT},
    {"ProductRound", {UINT8, INT8, FLOAT, FLOAT, UINT8, FLOAT, FLOAT, UINT8}, {UINT8}, 0,
     compute_product_round, ROUNDED_PRODUCT},
};
#define NUM_OPERATORS (sizeof descriptions / sizeof *descriptions)

typedef struct {
    Operator interface;
    const Description *description;
} Described;

typedef struct {
    const Description *description;
    Attributes attributes;
} Kernel;

static Described operators[NUM_OPERATORS];
static int has_products;
static pthread_mutex_t registering = PTHREAD_MUTEX_INITIALIZER;

static const Description *of(const Operator *interface) { return ((const Described *)interface)->description; }
static const char *name(const Operator *interface) { return of(interface)->name; }
static const char *provider(const Operator *interface) { return (void)interface, "CPUExecutionProvider"; }
static int input_type(const Operator *interface, size_t index) { return of(interface)->inputs[index]; }
static int output_type(const Operator *interface, size_t index) { return of(interface)->outputs[index]; }
static int zero(const Operator *interface, size_t index) { return (void)interface, (void)index, 0; }
static int one(const Operator *interface) { return (void)interface, 1; }

static size_t num_inputs(const Operator *interface) {
    size_t count = 0;
    while (count < MAX_INPUTS && of(interface)->inputs[count]) count++;
    return count;
}

static size_t num_outputs(const Operator *interface) {
    size_t count = 0;
    while (count < MAX_OUTPUTS && of(interface)->outputs[count]) count++;
    return count;
}

static Status *create(const Operator *interface, const void *table, const void *info, void **created) {
    (void)table;
    Kernel *kernel = calloc(1, sizeof *kernel);
    CHECK(kernel);
    kernel->description = of(interface);
    Attributes *attributes = &kernel->attributes;
    Status *status = NULL;
    for (int i = 0; !status && i < of(interface)->num_counts; i++)
        status = CALL(ATTRIBUTE_INT64, info, count_names[i], &attributes->counts[i]);
    if (!status && !strncmp(of(interface)->name, "AddNorm", strlen("AddNorm")))
        status = CALL(ATTRIBUTE_FLOAT, info, "epsilon", &attributes->epsilon);
    if (!status && of(interface)->product)
        status = hold_weights(info, of(interface)->product == ROUNDED_PRODUCT, attributes);
    if (status) free(kernel);
    else *created = kernel;
    return status;
}

static void destroy(void *created) {
    Kernel *kernel = created;
    if (kernel->attributes.weights) release_weights(kernel->attributes.weights);
    free(kernel);
}

static Status *compute(void *kernel, Context *context) {
    const Kernel *created = kernel;
    return created->description->compute(&created->attributes, context);
}

/* Whether the processor has instructions for products of bytes, of either kind. */
static int has_vnni(void) {
    unsigned a, b, c, d;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) && c & 1u << 11) return 1;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && a & 1u << 4;
}

/* Once, when the library is loaded: sessions are made by several threads while others run. */
__attribute__((constructor)) static void prepare(void) {
    const char *chosen = getenv("DRAGOMAN_KERNELS");
    int is_limited = chosen && !strcmp(chosen, "avx2");
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
        __builtin_cpu_supports("bmi2"))
        kernels = &kernels_v3;
    if (kernels && !is_limited && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        kernels = &kernels_v4;
    chosen = getenv("DRAGOMAN_PRODUCTS");
    has_products = chosen && !strcmp(chosen, "own") ? 1 : chosen && !strcmp(chosen, "onnxruntime") ? 0 : !has_vnni();
    for (size_t i = 0; i < NUM_OPERATORS; i++)
        operators[i] = (Described){
            .interface = {.version = API_VERSION, .name = name, .provider = provider, .input_type = input_type,
                          .num_inputs = num_inputs, .output_type = output_type, .num_outputs = num_outputs,
                          .destroy = destroy, .input_kind = zero, .output_kind = zero, .input_memory = zero,
                          .variadic = {one, one, one, one}, .create = create, .compute = compute,
                          .first_version = one, .last_version = one},
            .description = &descriptions[i],
        };
}

/* Which kernels run here. */
EXPORTED const char *dragoman_kernels(void) {
    return kernels == &kernels_v4 ? "avx512" : kernels == &kernels_v3 ? "avx2" : "none";
}

/* Whether products of bytes are ours. */
EXPORTED int dragoman_products(void) { return has_products; }

static Status *make_domain(void **domain) {
    void *made;
    TRY(CALL(CREATE_DOMAIN, "dragoman", &made));
    for (size_t i = 0; i < NUM_OPERATORS; i++)
        if (has_products || !descriptions[i].product) TRY(CALL(ADD_TO_DOMAIN, made, &operators[i].interface));
    *domain = made;
    return NULL;
}

/* What ONNX Runtime looks for in a library of operators. */
EXPORTED Status *RegisterCustomOps(void *options, const Base *base) {
    static void *domain; /* of all sessions, for none of them owns it; made once, while others run */
    const Function *table = base->table(API_VERSION);
    Status *status = NULL;
    if (!kernels || !table) return NULL; /* an older processor or ONNX Runtime, which uses its own operators then */
    pthread_mutex_lock(&registering);
    if (!domain) {
        api = table;
        status = make_domain(&domain);
    }
    pthread_mutex_unlock(&registering);
    TRY(status);
    return CALL(ADD_DOMAIN, options, domain);
}
