/* Embed, NormRound, AddNorm, AddNormRound, Round, ScaleRound, Silu, BestCandidates: operators on rows. */
#include "operator.h"

/* Inputs: ids and positions (R,), the embedding (V, M), the scales (V,) of 8-bit rows, a factor, the positions (P, M).
 * Output: the rows of the ids times the factor, and those of the positions added: (R, 1, M). */
static Status *embed(const Call *call, int is_bytes) {
    Array ids = *input(call, 0), positions = *input(call, 1), rows = *input(call, 2);
    Array factor = *input(call, is_bytes ? 4 : 3), table = *input(call, is_bytes ? 5 : 4), scales = *input(call, 3);
    float *to;
    CHECK(rows.rank == 2 && table.rank == 2 && rows.shape[1] == table.shape[1] && rows.shape[1] % MULTIPLE == 0);
    CHECK(ids.size == positions.size && factor.size == 1 && (!is_bytes || (int64_t)scales.size == rows.shape[0]));
    size_t width = (size_t)rows.shape[1];
    for (size_t i = 0; i < ids.size; i++) {
        int64_t id = ((int64_t *)ids.data)[i], position = ((int32_t *)positions.data)[i];
        CHECK(id >= 0 && id < rows.shape[0] && position >= 0 && position < table.shape[0]);
    }
    TRY(output(call, 0, (int64_t[]){(int64_t)ids.size, 1, rows.shape[1]}, 3, &to));
    for (size_t i = 0; i < ids.size; i++) {
        size_t id = (size_t)((int64_t *)ids.data)[i], position = (size_t)((int32_t *)positions.data)[i];
        kernels->embed((char *)rows.data + id * width * (is_bytes ? sizeof(int8_t) : sizeof(float)), is_bytes,
                       is_bytes ? ((float *)scales.data)[id] : 1, *(float *)factor.data,
                       (float *)table.data + position * width, width, to + i * width);
    }
    return NULL;
}

Status *compute_embed(const Call *call) { return embed(call, 0); }

Status *compute_embed_int8(const Call *call) { return embed(call, 1); }

#define ROWS_AT_A_TIME 16 /* where threads are awake for them */

typedef struct {
    const float *x, *update, *weight, *bias; /* no update: nothing is added */
    float epsilon;
    size_t width, rows, rows_at_a_time;
    float *total, *normed; /* NULL: nobody wants it */
    uint8_t *rounded;      /* the norm; NULL: it is not */
    Rounding rounding;
    atomic_int has_memory;
} Norms;

static void norm_rows(void *job, size_t part) {
    Norms *norms = job;
    size_t width = norms->width, row = part * norms->rows_at_a_time, last = row + norms->rows_at_a_time;
    float *nothing = calloc(3 * width, sizeof *nothing);
    if (!nothing) {
        norms->has_memory = 0;
        return;
    }
    for (; row < last && row < norms->rows; row++) {
        float *total = norms->total ? norms->total + row * width : nothing + width;
        float *normed = norms->normed ? norms->normed + row * width : nothing + 2 * width;
        kernels->add_norm(norms->x + row * width, norms->update ? norms->update + row * width : nothing, norms->weight,
                          norms->bias, norms->epsilon, width, total, normed);
        if (norms->rounded) kernels->round_row(normed, width, norms->rounding, norms->rounded + row * width);
    }
    free(nothing);
}

static Status *norm(const Call *call, int adds, int rounds) {
    Array x = *input(call, 0), weight = *input(call, adds ? 2 : 1), bias = *input(call, adds ? 3 : 2);
    Norms norms = {.x = x.data, .weight = weight.data, .bias = bias.data, .epsilon = call->attributes->epsilon,
                   .width = weight.size, .has_memory = 1};
    size_t width = weight.size, next = 0;
    CHECK(x.rank && x.shape[x.rank - 1] == (int64_t)width && bias.size == width && width && width % MULTIPLE == 0);
    if (adds) {
        const Array *update = input(call, 1);
        CHECK(x.rank == update->rank && !memcmp(x.shape, update->shape, x.rank * sizeof *x.shape));
        norms.update = update->data;
        TRY(output(call, next++, x.shape, x.rank, &norms.total));
    }
    if (rounds) TRY(rounding_from(call, adds ? 4 : 3, &norms.rounding));
    TRY(output(call, next, x.shape, x.rank, rounds ? (void *)&norms.rounded : (void *)&norms.normed));
    norms.rows = x.size / width;
    norms.rows_at_a_time = has_team(call) || !norms.rows ? ROWS_AT_A_TIME : norms.rows;
    size_t parts = (norms.rows + norms.rows_at_a_time - 1) / norms.rows_at_a_time;
    return each(call, parts, norm_rows, &norms, &norms.has_memory);
}

/* Inputs: x (..., M), weight and bias (M,), the rounding of the result. Output: the norm of x, rounded. */
Status *compute_norm_round(const Call *call) { return norm(call, 0, 1); }

/* Inputs: x and update (..., M), weight and bias (M,), the rounding of the norm. Outputs: the sum, and its norm. */
Status *compute_add_norm(const Call *call) { return norm(call, 1, 0); }

Status *compute_add_norm_round(const Call *call) { return norm(call, 1, 1); }

typedef struct {
    const float *x, *factors; /* no factors: times one */
    size_t width, rows;
    float *activated;
    uint8_t *rounded; /* NULL: it is activated */
    Rounding rounding;
} Mapping;

static void map_rows(void *job, size_t part) {
    const Mapping *all = job;
    size_t width = all->width, row = part * ROWS_AT_A_TIME, last = row + ROWS_AT_A_TIME;
    for (; row < last && row < all->rows; row++) {
        size_t first = row * width;
        const float *x = all->x + first;
        if (!all->rounded) kernels->silu_row(x, width, all->activated + first);
        else if (!all->factors) kernels->round_row(x, width, all->rounding, all->rounded + first);
        else kernels->scale_round_row(x, all->factors, width, all->rounding, all->rounded + first);
    }
}

static Status *map(const Call *call, Mapping all, int rounds) {
    Array x = *input(call, 0);
    CHECK(x.rank && x.shape[x.rank - 1] && x.shape[x.rank - 1] % MULTIPLE == 0);
    all.x = x.data, all.width = (size_t)x.shape[x.rank - 1], all.rows = x.size / all.width;
    TRY(output(call, 0, x.shape, x.rank, rounds ? (void *)&all.rounded : (void *)&all.activated));
    return each(call, (all.rows + ROWS_AT_A_TIME - 1) / ROWS_AT_A_TIME, map_rows, &all, NULL);
}

/* Inputs: x (..., K), the rounding. Output: x rounded. */
Status *compute_round(const Call *call) {
    Mapping all = {0};
    TRY(rounding_from(call, 1, &all.rounding));
    return map(call, all, 1);
}

/* Inputs: x (..., K), factors (K,), the rounding. Output: x times the factors, rounded. */
Status *compute_scale_round(const Call *call) {
    const Array *x = input(call, 0), *factors = input(call, 1);
    Mapping all = {.factors = factors->data};
    CHECK(x->rank && (int64_t)factors->size == x->shape[x->rank - 1]);
    TRY(rounding_from(call, 2, &all.rounding));
    return map(call, all, 1);
}

/* Input and output: x (..., K). */
Status *compute_silu(const Call *call) { return map(call, (Mapping){0}, 0); }

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

Status *compute_best_candidates(const Call *call) {
    Array logits = *input(call, 0), count = *input(call, 1);
    CHECK(logits.rank && count.size == 1);
    Candidates wanted = {.logits = logits.data, .size = (size_t)logits.shape[logits.rank - 1], .has_memory = 1};
    CHECK(*(int64_t *)count.data > 0 && *(int64_t *)count.data <= (int64_t)wanted.size);
    wanted.count = (size_t) * (int64_t *)count.data;
    int64_t shape[2] = {(int64_t)(logits.size / wanted.size), (int64_t)wanted.count};
    TRY(output(call, 0, shape, 2, &wanted.values));
    TRY(output(call, 1, shape, 2, &wanted.ids));
    return each(call, (size_t)shape[0], find_best, &wanted, &wanted.has_memory);
}
