/* Products of unsigned and signed bytes, exact. */
#ifndef DRAGOMAN_PRODUCTS_H
#define DRAGOMAN_PRODUCTS_H

#include "packed_weights.h"

#if HAS_WINDOW
#include "products_avx2.h"
#else
#include "products_vnni.h"
#endif
#if defined(__AMX_INT8__)
#include "products_amx.h"
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

static void multiply_tiles(const Product *product, size_t first, size_t last) {
#if defined(__AMX_INT8__)
    if (has_blocks(product)) {
        multiply_in_blocks(product, first, last);
        return;
    }
#endif
    for (size_t tile = first; tile < last; tile++) multiply_tile(product, tile);
}
#endif
