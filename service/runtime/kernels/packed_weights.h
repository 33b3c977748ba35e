/* Constant columns of bytes as they are multiplied, and what is done to their sums.
 *
 * Knows: bytes, their scales. Does not know: how sums are made, models, ONNX Runtime.
 */
#ifndef DRAGOMAN_PACKED_WEIGHTS_H
#define DRAGOMAN_PACKED_WEIGHTS_H

#include "rows.h"

#define IN_REGISTERS _Pragma("GCC unroll 8") /* numbers of an array only where every place in it is a constant */

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
#define HAS_WINDOW 0 /* all inputs are near, however large */
#else
#define HAS_WINDOW 1
#endif
#define NEAR 128     /* the largest of an input, from its window's start on, that is multiplied at once */
#define NEAR_SUM 255 /* of sizes of columns' numbers: times NEAR it is less than 2 ** 15 */

INLINE int32_t four_bytes(const void *from) {
    int32_t bytes;
    memcpy(&bytes, from, sizeof bytes);
    return bytes;
}

/* The sums of GROUP bytes side by side, four times. */
INLINE __m128i sums_of_groups(__m128i bytes) {
    return _mm_madd_epi16(_mm_maddubs_epi16(_mm_set1_epi8(1), bytes), _mm_set1_epi16(1));
}

/* Puts GROUP rows of a tile, `stride` apart and `count` wide, into `to` column by column, and adds them to the columns'
 * sums. Returns whether there is a -128. */
INLINE int pack_group(const int8_t *from, size_t stride, size_t count, int8_t *to, int32_t *sums) {
    __m128i rows[GROUP] = {0}, *packed = (__m128i *)to, lowest = _mm_setzero_si128();
    for (int k = 0; k < GROUP; k++) {
        memcpy(&rows[k], from + (size_t)k * stride, count);
        lowest |= _mm_cmpeq_epi8(rows[k], _mm_set1_epi8(INT8_MIN));
    }
    __m128i left = _mm_unpacklo_epi8(rows[0], rows[1]), left_more = _mm_unpacklo_epi8(rows[2], rows[3]);
    __m128i right = _mm_unpackhi_epi8(rows[0], rows[1]), right_more = _mm_unpackhi_epi8(rows[2], rows[3]);
    packed[0] = _mm_unpacklo_epi16(left, left_more);
    packed[1] = _mm_unpackhi_epi16(left, left_more);
    packed[2] = _mm_unpacklo_epi16(right, right_more);
    packed[3] = _mm_unpackhi_epi16(right, right_more);
    __m128i *four_sums = (__m128i *)sums;
    for (int i = 0; i < TILE / 4; i++) four_sums[i] = _mm_add_epi32(four_sums[i], sums_of_groups(packed[i]));
    return _mm_movemask_epi8(lowest) != 0;
}

/* Sums of the positive ones of every two numbers that stand side by side. */
INLINE __m256i sums_of_twos(__m256i numbers) {
    return _mm256_maddubs_epi16(_mm256_max_epi8(numbers, _mm256_setzero_si256()), _mm256_set1_epi8(1));
}

/* The largest sum of one sign of four numbers of a column whose products are added in 16 bits: two side by side in one
 * group, and the two at their place in the next. */
static int largest_sum(const int8_t *packed, size_t bytes) {
    const __m256i zero = _mm256_setzero_si256();
    __m256i largest = zero;
    for (size_t i = 0; i + 2 * TILE * GROUP <= bytes; i += 2 * TILE * GROUP)
        for (size_t half = 0; half < 2; half++) {
            const __m256i *group = (const __m256i *)(packed + i) + half;
            __m256i one = _mm256_load_si256(group), next = _mm256_load_si256(group + 2);
            __m256i above = _mm256_add_epi16(sums_of_twos(one), sums_of_twos(next));
            one = _mm256_sub_epi8(zero, one), next = _mm256_sub_epi8(zero, next);
            __m256i below = _mm256_add_epi16(sums_of_twos(one), sums_of_twos(next));
            largest = _mm256_max_epi16(largest, _mm256_max_epi16(above, below));
        }
    int16_t sums[16], most = 0;
    _mm256_storeu_si256((__m256i *)sums, largest);
    for (size_t i = 0; i < 16; i++) most = sums[i] > most ? sums[i] : most;
    return most;
}

/* Where the window of inputs starts: so that their zero point is in its middle, as far as what is left of them are
 * signed bytes. */
static int start_of(int zero_point) {
    int start = zero_point - NEAR / 2;
    return start < 0 || !HAS_WINDOW ? 0 : start < NEAR ? start : NEAR - 1;
}

static int pack_weights(const Columns *from, void *memory, Weights *to) {
    size_t depth = from->depth, width = from->width, padded = PACKED_WIDTH(width);
    int8_t *numbers = memory;
    int32_t *corrections = (int32_t *)(numbers + padded * depth);
    float *factors = (float *)(corrections + padded), *bias = factors + padded;
    int start = start_of(from->rounding.zero_point), has_lowest = 0, fit = 1;
    memset(corrections, 0, PACKED_BYTES(depth, width) - padded * depth);
    for (size_t n = 0; n < width; n += TILE) {
        for (size_t k = 0; k < depth; k += GROUP) {
            const int8_t *group = from->numbers + k * width + n;
            int8_t *packed = numbers + n * depth + k * TILE;
            if (n + TILE <= width) has_lowest |= pack_group(group, width, TILE, packed, corrections + n);
            else has_lowest |= pack_group(group, width, width - n, packed, corrections + n);
        }
        fit &= largest_sum(numbers + n * depth, depth * TILE) <= NEAR_SUM;
    }
    for (size_t n = 0; n < width; n++) {
        corrections[n] *= start - from->rounding.zero_point;
        factors[n] = from->rounding.scale * from->scales[n];
        bias[n] = from->bias[n];
    }
    *to = (Weights){depth, width, numbers, corrections, factors, bias, start, fit};
    return !has_lowest;
}

/* As rounded_number in rows.h. */
INLINE __m256i rounded_eight(__m256 values, Rounding rounding) {
    __m256 quotients = _mm256_div_ps(values, _mm256_set1_ps(rounding.scale));
    quotients = _mm256_max_ps(quotients, _mm256_set1_ps(-1024)); /* the second where one is not a number */
    quotients = _mm256_min_ps(quotients, _mm256_set1_ps(1024));
    return _mm256_add_epi32(_mm256_cvtps_epi32(quotients), _mm256_set1_epi32(rounding.zero_point));
}

INLINE void put(const Product *product, __m256i left_sums, __m256i right_sums, size_t row, size_t first) {
    const Weights *weights = product->weights;
    size_t at = row * weights->width + first, rest = weights->width - first;
    __m256i sums[] = {left_sums, right_sums};
    __m256 values[2];
    for (int half = 0; half < 2; half++) {
        size_t column = first + (size_t)half * TILE / 2;
        __m256i corrections = _mm256_load_si256((const __m256i *)(weights->corrections + column));
        __m256 whole = _mm256_cvtepi32_ps(_mm256_add_epi32(sums[half], corrections));
        __m256 factors = _mm256_load_ps(weights->factors + column), bias = _mm256_load_ps(weights->bias + column);
        values[half] = _mm256_fmadd_ps(whole, factors, bias);
    }
    if (product->rounded) {
        __m256i left = rounded_eight(values[0], product->rounding), right = rounded_eight(values[1], product->rounding);
        __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(left, right), 0xd8);
        __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
        if (rest >= TILE) _mm_storeu_si128((__m128i *)(product->rounded + at), bytes);
        else memcpy(product->rounded + at, &bytes, rest);
    } else if (rest >= TILE) {
        _mm256_storeu_ps(product->plain + at, values[0]);
        _mm256_storeu_ps(product->plain + at + TILE / 2, values[1]);
    } else memcpy(product->plain + at, values, rest * sizeof(float));
}
#endif
