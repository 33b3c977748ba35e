/* Products of unsigned and signed bytes, exact.
 *
 * Knows: bytes, their scales. Does not know: models, ONNX Runtime.
 *
 * Some processors have an instruction for it (VNNI). That of the others adds two products in 16 bits, where 255 * 127
 * twice does not fit. There inputs are read as x - 128: their sizes, at most 128, are multiplied by columns that have
 * taken their signs, at most 127 each way.
 */
#ifndef DRAGOMAN_PRODUCTS_H
#define DRAGOMAN_PRODUCTS_H

#include "rows.h"
#include <stdlib.h>

#if defined(__AVX512VNNI__)
#define CENTRE 0 /* what inputs are read from */
#define ROWS 8   /* that read a tile at once */
#else
#define CENTRE 128
#define ROWS 4
#endif
#define IN_REGISTERS _Pragma("GCC unroll 8") /* numbers of an array only where every place in it is a constant */

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

static int pack_weights(const Columns *from, void *memory, Weights *to) {
    size_t depth = from->depth, width = from->width, padded = PACKED_WIDTH(width);
    int8_t *numbers = memory;
    int32_t *corrections = (int32_t *)(numbers + padded * depth);
    float *factors = (float *)(corrections + padded), *bias = factors + padded;
    *to = (Weights){depth, width, numbers, corrections, factors, bias};
    memset(corrections, 0, PACKED_BYTES(depth, width) - padded * depth);
    int has_lowest = 0;
    for (size_t n = 0; n < width; n += TILE)
        for (size_t k = 0; k < depth; k += GROUP) {
            const int8_t *group = from->numbers + k * width + n;
            int8_t *packed = numbers + n * depth + k * TILE;
            if (n + TILE <= width) has_lowest |= pack_group(group, width, TILE, packed, corrections + n);
            else has_lowest |= pack_group(group, width, width - n, packed, corrections + n);
        }
    for (size_t n = 0; n < width; n++) {
        corrections[n] *= CENTRE - from->rounding.zero_point;
        factors[n] = from->rounding.scale * from->scales[n];
        bias[n] = from->bias[n];
    }
    return !has_lowest;
}

#if !defined(__AVX512VNNI__)
static void centre(const uint8_t *x, size_t size, uint8_t *sizes, int8_t *centred) {
    size_t i = 0;
    for (; i + 32 <= size; i += 32) {
        __m256i bytes = _mm256_loadu_si256((const __m256i *)(x + i)) ^ _mm256_set1_epi8(INT8_MIN);
        _mm256_storeu_si256((__m256i *)(centred + i), bytes);
        _mm256_storeu_si256((__m256i *)(sizes + i), _mm256_abs_epi8(bytes));
    }
    for (; i < size; i++) {
        centred[i] = (int8_t)(x[i] - CENTRE);
        sizes[i] = (uint8_t)abs(centred[i]);
    }
}
#endif

INLINE int32_t four_bytes(const void *from) {
    int32_t bytes;
    memcpy(&bytes, from, sizeof bytes);
    return bytes;
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

#if defined(__AVX512VNNI__)
/* A tile of columns for num_rows rows, at most ROWS, from `row` on. Few rows have several sums each, since one waits
 * for the last of its own. */
INLINE void multiply_rows(const Product *product, size_t tile, size_t row, size_t num_rows) {
    const Weights *weights = product->weights;
    size_t depth = weights->depth, first = tile * TILE, k = 0;
    const size_t parts = num_rows < 4 ? 4 : 1, stride = parts * GROUP;
    const int8_t *numbers = weights->numbers + first * depth;
    const uint8_t *x = product->x + row * depth;
    __m512i sums[ROWS][4];
    for (size_t r = 0; r < num_rows; r++)
        for (size_t i = 0; i < parts; i++) sums[r][i] = _mm512_setzero_si512();
    for (; k + stride <= depth; k += stride)
        IN_REGISTERS for (size_t i = 0; i < parts; i++) {
            __m512i columns = _mm512_load_si512(numbers + (k + i * GROUP) * TILE);
            IN_REGISTERS for (size_t r = 0; r < num_rows; r++)
                sums[r][i] = _mm512_dpbusd_epi32(
                    sums[r][i], _mm512_set1_epi32(four_bytes(x + r * depth + k + i * GROUP)), columns);
        }
    for (; k < depth; k += GROUP) {
        __m512i columns = _mm512_load_si512(numbers + k * TILE);
        IN_REGISTERS for (size_t r = 0; r < num_rows; r++)
            sums[r][0] = _mm512_dpbusd_epi32(sums[r][0], _mm512_set1_epi32(four_bytes(x + r * depth + k)), columns);
    }
    IN_REGISTERS for (size_t r = 0; r < num_rows; r++) {
        __m512i sum = sums[r][0];
        for (size_t i = 1; i < parts; i++) sum = _mm512_add_epi32(sum, sums[r][i]);
        put(product, _mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64(sum, 1), row + r, first);
    }
}
#else
/* A tile of columns for num_rows rows, at most ROWS, from `row` on. */
INLINE void multiply_rows(const Product *product, size_t tile, size_t row, size_t num_rows) {
    const Weights *weights = product->weights;
    size_t depth = weights->depth, first = tile * TILE;
    const int8_t *numbers = weights->numbers + first * depth;
    const uint8_t *sizes = product->sizes + row * depth;
    const int8_t *centred = product->centred + row * depth;
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i lefts[ROWS], rights[ROWS];
    for (size_t r = 0; r < num_rows; r++) lefts[r] = rights[r] = _mm256_setzero_si256();
    for (size_t k = 0; k < depth; k += GROUP) {
        const __m256i *both = (const __m256i *)(numbers + k * TILE);
        __m256i left = _mm256_load_si256(both), right = _mm256_load_si256(both + 1);
        IN_REGISTERS for (size_t r = 0; r < num_rows; r++) {
            __m256i size = _mm256_set1_epi32(four_bytes(sizes + r * depth + k));
            __m256i sign = _mm256_set1_epi32(four_bytes(centred + r * depth + k));
            __m256i more_left = _mm256_maddubs_epi16(size, _mm256_sign_epi8(left, sign));
            __m256i more_right = _mm256_maddubs_epi16(size, _mm256_sign_epi8(right, sign));
            lefts[r] = _mm256_add_epi32(lefts[r], _mm256_madd_epi16(more_left, ones));
            rights[r] = _mm256_add_epi32(rights[r], _mm256_madd_epi16(more_right, ones));
            /* One row after the other: there are registers for no more than one at a time. */
            if (num_rows == ROWS) __asm__ volatile("" : "+x"(lefts[r]), "+x"(rights[r]));
        }
    }
    IN_REGISTERS for (size_t r = 0; r < num_rows; r++) put(product, lefts[r], rights[r], row + r, first);
}
#endif

static void multiply_tile(const Product *product, size_t tile) {
    size_t row = 0;
    for (; row + ROWS <= product->num_rows; row += ROWS) multiply_rows(product, tile, row, ROWS);
    if (ROWS > 4 && row + 4 <= product->num_rows) {
        multiply_rows(product, tile, row, 4);
        row += 4;
    }
    switch (product->num_rows - row) {
    case 3: multiply_rows(product, tile, row, 3); break;
    case 2: multiply_rows(product, tile, row, 2); break;
    case 1: multiply_rows(product, tile, row, 1); break;
    }
}
#endif
