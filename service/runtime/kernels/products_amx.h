/* Tiles of columns times sixteen rows at once, where the processor has registers for it, of 16 rows of 64 bytes each.
 *
 * ONNX Runtime uses the same registers in the same threads. It makes all of them this large, as here, and looks whether
 * they are: so nobody puts them back.
 */
#ifndef DRAGOMAN_PRODUCTS_AMX_H
#define DRAGOMAN_PRODUCTS_AMX_H

#include "packed_weights.h"

#define AMX_ROWS 16
#define AMX_DEPTH 64 /* numbers of a row in a register */
#define AMX_BLOCKS 4 /* of rows, whose sums are kept at once: registers 0 to 3 */

typedef struct {
    uint8_t palette, first_row, nothing[14];
    uint16_t bytes_of_a_row[16];
    uint8_t rows[16];
} Registers;

static void size_registers(void) {
    static const Registers wanted = {1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
    Registers found;
    __asm__ volatile("sttilecfg %0" : "=m"(found));
    if (memcmp(&found, &wanted, sizeof wanted)) __asm__ volatile("ldtilecfg %0" ::"m"(wanted));
}

/* Sums of a tile's columns in `blocks` registers, for the rows from each of `x` on, `depth` numbers apart. */
INLINE void sum_blocks(const int8_t *numbers, const uint8_t *const *x, size_t depth, size_t blocks) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (size_t k = 0; k < depth; k += AMX_DEPTH) {
        _tile_loadd(4, numbers + k * TILE, TILE * GROUP);
        _tile_loadd(5, x[0] + k, depth);
        _tile_dpbusd(0, 5, 4);
        if (blocks > 1) {
            _tile_loadd(6, x[1] + k, depth);
            _tile_dpbusd(1, 6, 4);
        }
        if (blocks > 2) {
            _tile_loadd(7, x[2] + k, depth);
            _tile_dpbusd(2, 7, 4);
        }
        if (blocks > 3) {
            _tile_loadd(5, x[3] + k, depth);
            _tile_dpbusd(3, 5, 4);
        }
    }
}

static void store_sums(size_t block, int32_t *to) {
    switch (block) {
    case 0: _tile_stored(0, to, TILE * sizeof *to); break;
    case 1: _tile_stored(1, to, TILE * sizeof *to); break;
    case 2: _tile_stored(2, to, TILE * sizeof *to); break;
    case 3: _tile_stored(3, to, TILE * sizeof *to); break;
    }
}

/* A tile of columns for at most AMX_BLOCKS blocks from `row` on. The last block begins earlier where there are not
 * enough rows for it: some are multiplied twice. */
static void multiply_blocks(const Product *product, size_t tile, size_t row) {
    size_t depth = product->weights->depth, first = tile * TILE, rest = product->num_rows - row;
    size_t blocks = rest < AMX_BLOCKS * AMX_ROWS ? (rest + AMX_ROWS - 1) / AMX_ROWS : AMX_BLOCKS;
    size_t starts[AMX_BLOCKS], last = product->num_rows - AMX_ROWS;
    const uint8_t *x[AMX_BLOCKS];
    int32_t sums[AMX_ROWS][TILE] __attribute__((aligned(64)));
    for (size_t i = 0; i < blocks; i++) {
        starts[i] = row + i * AMX_ROWS < last ? row + i * AMX_ROWS : last;
        x[i] = product->x + starts[i] * depth;
    }
    sum_blocks(product->weights->numbers + first * depth, x, depth, blocks);
    for (size_t i = 0; i < blocks; i++) {
        store_sums(i, sums[0]);
        for (size_t r = row + i * AMX_ROWS - starts[i]; r < AMX_ROWS; r++)
            put_tile(product, (const Piece *)sums[r], starts[i] + r, first);
    }
}

static int has_blocks(const Product *product) {
    return product->num_rows >= AMX_ROWS && product->weights->depth % AMX_DEPTH == 0;
}

static void multiply_in_blocks(const Product *product, size_t first, size_t last) {
    size_registers();
    for (size_t tile = first; tile < last; tile++)
        for (size_t row = 0; row < product->num_rows; row += AMX_BLOCKS * AMX_ROWS) multiply_blocks(product, tile, row);
}
#endif
