/* A tile of columns times some rows, where the processor has an instruction for it: 512 or 256 bits of columns. */
#ifndef DRAGOMAN_PRODUCTS_VNNI_H
#define DRAGOMAN_PRODUCTS_VNNI_H

#include "packed_weights.h"

#if defined(__AVX512VNNI__)
#define ROWS 8   /* that read a tile at once */
#define PIECES 1 /* registers of a tile's columns */
typedef __m512i Piece;
INLINE Piece add_products(Piece sums, int32_t four, Piece columns) {
    return _mm512_dpbusd_epi32(sums, _mm512_set1_epi32(four), columns);
}
INLINE Piece added(Piece a, Piece b) { return _mm512_add_epi32(a, b); }
INLINE __m256i left_of(const Piece *sums) { return _mm512_castsi512_si256(*sums); }
INLINE __m256i right_of(const Piece *sums) { return _mm512_extracti64x4_epi64(*sums, 1); }
#else
#define ROWS 4
#define PIECES 2
typedef __m256i Piece;
INLINE Piece add_products(Piece sums, int32_t four, Piece columns) {
    return _mm256_dpbusd_avx_epi32(sums, _mm256_set1_epi32(four), columns);
}
INLINE Piece added(Piece a, Piece b) { return _mm256_add_epi32(a, b); }
INLINE __m256i left_of(const Piece *sums) { return sums[0]; }
INLINE __m256i right_of(const Piece *sums) { return sums[1]; }
#endif

/* Few rows have several sums each, since one waits for the last of its own. */
INLINE size_t sums_each(size_t num_rows) { return num_rows == 1 ? 4 : num_rows < 4 ? 4 / PIECES : 1; }

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
    Piece sums[ROWS][4][PIECES];
    for (size_t r = 0; r < num_rows; r++)
        for (size_t i = 0; i < each; i++)
            for (size_t p = 0; p < PIECES; p++) sums[r][i][p] = (Piece){0};
    for (; k + stride <= depth; k += stride)
        IN_REGISTERS for (size_t i = 0; i < each; i++)
            add_group(weights, numbers, x, k + i * GROUP, num_rows, i, sums);
    for (; k < depth; k += GROUP) add_group(weights, numbers, x, k, num_rows, 0, sums);
    IN_REGISTERS for (size_t r = 0; r < num_rows; r++) {
        for (size_t i = 1; i < each; i++)
            for (size_t p = 0; p < PIECES; p++) sums[r][0][p] = added(sums[r][0][p], sums[r][i][p]);
        put(product, left_of(sums[r][0]), right_of(sums[r][0]), row + r, first);
    }
}
#endif
