/* A tile of columns times some rows, where the processor has an instruction for it: 512 or 256 bits of columns. */
#ifndef DRAGOMAN_PRODUCTS_VNNI_H
#define DRAGOMAN_PRODUCTS_VNNI_H

#include "packed_weights.h"

#define MANY_OUTPUTS 131072 /* numbers, which are not in the nearest caches any more when their next tile comes */

#if defined(__AVX512VNNI__)
#define ROWS 8   /* that read a tile at once */
#define PIECES 1 /* registers of a tile's columns */
typedef __m512i Piece;
INLINE Piece add_products(Piece sums, int32_t four, Piece columns) {
    return _mm512_dpbusd_epi32(sums, _mm512_set1_epi32(four), columns);
}
INLINE Piece added(Piece a, Piece b) { return _mm512_add_epi32(a, b); }

/* As put() in packed_weights.h. */
INLINE void put_tile(const Product *product, const Piece *sums, size_t row, size_t first) {
    const Weights *weights = product->weights;
    size_t at = row * weights->width + first, rest = weights->width - first;
    __mmask16 wanted = (__mmask16)(rest < TILE ? (1 << rest) - 1 : 0xffff);
    __m512i corrected = _mm512_add_epi32(*sums, _mm512_load_si512(weights->corrections + first));
    __m512 factors = _mm512_load_ps(weights->factors + first), bias = _mm512_load_ps(weights->bias + first);
    __m512 values = _mm512_fmadd_ps(_mm512_cvtepi32_ps(corrected), factors, bias);
    if (product->rounded) {
        __m512 quotients = _mm512_div_ps(values, _mm512_set1_ps(product->rounding.scale));
        quotients = _mm512_min_ps(_mm512_max_ps(quotients, _mm512_set1_ps(-1024)), _mm512_set1_ps(1024));
        __m512i zero_point = _mm512_set1_epi32(product->rounding.zero_point);
        __m512i numbers = _mm512_add_epi32(_mm512_cvtps_epi32(quotients), zero_point);
        numbers = _mm512_max_epi32(numbers, _mm512_setzero_si512());
        _mm512_mask_cvtusepi32_storeu_epi8(product->rounded + at, wanted, numbers);
    } else _mm512_mask_storeu_ps(product->plain + at, wanted, values);
}
#else
#define ROWS 4
#define PIECES 2
typedef __m256i Piece;
INLINE Piece add_products(Piece sums, int32_t four, Piece columns) {
    return _mm256_dpbusd_avx_epi32(sums, _mm256_set1_epi32(four), columns);
}
INLINE Piece added(Piece a, Piece b) { return _mm256_add_epi32(a, b); }
INLINE void put_tile(const Product *product, const Piece *sums, size_t row, size_t first) {
    put(product, sums[0], sums[1], row, first);
}
#endif

/* Few rows have several sums each, since one waits for the last of its own. */
INLINE size_t sums_each(size_t num_rows) { return num_rows == 1 ? 4 : num_rows < 4 ? 4 / PIECES : 1; }

/* Asks for the next tile's columns at `k`. Behind the last there is nothing that a pointer may point to, hence the
 * address; to ask for that does no harm. */
INLINE void fetch_next(const int8_t *numbers, size_t depth, size_t k) {
    __builtin_prefetch((const void *)((uintptr_t)numbers + (depth + k) * TILE), 0, 2);
}

/* Asks for where some rows' products go, so that it is there when their sums are made. */
INLINE void fetch_outputs(const Product *product, size_t first, size_t row, size_t num_rows) {
    size_t width = product->weights->width;
    if (!product->plain || product->num_rows * width < MANY_OUTPUTS) return;
    for (size_t r = row; r < row + num_rows; r++) __builtin_prefetch(product->plain + r * width + first, 1, 3);
}

/* Adds the products of a group's columns with x's four numbers at `k`, of some rows, to their sums number `i`. */
INLINE void add_group(const Weights *weights, const int8_t *numbers, const uint8_t *x, size_t k, size_t num_rows,
                      size_t i, Piece sums[ROWS][4][PIECES]) {
    const Piece *columns = (const Piece *)(numbers + k * TILE);
    IN_REGISTERS for (size_t r = 0; r < num_rows; r++)
        IN_REGISTERS for (size_t p = 0; p < PIECES; p++)
            sums[r][i][p] = add_products(sums[r][i][p], four_bytes(x + r * weights->depth + k), columns[p]);
}

/* A tile of columns for num_rows rows, at most ROWS, from `row` on. */
INLINE void multiply_rows(const Product *product, size_t tile, size_t row, size_t num_rows) {
    const Weights *weights = product->weights;
    size_t depth = weights->depth, first = tile * TILE, k = 0;
    const size_t each = sums_each(num_rows), stride = each * GROUP;
    const int8_t *numbers = weights->numbers + first * depth;
    const uint8_t *x = product->x + row * depth;
    /* The next tile, while other rows read this one again. */
    const int fetches = num_rows == ROWS && row == 0 && product->num_rows >= 2 * ROWS;
    Piece sums[ROWS][4][PIECES];
    fetch_outputs(product, first, row, num_rows);
    for (size_t r = 0; r < num_rows; r++)
        for (size_t i = 0; i < each; i++)
            for (size_t p = 0; p < PIECES; p++) sums[r][i][p] = (Piece){0};
    for (; k + stride <= depth; k += stride)
        IN_REGISTERS for (size_t i = 0; i < each; i++) {
            add_group(weights, numbers, x, k + i * GROUP, num_rows, i, sums);
            if (fetches) fetch_next(numbers, depth, k + i * GROUP);
        }
    for (; k < depth; k += GROUP) add_group(weights, numbers, x, k, num_rows, 0, sums);
    IN_REGISTERS for (size_t r = 0; r < num_rows; r++) {
        for (size_t i = 1; i < each; i++)
            for (size_t p = 0; p < PIECES; p++) sums[r][0][p] = added(sums[r][0][p], sums[r][i][p]);
        put_tile(product, sums[r][0], row + r, first);
    }
}
#endif
