/* Embed, AddNorm, AddNormRound, BestCandidates: operators on rows. */
#include "operator.h"

/* Inputs: ids and positions (R,), the embedding (V, M), the scales (V,) of 8-bit rows, a factor, the positions (P, M).
 * Output: the rows of the ids times the factor, and those of the positions added: (R, 1, M). */
static Status *embed(Context *context, int is_bytes) {
    Array ids, positions, rows, scales, factor, table;
    float *to;
    size_t next = 0;
    TRY(input(context, next++, &ids));
    TRY(input(context, next++, &positions));
    TRY(input(context, next++, &rows));
    if (is_bytes) TRY(input(context, next++, &scales));
    TRY(input(context, next++, &factor));
    TRY(input(context, next++, &table));
    CHECK(rows.rank == 2 && table.rank == 2 && rows.shape[1] == table.shape[1] && rows.shape[1] % MULTIPLE == 0);
    CHECK(ids.size == positions.size && factor.size == 1 && (!is_bytes || (int64_t)scales.size == rows.shape[0]));
    size_t width = (size_t)rows.shape[1];
    for (size_t i = 0; i < ids.size; i++) {
        int64_t id = ((int64_t *)ids.data)[i], position = ((int32_t *)positions.data)[i];
        CHECK(id >= 0 && id < rows.shape[0] && position >= 0 && position < table.shape[0]);
    }
    TRY(output(context, 0, (int64_t[]){(int64_t)ids.size, 1, rows.shape[1]}, 3, &to));
    for (size_t i = 0; i < ids.size; i++) {
        size_t id = (size_t)((int64_t *)ids.data)[i], position = (size_t)((int32_t *)positions.data)[i];
        kernels->embed((char *)rows.data + id * width * (is_bytes ? sizeof(int8_t) : sizeof(float)), is_bytes,
                       is_bytes ? ((float *)scales.data)[id] : 1, *(float *)factor.data,
                       (float *)table.data + position * width, width, to + i * width);
    }
    return NULL;
}

Status *compute_embed(const Attributes *attributes, Context *context) {
    (void)attributes;
    return embed(context, 0);
}

Status *compute_embed_int8(const Attributes *attributes, Context *context) {
    (void)attributes;
    return embed(context, 1);
}

static Status *add_norm(Context *context, float epsilon, int rounds) {
    Array x, update, weight, bias;
    float *total, *normed = NULL;
    uint8_t *rounded = NULL;
    Rounding rounding = {1, 0};
    TRY(input(context, 0, &x));
    TRY(input(context, 1, &update));
    TRY(input(context, 2, &weight));
    TRY(input(context, 3, &bias));
    size_t width = weight.size;
    CHECK(x.rank == update.rank && !memcmp(x.shape, update.shape, x.rank * sizeof *x.shape));
    CHECK(x.rank && x.shape[x.rank - 1] == (int64_t)width && bias.size == width && width && width % MULTIPLE == 0);
    if (rounds) TRY(rounding_from(context, 4, &rounding));
    TRY(output(context, 0, x.shape, x.rank, &total));
    TRY(output(context, 1, x.shape, x.rank, rounds ? (void *)&rounded : (void *)&normed));
    float *room = rounds ? malloc(width * sizeof *room) : NULL;
    CHECK(room || !rounds);
    for (size_t at = 0; at < x.size; at += width) {
        float *to = rounds ? room : normed + at;
        kernels->add_norm((float *)x.data + at, (float *)update.data + at, weight.data, bias.data, epsilon, width,
                          total + at, to);
        if (rounds) kernels->round_row(room, width, rounding, rounded + at);
    }
    free(room);
    return NULL;
}

Status *compute_add_norm(const Attributes *attributes, Context *context) {
    return add_norm(context, attributes->epsilon, 0);
}

Status *compute_add_norm_round(const Attributes *attributes, Context *context) {
    return add_norm(context, attributes->epsilon, 1);
}

typedef struct {
    const float *logits;
    size_t size, count;
    float *values;
    int64_t *ids;
    atomic_int has_memory;
} Candidates;

static void find_best(void *job, size_t row) {
    Candidates *wanted = job;
    float *maxima = malloc((wanted->size / BLOCK + 1) * sizeof *maxima);
    if (!maxima) {
        wanted->has_memory = 0;
        return;
    }
    kernels->best_candidates(wanted->logits + row * wanted->size, wanted->size, wanted->count, maxima,
                             wanted->values + row * wanted->count, wanted->ids + row * wanted->count);
    free(maxima);
}

Status *compute_best_candidates(const Attributes *attributes, Context *context) {
    (void)attributes;
    Array logits, count;
    TRY(input(context, 0, &logits));
    TRY(input(context, 1, &count));
    CHECK(logits.rank && count.size == 1);
    Candidates wanted = {.logits = logits.data, .size = (size_t)logits.shape[logits.rank - 1], .has_memory = 1};
    CHECK(*(int64_t *)count.data > 0 && *(int64_t *)count.data <= (int64_t)wanted.size);
    wanted.count = (size_t) * (int64_t *)count.data;
    int64_t shape[2] = {(int64_t)(logits.size / wanted.size), (int64_t)wanted.count};
    TRY(output(context, 0, shape, 2, &wanted.values));
    TRY(output(context, 1, shape, 2, &wanted.ids));
    return each(context, (size_t)shape[0], find_best, &wanted, &wanted.has_memory);
}
