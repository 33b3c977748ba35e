"""Attention keys and values of all rows: the memory of decoding.

Knows: where a row's and a sentence's keys and values are, and how to copy them. Does not know: why rows move.

    self_key_i, self_value_i     (max_rows, H, target_capacity, D)        row r holds lengths[r] positions
    cross_key_i, cross_value_i   (max_sentences, H, source_capacity, D)   sentence n holds its source's positions

for each decoder layer i. Rows in use are 0 to R-1, sentences 0 to N-1: a step reads the first R and N of each buffer.
What lies past a row's length is never read. Capacities start small and grow a little when a longer row comes, up to the
model's limits. Attention waits for memory, which comes fastest without gaps between one head's numbers and the next:
of 64 rows with 30 positions, it takes 190 us where there is room for 32, and 350 to 550 where there is for 64. Memory
is taken for more than that, for usual lengths or for all, so that growing is laying out anew: fresh memory for every
sentence cost a tenth of it.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.runtime.bundle import Shape

FIRST_CAPACITY, USUAL_CAPACITY = 32, 64
# So many times at rest without a longer text, and the memory that such texts needed is given back.
RESTS_BEFORE_SHRINKING = 64
POSITIONS_AT_A_TIME = 8


class EncodedSources(NamedTuple):
    """Cross-attention keys and values (B, H, S, D) of each decoder layer."""

    keys: list[NDArray[np.generic]]
    values: list[NDArray[np.generic]]


class KVCache:
    """Buffers for one worker. Their largest size follows from the arguments: memory is bounded and known in advance.

    Args:
        dtype: of the numbers: float32, or int8 where the graphs keep them so.

    Attributes:
        target_capacity, source_capacity: positions a row and a sentence can hold now.
        allocations: how often buffers were laid out anew.
        generation: how often memory was taken anew; in one, buffers of the same capacities have the same addresses.
    """

    def __init__(
        self,
        shape: Shape,
        max_rows: int,
        max_sentences: int,
        max_source_tokens: int,
        max_target_tokens: int,
        dtype: type[np.generic] = np.float32,
    ) -> None:
        self.dtype = np.dtype(dtype)
        self.shape, self.max_rows, self.max_sentences = shape, max_rows, max_sentences
        self.max_source_tokens, self.max_target_tokens = max_source_tokens, max_target_tokens
        self.lengths = np.zeros(max_rows, np.int32)
        self.source_lengths_less_1 = np.zeros(max_sentences, np.int32)
        self.memory: dict[str, NDArray[np.generic]] = {}  # of each kind; what is not used yet is not there yet either
        self.blocks: dict[str, NDArray[np.generic]] = {}  # all layers' keys and values of a kind
        self.buffers: dict[str, NDArray[np.generic]] = {}  # views into the blocks, by the graphs' names
        self.target_capacity = self.source_capacity = self.allocations = self.generation = self.rests = 0
        self.has_long = False  # whether memory for more than the usual lengths was taken
        self.reset()

    def names(self, kind: str) -> Iterator[str]:
        return (f"{kind}_{part}_{i}" for i in range(self.shape.num_decoder_layers) for part in ("key", "value"))

    @property
    def bytes_per_position(self) -> int:
        """Of one row or sentence, all layers, keys and values."""
        return 2 * self.shape.num_decoder_layers * self.shape.model_width * self.dtype.itemsize

    @property
    def max_bytes(self) -> int:
        """The most memory the buffers can come to occupy."""
        positions = self.max_rows * self.max_target_tokens + self.max_sentences * self.max_source_tokens
        return positions * self.bytes_per_position

    def reset(self) -> None:
        """Back to small buffers; whatever they held is forgotten."""
        target, source = min(FIRST_CAPACITY, self.max_target_tokens), min(FIRST_CAPACITY, self.max_source_tokens)
        was_long = max(self.target_capacity, self.source_capacity) > USUAL_CAPACITY
        self.rests = 0 if was_long else self.rests + 1
        if self.has_long and self.rests >= RESTS_BEFORE_SHRINKING:
            self.has_long = False
            self.memory.clear()
        elif (self.target_capacity, self.source_capacity) == (target, source):
            return
        self.target_capacity, self.source_capacity = target, source
        self.allocate("self", self.max_rows, target, 0)
        self.allocate("cross", self.max_sentences, source, 0)

    def allocate(self, kind: str, count: int, capacity: int, keep: int) -> None:
        """A block with ``capacity`` positions that holds what the first ``keep`` rows or sentences held."""
        heads, width = self.shape.num_heads, self.shape.head_width
        per_position = 2 * self.shape.num_decoder_layers * count * self.shape.model_width
        kept = self.blocks[kind][:, :keep].copy() if keep else None  # its place is the new block's
        if kind not in self.memory or len(self.memory[kind]) < per_position * capacity:
            self.has_long = self.has_long or capacity > USUAL_CAPACITY
            limit = self.max_target_tokens if kind == "self" else self.max_source_tokens
            positions = limit if capacity > USUAL_CAPACITY else min(USUAL_CAPACITY, limit)
            self.memory[kind] = np.empty(per_position * positions, self.dtype)
            self.generation += 1
        new = self.memory[kind][: per_position * capacity].reshape(-1, count, heads, capacity, width)
        if kept is not None:
            new[:, :keep, :, : kept.shape[3]] = kept
        self.allocations += 1
        self.blocks[kind] = new
        self.buffers |= dict(zip(self.names(kind), new, strict=True))

    def reserve_target(self, length: int, num_rows: int) -> None:
        """Makes room for ``length`` positions in every row, keeping the first ``num_rows``."""
        if length > self.target_capacity:
            self.target_capacity = grown(self.target_capacity, length, self.max_target_tokens)
            self.allocate("self", self.max_rows, self.target_capacity, num_rows)

    def reserve_source(self, length: int, num_sentences: int) -> None:
        """Makes room for ``length`` positions in every sentence, keeping the first ``num_sentences``."""
        if length > self.source_capacity:
            self.source_capacity = grown(self.source_capacity, length, self.max_source_tokens)
            self.allocate("cross", self.max_sentences, self.source_capacity, num_sentences)

    def copy_rows(self, sources: NDArray[np.intp], targets: NDArray[np.intp]) -> None:
        """Self-attention positions of each source row into its target row; no row may be both."""
        block = self.blocks["self"]
        # Row by row: half the time of one assignment with two index arrays, which copies twice and to the longest.
        for source, target in zip(sources.tolist(), targets.tolist(), strict=True):
            length = self.lengths[source]
            block[:, target, :, :length] = block[:, source, :, :length]
        self.lengths[targets] = self.lengths[sources]

    def write_sources(
        self,
        sentences: NDArray[np.intp],
        encoded: EncodedSources,
        chosen: NDArray[np.intp],
        lengths: NDArray[np.int64],
    ) -> None:
        """Stores the cross-attention keys and values of the ``chosen`` (m,) encoded sources for ``sentences`` (m,).

        What lies past ``lengths`` (m,) is padding; it is stored, too, and never read.
        """
        first, count = int(sentences[0]), len(sentences)
        # Neighbours, as nearly always, are one slice, which copies whole blocks.
        adjacent = int(sentences[-1]) - first == count - 1
        target: slice | NDArray[np.intp] = slice(first, first + count) if adjacent else sentences
        for part, arrays in (("key", encoded.keys), ("value", encoded.values)):
            for i, array in enumerate(arrays):
                source = array if count == len(array) else array[chosen]
                self.buffers[f"cross_{part}_{i}"][target, :, : array.shape[2]] = source
        self.source_lengths_less_1[sentences] = lengths - 1

    def move_sentence(self, source: int, target: int) -> None:
        length, block = int(self.source_lengths_less_1[source]) + 1, self.blocks["cross"]
        block[:, target, :, :length] = block[:, source, :, :length]
        self.source_lengths_less_1[target] = length - 1


def grown(capacity: int, length: int, limit: int) -> int:
    """A capacity for ``length``, a quarter more than before at least so that copies are rare; at most ``limit``."""
    if length > limit:
        raise RuntimeError(f"{length} positions were asked of a cache of at most {limit}. This is a bug.")
    wanted = max(length, capacity + capacity // 4)
    return min(-(-wanted // POSITIONS_AT_A_TIME) * POSITIONS_AT_A_TIME, limit)
