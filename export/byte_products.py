"""Which bytes are multiplied fast where the processor has no instruction for it (kernels/products_avx2.h).

Knows: what fits into the 16 bits that AVX2 adds products in. Does not know: scales of a model, ONNX. All bytes give
exact products; these give them sooner.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

GROUP = 4  # numbers of a row that are read at once
NEAR = 128  # the largest distance of an input from where its window starts that is multiplied at once
LIMIT = 127  # of a column's number
NEAR_SUM = 255  # of four numbers of a column, of one sign
SMALLEST_SCALE = 1e-12  # an all-zero column of a matrix would divide by zero


def window_start(zero_point: int) -> int:
    return min(max(zero_point - NEAR // 2, 0), NEAR - 1)


def far_share(rounded: NDArray[np.integer[Any]], zero_point: int) -> float:
    """How many groups of inputs (N, K) have a number outside of the window; each costs about three times as much.

    0 where K is no multiple of GROUP: then the library leaves the product to ONNX Runtime.
    """
    if rounded.shape[1] % GROUP:
        return 0.0
    start = window_start(zero_point)
    far = (rounded < start) | (rounded > start + NEAR)
    return float(far.reshape(-1, GROUP).any(axis=1).mean())


def column_scales(weight: NDArray[Any]) -> NDArray[np.float32]:
    """The scales (N,) of a matrix's columns (K, N) with which every sum of four fits, and every number."""
    largest = np.abs(weight).max(axis=0) / LIMIT
    whole = weight[: len(weight) // (2 * GROUP) * 2 * GROUP]
    if len(whole):
        # (K / 8, two groups, two pairs, two, N): what is added is one pair of the one group and one of the other.
        fours = whole.reshape(-1, 2, 2, 2, weight.shape[1])
        sums = np.stack([np.maximum(sign * fours, 0).sum(axis=(1, 3)).max(axis=(0, 1)) for sign in (1, -1)])
        # Four roundings may add two.
        largest = np.maximum(largest, sums.max(axis=0) / (NEAR_SUM - 2))
    return np.maximum(largest, SMALLEST_SCALE).astype(np.float32)


def together(is_used: NDArray[np.bool_]) -> NDArray[np.intp]:
    """An order of channels (K,) in which those that are used together stand in one group, whatever the order was.

    A group of which nothing is used costs nothing where most are such, as they are behind a ReLU. The most used channel
    that is left is joined by those that are used most often together with it, and with each other.

    Args:
        is_used: (N, K), whether channel k of input n is other than zero.
    """
    used = is_used.astype(np.float32)
    both = used.T @ used  # how often each two are
    is_left = np.ones(len(both), bool)
    order: list[int] = []
    for first in np.argsort(-both.diagonal(), kind="stable"):
        if not is_left[first]:
            continue
        group, common = [int(first)], both[first].copy()
        is_left[first] = False
        while len(group) < GROUP and is_left.any():
            group.append(int(np.where(is_left, common, -1.0).argmax()))
            is_left[group[-1]] = False
            common += both[group[-1]]
        order += group
    return np.array(order, np.intp)
