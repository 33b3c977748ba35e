/* Attention of one query, and of all tokens of a sentence.
 *
 * Knows: one head's keys and values. Does not know: rows, sentences, ONNX Runtime.
 */
#ifndef DRAGOMAN_ATTENTION_H
#define DRAGOMAN_ATTENTION_H

#include "kernels.h"
#include "vectors.h"
#include <math.h>

#define QUERIES 4 /* of a sentence that are computed side by side */

/* Products of a query with the key at `position`, not summed yet. */
INLINE Floats products(const void *keys, size_t position, const float *query, size_t blocks, int is_bytes) {
    size_t at = position * blocks * LANES;
    Floats sum = load(query) * load_kind(keys, at, is_bytes);
    for (size_t b = 1; b < blocks; b++)
        sum += load(query + b * LANES) * load_kind(keys, at + b * LANES, is_bytes);
    return sum;
}

/* scores[p] = query . keys[p]; up to a multiple of LANES more are written. */
INLINE void all_scores(const void *keys, size_t length, const float *query, float *scores, size_t blocks,
                       int is_bytes) {
    Floats sums[LANES];
    size_t first = 0;
    for (; first + LANES <= length; first += LANES) {
        for (size_t i = 0; i < LANES; i++) sums[i] = products(keys, first + i, query, blocks, is_bytes);
        store(scores + first, sums_of(sums));
    }
    if (first < length) {
        for (size_t i = 0; i < LANES; i++)
            sums[i] = first + i < length ? products(keys, first + i, query, blocks, is_bytes) : all(0);
        store(scores + first, sums_of(sums));
    }
}

/* scores[p] becomes e to the power of scores[p] less the largest; returns 1 / the sum of these. */
INLINE float soft_maximum(float *scores, size_t length) {
    size_t padded = (length + LANES - 1) / LANES * LANES;
    for (size_t p = length; p < padded; p++) scores[p] = -INFINITY;
    Floats largest = load(scores);
    for (size_t p = LANES; p < padded; p += LANES) largest = larger(load(scores + p), largest);
    float most = largest_lane(largest);
    Floats sum = all(0);
    for (size_t p = 0; p < padded; p += LANES) {
        Floats power = exp_of(load(scores + p) - most);
        store(scores + p, power);
        sum += power;
    }
    return 1 / sum_lanes(sum);
}

/* context = factor * the sum of weights[p] * values[p]. */
INLINE void weighted_sum(const void *values, size_t length, const float *weights, float factor, float *context,
                         size_t blocks, int is_bytes) {
    size_t width = blocks * LANES;
    for (size_t b = 0; b < blocks; b++) {
        Floats sums[4] = {all(0), all(0), all(0), all(0)}; /* each waits for its own last sum only */
        size_t p = 0, at = b * LANES;
        for (; p + 4 <= length; p += 4)
            for (size_t i = 0; i < 4; i++)
                sums[i] += weights[p + i] * load_kind(values, (p + i) * width + at, is_bytes);
        for (; p < length; p++) sums[0] += weights[p] * load_kind(values, p * width + at, is_bytes);
        store(context + at, ((sums[0] + sums[1]) + (sums[2] + sums[3])) * factor);
    }
}

/* Asks for the numbers of a head that is next, so that they are there by then. Behind the last there is nothing that a
 * pointer may point to, hence the address; to ask for that does no harm. */
INLINE void fetch_ahead(uintptr_t from, size_t bytes) {
    for (size_t at = 0; at < bytes; at += 64) __builtin_prefetch((const void *)(from + at));
}

INLINE void attend_kind(const void *keys, const void *values, size_t length, const float *query, float *scores,
                        float *context, size_t blocks, int is_bytes, float value_scale) {
    all_scores(keys, length, query, scores, blocks, is_bytes);
    float factor = soft_maximum(scores, length);
    weighted_sum(values, length, scores, factor * value_scale, context, blocks, is_bytes);
}

/* The usual widths with loops of known length. */
INLINE void attend_width(const void *keys, const void *values, size_t length, const float *query, float *scores,
                         float *context, size_t width, int is_bytes, float value_scale) {
    if (width == 32) attend_kind(keys, values, length, query, scores, context, 32 / LANES, is_bytes, value_scale);
    else if (width == 64) attend_kind(keys, values, length, query, scores, context, 64 / LANES, is_bytes, value_scale);
    else attend_kind(keys, values, length, query, scores, context, width / LANES, is_bytes, value_scale);
}

static void attend(const Cache *cache, size_t place, size_t head, size_t length, const float *query, float *scores,
                   float *context) {
    size_t width = cache->width;
    size_t first = (place * cache->num_heads + head) * cache->capacity * width;
    float scaled[MAX_HEAD_WIDTH];
    float factor = 1 / sqrtf((float)width) * (cache->is_bytes ? cache->key_scale : 1);
    for (size_t d = 0; d < width; d += LANES) store(scaled + d, load(query + d) * factor);
    size_t number = cache->is_bytes ? sizeof(int8_t) : sizeof(float), next = first + cache->capacity * width;
    fetch_ahead((uintptr_t)cache->keys + next * number, length * width * number);
    fetch_ahead((uintptr_t)cache->values + next * number, length * width * number);
    const char *keys = (const char *)cache->keys + first * number;
    const char *values = (const char *)cache->values + first * number;
    float value_scale = cache->is_bytes ? cache->value_scale : 1;
    if (cache->is_bytes) attend_width(keys, values, length, scaled, scores, context, width, 1, value_scale);
    else attend_width(keys, values, length, scaled, scores, context, width, 0, value_scale);
}

/* What the scratch memory of attend_sequence() holds: keys turned, values, and the queries and scores of a few. */
static size_t sequence_scratch(size_t length, size_t width) {
    size_t padded = (length + LANES - 1) / LANES * LANES;
    return 2 * width * padded + QUERIES * (padded + width);
}

/* scores[i][0 .. vectors * LANES) of `queries` queries (queries, width) and turned keys (width, padded). */
INLINE void turned_scores(const float *turned, size_t padded, const float *query, size_t width, float *scores,
                          size_t queries, size_t vectors) {
    Floats sums[QUERIES][2];
    for (size_t i = 0; i < queries; i++)
        for (size_t v = 0; v < vectors; v++) sums[i][v] = all(0);
    for (size_t d = 0; d < width; d++)
        for (size_t i = 0; i < queries; i++)
            for (size_t v = 0; v < vectors; v++)
                sums[i][v] += query[i * width + d] * load(turned + d * padded + v * LANES);
    for (size_t i = 0; i < queries; i++)
        for (size_t v = 0; v < vectors; v++) store(scores + i * padded + v * LANES, sums[i][v]);
}

/* context[i] = weights[i][0 .. length) . values, for numbers [d, d + vectors * LANES) of the head. */
INLINE void mixed_values(const float *value, size_t width, size_t length, const float *scores, size_t padded,
                         const float *factors, float *context, size_t context_stride, size_t queries, size_t vectors) {
    Floats sums[QUERIES][2];
    for (size_t i = 0; i < queries; i++)
        for (size_t v = 0; v < vectors; v++) sums[i][v] = all(0);
    for (size_t p = 0; p < length; p++)
        for (size_t i = 0; i < queries; i++)
            for (size_t v = 0; v < vectors; v++)
                sums[i][v] += scores[i * padded + p] * load(value + p * width + v * LANES);
    for (size_t i = 0; i < queries; i++)
        for (size_t v = 0; v < vectors; v++)
            store(context + i * context_stride + v * LANES, sums[i][v] * factors[i]);
}

typedef struct {
    const float *query;
    float *turned, *values, *scores, *scaled, *context;
    size_t stride, context_stride, length, padded, width;
} Sequence;

INLINE void attend_queries(const Sequence *s, size_t first, size_t queries) {
    float factors[QUERIES], factor = 1 / sqrtf((float)s->width);
    for (size_t i = 0; i < queries; i++)
        for (size_t d = 0; d < s->width; d += LANES)
            store(s->scaled + i * s->width + d, load(s->query + (first + i) * s->stride + d) * factor);
    size_t p = 0;
    for (; p + 2 * LANES <= s->padded; p += 2 * LANES)
        turned_scores(s->turned + p, s->padded, s->scaled, s->width, s->scores + p, queries, 2);
    if (p < s->padded) turned_scores(s->turned + p, s->padded, s->scaled, s->width, s->scores + p, queries, 1);
    for (size_t i = 0; i < queries; i++) factors[i] = soft_maximum(s->scores + i * s->padded, s->length);
    float *context = s->context + first * s->context_stride;
    size_t d = 0;
    for (; d + 2 * LANES <= s->width; d += 2 * LANES)
        mixed_values(s->values + d, s->width, s->length, s->scores, s->padded, factors, context + d,
                     s->context_stride, queries, 2);
    if (d < s->width)
        mixed_values(s->values + d, s->width, s->length, s->scores, s->padded, factors, context + d,
                     s->context_stride, queries, 1);
}

/* Keys of a sentence as columns, with zeros behind the last, and its values side by side: where they stand, all tokens'
 * numbers of a head share a few places of the nearest cache. */
INLINE void gather(const float *key, const float *value, const Sequence *s) {
    for (size_t p = 0; p < s->length; p++) {
        for (size_t d = 0; d < s->width; d++) s->turned[d * s->padded + p] = key[p * s->stride + d];
        memcpy(s->values + p * s->width, value + p * s->stride, s->width * sizeof *value);
    }
    for (size_t p = s->length; p < s->padded; p++)
        for (size_t d = 0; d < s->width; d++) s->turned[d * s->padded + p] = 0;
}

static void attend_sequence(const float *query, const float *key, const float *value, size_t stride, size_t length,
                            size_t width, float *scratch, float *context, size_t context_stride) {
    size_t padded = (length + LANES - 1) / LANES * LANES, first = 0;
    Sequence s = {.query = query, .turned = scratch, .values = scratch + width * padded,
                  .scores = scratch + 2 * width * padded, .scaled = scratch + (2 * width + QUERIES) * padded,
                  .context = context, .stride = stride, .context_stride = context_stride, .length = length,
                  .padded = padded, .width = width};
    gather(key, value, &s);
    for (; first + QUERIES <= length; first += QUERIES) attend_queries(&s, first, QUERIES);
    for (; first < length; first++) attend_queries(&s, first, 1);
}
#endif
