/* SelfAttention, CrossAttention: one query a row, over a cache that is changed in place.
 *
 * R rows of a step, N sentences, H heads, D head width, M = H * D, C room for positions.
 */
#include "operator.h"

#define ROWS_AT_A_TIME 8 /* of one thread, unless others are awake */

typedef struct {
    Cache cache;
    const float *queries; /* of row r from r * stride on; for self-attention its key and value follow */
    size_t stride, rows, num_beams, rows_at_a_time;
    const int32_t *lengths;     /* positions before the row's own, or of the sentence, less one */
    const int64_t *row_queries; /* NULL: self-attention */
    Rounding rounding;
    float *context; /* one of the two */
    uint8_t *rounded;
    atomic_int has_memory;
} Attention;

static void attend_rows(void *job, size_t part) {
    Attention *attention = job;
    const Cache *cache = &attention->cache;
    size_t width = cache->num_heads * cache->width, first = part * attention->rows_at_a_time;
    size_t last = first + attention->rows_at_a_time;
    if (last > attention->rows) last = attention->rows;
    float *room = malloc((cache->capacity + MULTIPLE + width) * sizeof *room);
    if (!room) {
        attention->has_memory = 0;
        return;
    }
    for (size_t row = first; row < last; row++) {
        const float *query = attention->queries + row * attention->stride;
        size_t place = row;
        if (attention->row_queries) place = (size_t)attention->row_queries[row] / attention->num_beams;
        size_t length = (size_t)attention->lengths[place];
        if (!attention->row_queries) kernels->remember(cache, place, length, query + width, query + 2 * width);
        float *context = attention->context ? attention->context + row * width : room;
        for (size_t head = 0; head < cache->num_heads; head++)
            kernels->attend(cache, place, head, length + 1, query + head * cache->width, room + width,
                            context + head * cache->width);
        if (attention->rounded)
            kernels->round_row(context, width, attention->rounding, attention->rounded + row * width);
    }
    free(room);
}

/* Inputs: queries (and keys and values), the two buffers, lengths, row_queries for cross-attention, the scales of 8-bit
 * buffers, the rounding of the result. Outputs: the result, the buffers with what was added. */
static Status *attend(const Call *call, int is_cross, int is_bytes, int rounds) {
    Array queries = *input(call, 0), buffers[2] = {*input(call, 1), *input(call, 2)}, lengths = *input(call, 3);
    const int64_t *counts = call->attributes->counts;
    void *present[2];
    size_t next = 5, number = is_bytes ? sizeof(int8_t) : sizeof(float); /* 4 is the capacity: shapes say it */
    const int64_t *shape = buffers[0].shape;
    CHECK(buffers[0].rank == 4 && buffers[1].rank == 4 && !memcmp(shape, buffers[1].shape, 4 * sizeof *shape));
    CHECK(shape[1] == counts[0] && shape[1] > 0 && shape[1] <= INT32_MAX); /* buffers of no place may say anything */
    CHECK(shape[3] > 0 && shape[3] % MULTIPLE == 0 && shape[3] <= MAX_HEAD_WIDTH);
    int64_t num_places = shape[0], capacity = shape[2], width = shape[1] * shape[3];
    Attention attention = {
        .cache = {.num_heads = (size_t)shape[1], .capacity = (size_t)capacity, .width = (size_t)shape[3]},
        .queries = queries.data,
        .stride = (size_t)width * (is_cross ? 1 : 3),
        .lengths = lengths.data,
        .has_memory = 1,
    };
    attention.rows = queries.size / attention.stride;
    attention.rows_at_a_time = has_team(call) && attention.rows <= ROWS_AT_A_TIME ? 1 : ROWS_AT_A_TIME;
    CHECK(queries.size % attention.stride == 0 && (int64_t)lengths.size == num_places);
    for (int64_t i = 0; i < num_places; i++) CHECK(attention.lengths[i] >= 0 && attention.lengths[i] < capacity);
    if (is_cross) {
        Array row_queries = *input(call, next);
        next += 3; /* and what the same in ONNX's operators reads */
        CHECK(row_queries.size == attention.rows && counts[1] > 0);
        attention.row_queries = row_queries.data;
        attention.num_beams = (size_t)counts[1];
        for (size_t i = 0; i < attention.rows; i++)
            CHECK(attention.row_queries[i] >= 0 && attention.row_queries[i] / counts[1] < num_places);
    } else CHECK((int64_t)attention.rows == num_places);
    if (is_bytes) {
        float *scales[2] = {&attention.cache.key_scale, &attention.cache.value_scale};
        for (int i = 0; i < 2; i++) {
            const Array *scale = input(call, next++);
            CHECK(scale->size == 1);
            *scales[i] = *(float *)scale->data;
        }
        attention.cache.is_bytes = 1;
    }
    if (rounds) TRY(rounding_from(call, next, &attention.rounding));
    int64_t result[3] = {(int64_t)attention.rows, 1, width};
    TRY(output(call, 0, result, 3, rounds ? (void *)&attention.rounded : (void *)&attention.context));
    for (size_t i = 0; i < 2; i++) {
        TRY(output(call, i + 1, shape, 4, &present[i]));
        if (present[i] != buffers[i].data && buffers[i].size)
            memcpy(present[i], buffers[i].data, buffers[i].size * number);
    }
    attention.cache.keys = present[0];
    attention.cache.values = present[1];
    size_t parts = (attention.rows + attention.rows_at_a_time - 1) / attention.rows_at_a_time;
    return each(call, parts, attend_rows, &attention, &attention.has_memory);
}

#define ATTENTION(kind, is_cross, is_bytes, rounds)                                                                    \
    Status *compute_##kind(const Call *call) { return attend(call, is_cross, is_bytes, rounds); }
ATTENTION(self_attention, 0, 0, 0)
ATTENTION(self_attention_int8, 0, 1, 0)
ATTENTION(self_attention_int8_round, 0, 1, 1)
ATTENTION(cross_attention, 1, 0, 0)
ATTENTION(cross_attention_int8, 1, 1, 0)
ATTENTION(cross_attention_int8_round, 1, 1, 1)
