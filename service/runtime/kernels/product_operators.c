/* Product, ProductRound: operators of rounded rows and constant columns. */
#include "operator.h"
#include <pthread.h>

#define ALIGNMENT 64
#define SMALL_BYTES 8192
#define JOB_PRODUCTS 250000 /* of bytes, which a thread is woken for: some microseconds */

/* Weights that are packed once for all sessions of the process that have the same. */
typedef struct Shared {
    Weights weights; /* first: their address is this one's */
    size_t num_holders;
    struct Shared *next;
} Shared;

static Shared *all_shared;
static pthread_mutex_t sharing = PTHREAD_MUTEX_INITIALIZER;

static void drop(Shared *shared) {
    free(shared->weights.numbers);
    free(shared);
}

static int are_same(const Weights *a, const Weights *b) {
    return a->depth == b->depth && a->width == b->width &&
           !memcmp(a->numbers, b->numbers, PACKED_BYTES(a->depth, a->width));
}

/* The one of equal weights that is kept, which may be `made`. */
static Shared *kept_of(Shared *made) {
    pthread_mutex_lock(&sharing);
    Shared *kept = all_shared;
    while (kept && !are_same(&kept->weights, &made->weights)) kept = kept->next;
    if (!kept) {
        made->next = all_shared;
        kept = all_shared = made;
    }
    kept->num_holders++;
    pthread_mutex_unlock(&sharing);
    if (kept != made) drop(made);
    return kept;
}

static Status *constant(const void *info, size_t index, Array *array) {
    const Value *value;
    int is_constant = 0;
    TRY(CALL(CONSTANT_INPUT, info, index, &is_constant, &value));
    CHECK(is_constant);
    return array_of(value, array);
}

static Status *constant_rounding(const void *info, size_t scale_index, size_t zero_point_index, Rounding *rounding) {
    Array scale, zero_point;
    TRY(constant(info, scale_index, &scale));
    TRY(constant(info, zero_point_index, &zero_point));
    return rounding_of(&scale, &zero_point, rounding);
}

/* Inputs: x (..., K) in bytes; and constants: columns (K, N) in bytes, the scale of x, the columns' (N,), the zero
 * point of x, a bias (N,); where the result is rounded, its scale and zero point. */
Status *hold_weights(const void *info, int rounds, Attributes *attributes) {
    Array numbers, scales, bias;
    Columns columns;
    TRY(constant(info, 1, &numbers));
    TRY(constant(info, 3, &scales));
    TRY(constant(info, 5, &bias));
    TRY(constant_rounding(info, 2, 4, &columns.rounding));
    if (rounds) TRY(constant_rounding(info, 6, 7, &attributes->rounding));
    CHECK(numbers.rank == 2 && numbers.size && numbers.shape[0] % GROUP == 0 && numbers.shape[0] <= MAX_DEPTH);
    columns.depth = (size_t)numbers.shape[0], columns.width = (size_t)numbers.shape[1];
    columns.numbers = numbers.data, columns.scales = scales.data, columns.bias = bias.data;
    CHECK(scales.size == columns.width && bias.size == columns.width);
    Shared *made = calloc(1, sizeof *made);
    void *memory = aligned_alloc(ALIGNMENT, PACKED_BYTES(columns.depth, columns.width));
    int has_memory = made && memory;
    int is_symmetric = has_memory && kernels->pack_weights(&columns, memory, &made->weights);
    if (!is_symmetric) {
        free(memory);
        free(made);
    }
    CHECK(has_memory);
    CHECK(is_symmetric);
    attributes->weights = &kept_of(made)->weights;
    return NULL;
}

void release_weights(const Weights *weights) {
    Shared *held = (Shared *)weights, **place = &all_shared;
    pthread_mutex_lock(&sharing);
    int is_last = --held->num_holders == 0;
    if (is_last) {
        while (*place != held) place = &(*place)->next;
        *place = held->next;
    }
    pthread_mutex_unlock(&sharing);
    if (is_last) drop(held);
}

/* How many weights are held; for tests. */
EXPORTED int64_t dragoman_num_weights(void) {
    int64_t count = 0;
    pthread_mutex_lock(&sharing);
    for (Shared *shared = all_shared; shared; shared = shared->next) count++;
    pthread_mutex_unlock(&sharing);
    return count;
}

typedef struct {
    Product product;
    size_t num_tiles, num_jobs;
} Jobs;

static void multiply_some(void *data, size_t number) {
    const Jobs *jobs = data;
    size_t first = jobs->num_tiles * number / jobs->num_jobs, last = jobs->num_tiles * (number + 1) / jobs->num_jobs;
    for (size_t tile = first; tile < last; tile++) kernels->multiply_tile(&jobs->product, tile);
}

static Status *multiply(const Attributes *attributes, Context *context, int rounds) {
    const Weights *weights = attributes->weights;
    Array x;
    uint8_t small[SMALL_BYTES], *sizes = small;
    TRY(input(context, 0, &x));
    CHECK(x.rank && x.shape[x.rank - 1] == (int64_t)weights->depth);
    Jobs jobs = {.product = {.weights = weights, .num_rows = x.size / weights->depth, .rounding = attributes->rounding},
                 .num_tiles = PACKED_WIDTH(weights->width) / TILE};
    Product *product = &jobs.product;
    x.shape[x.rank - 1] = (int64_t)weights->width;
    TRY(output(context, 0, x.shape, x.rank, rounds ? (void *)&product->rounded : (void *)&product->plain));
    if (!x.size) return NULL;
    if (2 * x.size > sizeof small) sizes = malloc(2 * x.size);
    CHECK(sizes != NULL);
    int8_t *centred = (int8_t *)sizes + x.size;
    kernels->centre(x.data, x.size, sizes, centred);
    product->sizes = sizes, product->centred = centred;
    size_t most = x.size * weights->width / JOB_PRODUCTS + 1;
    jobs.num_jobs = most < jobs.num_tiles ? most : jobs.num_tiles;
    Status *status = each(context, jobs.num_jobs, multiply_some, &jobs, NULL);
    if (sizes != small) free(sizes);
    return status;
}

Status *compute_product(const Attributes *attributes, Context *context) { return multiply(attributes, context, 0); }

Status *compute_product_round(const Attributes *attributes, Context *context) {
    return multiply(attributes, context, 1);
}
