/* Product, ProductRound: operators of rounded rows and constant columns. */
#include "operator.h"
#include <pthread.h>

#define ALIGNMENT 64
#define SMALL_BYTES 8192
#define ROW_ROOM(depth) (sizeof(InputRow) + 2 * LIST_ROOM(depth) * sizeof(Listed) + (depth))
#define JOB_PRODUCTS 250000 /* of bytes, which a thread is woken for: some microseconds */
#define TEAM_PRODUCTS 65536 /* that threads share which are awake anyway */
#define TEAM_JOBS 32        /* of these, at most: to take one costs a tenth of a microsecond */
#define SPLIT_BYTES 32768 /* of inputs, a job of such threads */

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
    return a->depth == b->depth && a->width == b->width && a->start == b->start &&
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

/* Inputs: x (..., K) in bytes; and constants: columns (K, N) in bytes, the scale of x, the columns' (N,), the zero
 * point of x, a bias (N,); where the result is rounded, its scale and zero point. */
Status *hold_weights(const Array *constants, int rounds, Attributes *attributes) {
    const Array *numbers = &constants[1], *scales = &constants[3], *bias = &constants[5];
    Columns columns;
    CHECK(numbers->data && scales->data && bias->data);
    TRY(rounding_of(&constants[2], &constants[4], &columns.rounding));
    if (rounds) TRY(rounding_of(&constants[6], &constants[7], &attributes->rounding));
    CHECK(numbers->rank == 2 && numbers->size && numbers->shape[0] % GROUP == 0 && numbers->shape[0] <= MAX_DEPTH);
    columns.depth = (size_t)numbers->shape[0], columns.width = (size_t)numbers->shape[1];
    columns.numbers = numbers->data, columns.scales = scales->data, columns.bias = bias->data;
    CHECK(scales->size == columns.width && bias->size == columns.width);
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

static int64_t count_weights(int only_wide) {
    int64_t count = 0;
    pthread_mutex_lock(&sharing);
    for (Shared *shared = all_shared; shared; shared = shared->next)
        count += !only_wide || !shared->weights.fit_in_fours;
    pthread_mutex_unlock(&sharing);
    return count;
}

/* How many weights are held, and of how many no four products fit into 16 bits; for tests. */
EXPORTED int64_t dragoman_num_weights(void) { return count_weights(0); }
EXPORTED int64_t dragoman_num_wide_weights(void) { return count_weights(1); }

typedef struct {
    Product product;
    size_t num_tiles, num_jobs;
} Jobs;

typedef struct {
    Product *product;
    size_t at_a_time;
} Splitting;

static void split_some(void *job, size_t number) {
    const Splitting *all = job;
    const Product *product = all->product;
    size_t depth = product->weights->depth, row = number * all->at_a_time, last = row + all->at_a_time;
    for (; row < last && row < product->num_rows; row++)
        kernels->split(product->x + row * depth, depth, product->weights->start, &product->rows[row]);
}

/* The parts of product->x, in room for ROW_ROOM of each row. */
static Status *split(const Call *call, Product *product, void *room) {
    size_t depth = product->weights->depth, num_rows = product->num_rows, list_room = LIST_ROOM(depth);
    Listed *lists = (Listed *)((InputRow *)room + num_rows);
    uint8_t *near = (uint8_t *)(lists + num_rows * 2 * list_room);
    product->rows = room;
    for (size_t row = 0; row < num_rows; row++) {
        Listed *far = lists + row * 2 * list_room;
        product->rows[row] = (InputRow){.near = near + row * depth, .far = far, .some = far + list_room};
    }
    Splitting splitting = {product, has_team(call) ? SPLIT_BYTES / depth + 1 : num_rows};
    return each(call, (num_rows + splitting.at_a_time - 1) / splitting.at_a_time, split_some, &splitting, NULL);
}

static void multiply_some(void *data, size_t number) {
    const Jobs *jobs = data;
    size_t first = jobs->num_tiles * number / jobs->num_jobs, last = jobs->num_tiles * (number + 1) / jobs->num_jobs;
    kernels->multiply_tiles(&jobs->product, first, last);
}

/* An even number for threads that are awake, which are mostly two. */
static size_t num_jobs_of(size_t num_products, size_t num_tiles, int is_awake) {
    size_t most = num_products / (is_awake ? TEAM_PRODUCTS : JOB_PRODUCTS) + 1;
    if (is_awake) most = most < TEAM_JOBS ? most + most % 2 : TEAM_JOBS;
    return most < num_tiles ? most : num_tiles;
}

static Status *multiply(const Call *call, int rounds) {
    const Weights *weights = call->attributes->weights;
    Array x = *input(call, 0);
    size_t small[SMALL_BYTES / sizeof(size_t)];
    void *room = small;
    CHECK(x.rank && x.shape[x.rank - 1] == (int64_t)weights->depth);
    Jobs jobs = {.num_tiles = PACKED_WIDTH(weights->width) / TILE};
    Product *product = &jobs.product;
    product->weights = weights, product->num_rows = x.size / weights->depth;
    product->rounding = call->attributes->rounding;
    x.shape[x.rank - 1] = (int64_t)weights->width;
    TRY(output(call, 0, x.shape, x.rank, rounds ? (void *)&product->rounded : (void *)&product->plain));
    if (!x.size) return NULL;
    size_t bytes = kernels->split ? product->num_rows * ROW_ROOM(weights->depth) : 0;
    if (bytes > sizeof small) room = malloc(bytes);
    CHECK(room);
    product->x = x.data;
    jobs.num_jobs = num_jobs_of(x.size * weights->width, jobs.num_tiles, has_team(call));
    Status *status = kernels->split ? split(call, product, room) : NULL;
    if (!status) status = each(call, jobs.num_jobs, multiply_some, &jobs, NULL);
    if (room != small) free(room);
    return status;
}

Status *compute_product(const Call *call) { return multiply(call, 0); }

Status *compute_product_round(const Call *call) { return multiply(call, 1); }
