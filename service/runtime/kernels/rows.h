/* Rounding, norms, and the best candidates: what is done to each row for itself.
 *
 * Knows: one row of numbers. Does not know: models, ONNX Runtime.
 */
#ifndef DRAGOMAN_ROWS_H
#define DRAGOMAN_ROWS_H

#include "kernels.h"
#include "vectors.h"
#include <math.h>

/* round(x / scale), to even in the middle, + zero_point, within [lowest, lowest + 255]: ONNX's QuantizeLinear. */
INLINE int rounded_number(float x, Rounding rounding, int lowest) {
    float quotient = x / rounding.scale;
    quotient = quotient > -1024.0f ? quotient : -1024.0f; /* not a number becomes the lowest */
    quotient = quotient < 1024.0f ? quotient : 1024.0f;
    const float shift = 12582912.0f;
    float shifted = quotient + shift;
    int whole = (int)(shifted - shift) + rounding.zero_point;
    whole = whole > lowest ? whole : lowest;
    return whole < lowest + 255 ? whole : lowest + 255;
}

static void round_row(const float *x, size_t size, Rounding rounding, uint8_t *to) {
    for (size_t i = 0; i < size; i++) to[i] = (uint8_t)rounded_number(x[i], rounding, 0);
}

static void scale_round_row(const float *x, const float *factors, size_t size, Rounding rounding, uint8_t *to) {
    for (size_t i = 0; i < size; i++) to[i] = (uint8_t)rounded_number(x[i] * factors[i], rounding, 0);
}

static void silu_row(const float *x, size_t size, float *to) {
    for (size_t i = 0; i < size; i += LANES) {
        Floats values = larger(all(-200), load(x + i)); /* below is nothing left */
        Floats small = exp_of(-larger(values, -values));
        Ints is_below = values < all(0);
        Floats share = (Floats)((is_below & (Ints)small) | (~is_below & (Ints)all(1)));
        store(to + i, values * share / (small + 1.0f));
    }
}

static void round_signed(const float *x, size_t size, Rounding rounding, int8_t *to) {
    for (size_t i = 0; i < size; i++) to[i] = (int8_t)rounded_number(x[i], rounding, -128);
}

static void remember(const Cache *cache, size_t place, size_t position, const float *key, const float *value) {
    size_t width = cache->width, bytes = width * sizeof *key;
    for (size_t head = 0; head < cache->num_heads; head++) {
        size_t at = ((place * cache->num_heads + head) * cache->capacity + position) * width;
        if (cache->is_bytes) {
            round_signed(key + head * width, width, (Rounding){cache->key_scale, 0}, (int8_t *)cache->keys + at);
            round_signed(value + head * width, width, (Rounding){cache->value_scale, 0}, (int8_t *)cache->values + at);
        } else {
            memcpy((float *)cache->keys + at, key + head * width, bytes);
            memcpy((float *)cache->values + at, value + head * width, bytes);
        }
    }
}

static void embed(const void *row, int is_bytes, float scale, float factor, const float *position, size_t width,
                  float *to) {
    for (size_t i = 0; i < width; i += LANES)
        store(to + i, load_kind(row, i, is_bytes) * scale * factor + load(position + i));
}

static void add_norm(const float *x, const float *update, const float *weight, const float *bias, float epsilon,
                     size_t width, float *total, float *normed) {
    Floats sum = all(0), squares = all(0);
    for (size_t i = 0; i < width; i += LANES) {
        Floats both = load(x + i) + load(update + i);
        store(total + i, both);
        sum += both;
    }
    float mean = sum_lanes(sum) / (float)width;
    for (size_t i = 0; i < width; i += LANES) {
        Floats centred = load(total + i) - mean;
        squares += centred * centred;
    }
    float factor = 1 / sqrtf(sum_lanes(squares) / (float)width + epsilon);
    for (size_t i = 0; i < width; i += LANES)
        store(normed + i, (load(total + i) - mean) * factor * load(weight + i) + load(bias + i));
}

/* The largest number of each block of logits. */
INLINE void block_maxima(const float *logits, size_t size, float *maxima) {
    for (size_t first = 0; first < size; first += BLOCK) {
        size_t last = first + BLOCK < size ? first + BLOCK : size, i = first;
        float largest = -INFINITY;
        if (first + LANES <= last) {
            Floats most = load(logits + i);
            for (i += LANES; i + LANES <= last; i += LANES) most = larger(load(logits + i), most);
            largest = largest_lane(most);
        }
        for (; i < last; i++) largest = logits[i] > largest ? logits[i] : largest;
        maxima[first / BLOCK] = largest;
    }
}

INLINE float sum_of_powers(const float *logits, size_t size, float most) {
    Floats even = all(0), odd = all(0);
    size_t i = 0;
    for (; i + 2 * LANES <= size; i += 2 * LANES) {
        even += exp_of(load(logits + i) - most);
        odd += exp_of(load(logits + i + LANES) - most);
    }
    float sum = sum_lanes(even + odd);
    for (; i < size; i++) sum += expf(logits[i] - most);
    return sum;
}

/* Puts a number and its place into the best `count`, of which `found` are there, unless all of them are as large;
 * returns how many are there now. */
INLINE size_t insert(float value, int64_t id, size_t count, size_t found, float *values, int64_t *ids) {
    if (found == count && !(value > values[count - 1])) return found;
    size_t at = found < count ? found++ : count - 1;
    for (; at > 0 && value > values[at - 1]; at--) {
        values[at] = values[at - 1];
        ids[at] = ids[at - 1];
    }
    values[at] = value;
    ids[at] = id;
    return found;
}

static void best_candidates(const float *logits, size_t size, size_t count, float *maxima, float *values,
                            int64_t *ids) {
    size_t num_blocks = (size + BLOCK - 1) / BLOCK, found = 0;
    block_maxima(logits, size, maxima);
    float most = -INFINITY;
    for (size_t b = 0; b < num_blocks; b++) most = maxima[b] > most ? maxima[b] : most;
    float rest = logf(sum_of_powers(logits, size, most));
    /* As many blocks have a number as large as the last of their best maxima: no smaller one is among the best. */
    for (size_t b = 0; b < num_blocks; b++) found = insert(maxima[b], (int64_t)b, count, found, values, ids);
    float least = found < count ? -INFINITY : values[count - 1];
    found = 0;
    for (size_t b = 0; b < num_blocks; b++) {
        if (!(maxima[b] >= least)) continue;
        size_t last = (b + 1) * BLOCK < size ? (b + 1) * BLOCK : size;
        for (size_t i = b * BLOCK; i < last; i++)
            if (logits[i] >= least) found = insert(logits[i], (int64_t)i, count, found, values, ids);
    }
    if (found < count) /* a row with what is not a number, which makes all of it that: any ids, but each once */
        for (size_t c = 0; c < count; c++) {
            values[c] = NAN;
            ids[c] = (int64_t)c;
        }
    for (size_t c = 0; c < count; c++) values[c] = values[c] - most - rest;
}
#endif
