/* A tile of columns times some rows, where the processor has an instruction for it. */
#ifndef DRAGOMAN_PRODUCTS_VNNI_H
#define DRAGOMAN_PRODUCTS_VNNI_H

#include "packed_weights.h"

#define ROWS 8 /* that read a tile at once */

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
#endif
