/* All kernels for one kind of processor; KERNELS is the name of their table. */
#include "kernels.h"
#include "attention.h"
#include "products.h"
#include "rows.h"

const Kernels KERNELS = {
    .round_row = round_row,
    .scale_round_row = scale_round_row,
    .silu_row = silu_row,
    .round_signed = round_signed,
    .embed = embed,
    .add_norm = add_norm,
    .remember = remember,
    .attend = attend,
    .attend_sequence = attend_sequence,
    .sequence_scratch = sequence_scratch,
    .best_candidates = best_candidates,
    .pack_weights = pack_weights,
#if HAS_WINDOW
    .split = split,
#endif
    .multiply_tiles = multiply_tiles,
};
