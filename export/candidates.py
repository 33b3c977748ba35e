"""The best candidates of each row, so that nothing as wide as the vocabulary leaves the graph.

Knows: operators. Does not know: models, searches. R rows, V vocabulary, C candidates.

ONNX Runtime's TopK compares one number at a time: 290 us for 64 rows of 8,000, as much as a tenth of a decoder step.
So the vocabulary is cut into blocks, whose largest numbers a vectorised ReduceMax finds; the best C numbers of a row
stand in the C blocks with the largest maxima, and TopK looks through those only: half the time, the same result, the
order of equal numbers included. A vocabulary with no useful divisor gets a few tokens more that have no probability.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from export.calibrate import OUTPUT
from export.graph_builder import GraphBuilder

MIN_BLOCKS, MAX_BLOCK = 64, 512


def block_size(vocab_size: int) -> int:
    """The divisor of ``vocab_size`` nearest to its square root from below that gives useful blocks; 0: there is none.

    Both passes look at about as many numbers as the other where blocks and their number are equal.
    """
    sizes = [d for d in range(8, min(MAX_BLOCK, vocab_size // MIN_BLOCKS) + 1) if vocab_size % d == 0]
    return min(sizes, key=lambda d: abs(np.log(d * d / vocab_size)), default=0)


def padded_size(vocab_size: int) -> int:
    """The smallest size from ``vocab_size`` on that is cut into blocks about as long as there are of them.

    For large vocabularies, where that costs next to nothing: one token in a few hundred at most.
    """
    if vocab_size < MIN_BLOCKS**2:
        return vocab_size
    size = vocab_size
    while not 0.5 <= block_size(size) / np.sqrt(size) <= 2:
        size += 1
    return size


def padded(state: Mapping[str, NDArray[np.generic]], vocab_size: int, is_tied: bool) -> dict[str, NDArray[np.generic]]:
    """A model's arrays, those as long as the target's vocabulary up to padded_size(vocab_size).

    What is added has rows of zeros and a bias of minus infinity: no probability, and no change to the others'.
    """
    missing = padded_size(vocab_size) - vocab_size
    if not missing:
        return dict(state)
    sides = ("source", "target") if is_tied else ("target",)
    tables = [name for name in (*(f"{side}_embedding.weight" for side in sides), f"{OUTPUT}.weight") if name in state]
    longer = {name: np.pad(state[name], ((0, missing), (0, 0))) for name in tables}
    no_bias = np.zeros(vocab_size, np.float32)
    for name in ("output_bias", f"{OUTPUT}.bias") if f"{OUTPUT}.weight" in state else ("output_bias",):
        longer[name] = np.pad(state.get(name, no_bias), (0, missing), constant_values=-np.inf)
    return dict(state) | longer


def best_candidates(graph: GraphBuilder, numbers: str, count: str, vocab_size: int) -> tuple[str, str]:
    """The ``count`` (1,) largest of each row of ``numbers`` (R, 1, V), largest first: numbers and ids, (R, C) each.

    Of equal numbers the one with the smaller id comes first. ``vocab_size`` 0: without blocks.
    """
    size = block_size(vocab_size) if vocab_size else 0
    if not size:
        rows = graph.op("Reshape", numbers, graph.constant([0, -1], np.int64))
        values, ids = graph.ops("TopK", rows, count, num_outputs=2, axis=-1)
        return values, ids
    blocks = graph.op("Reshape", numbers, graph.constant([0, vocab_size // size, size], np.int64))
    maxima = graph.op("ReduceMax", blocks, graph.constant([2], np.int64), keepdims=0)  # (R, V / size)
    num_blocks = graph.op("Min", count, graph.constant([vocab_size // size], np.int64))
    _, best = graph.ops("TopK", maxima, num_blocks, num_outputs=2, axis=-1)
    # In order of their place, so that equal numbers of different blocks keep it.
    best, _ = graph.ops("TopK", best, num_blocks, num_outputs=2, axis=-1, largest=0)  # (R, B)
    places = graph.op("Unsqueeze", best, graph.constant([2], np.int64))
    kept = graph.op("GatherND", blocks, places, batch_dims=1)  # (R, B, size)
    kept = graph.op("Reshape", kept, graph.constant([0, -1], np.int64))
    values, offsets = graph.ops("TopK", kept, count, num_outputs=2, axis=-1)
    width = graph.constant([size], np.int64)
    block = graph.op("Div", offsets, width)
    first = graph.op("Mul", graph.op("GatherElements", best, block, axis=1), width)
    return values, graph.op("Add", first, graph.op("Mod", offsets, width))
