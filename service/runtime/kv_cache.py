"""Attention keys and values of all rows: the memory of decoding.

Knows: where a row's and a sentence's keys and values are, and how to copy them. Does not know: why rows move.

    self_key_i, self_value_i      (max_rows, H, max_target_tokens, D)    row r holds lengths[r] positions
    cross_key_i, cross_value_i    (max_sentences, H, max_source_tokens, D)   sentence n holds source_lengths[n]
    positions

for each decoder layer i. Rows in use are 0 to R-1, sentences 0 to N-1: a step reads the first R and N of each buffer.
What lies past a row's length is never read. The operating system gives the pages as they are first written.
"""

import numpy as np
from numpy.typing import NDArray

from service.runtime.bundle import Shape


class KVCache:
    """Buffers for one worker; their size is fixed here, so memory is bounded and known in advance."""

    def __init__(
        self, shape: Shape, max_rows: int, max_sentences: int, max_source_tokens: int, max_target_tokens: int
    ) -> None:
        self.shape, self.max_rows, self.max_sentences = shape, max_rows, max_sentences
        self.max_source_tokens, self.max_target_tokens = max_source_tokens, max_target_tokens
        heads, width = shape.num_heads, shape.head_width
        self.buffers: dict[str, NDArray[np.float32]] = {}
        for i in range(shape.num_decoder_layers):
            for part in ("key", "value"):
                self.buffers[f"self_{part}_{i}"] = np.empty((max_rows, heads, max_target_tokens, width), np.float32)
                self.buffers[f"cross_{part}_{i}"] = np.empty(
                    (max_sentences, heads, max_source_tokens, width), np.float32
                )
        self.lengths = np.zeros(max_rows, np.int32)
        self.source_lengths_less_1 = np.zeros(max_sentences, np.int32)

    @property
    def max_bytes(self) -> int:
        """The most memory the buffers can come to occupy."""
        return sum(buffer.nbytes for buffer in self.buffers.values())

    def copy_rows(self, sources: NDArray[np.intp], targets: NDArray[np.intp]) -> None:
        """Self-attention positions of each source row into its target row; no row may be both."""
        if not len(sources):
            return
        longest = int(self.lengths[sources].max())
        for name, buffer in self.buffers.items():
            if name.startswith("self"):
                buffer[targets, :, :longest] = buffer[sources, :, :longest]
        self.lengths[targets] = self.lengths[sources]

    def write_source(
        self, sentence: int, keys: list[NDArray[np.float32]], values: list[NDArray[np.float32]], length: int
    ) -> None:
        """Stores a sentence's cross-attention keys and values, (H, S, D) per layer with S >= length."""
        for i, (key, value) in enumerate(zip(keys, values, strict=True)):
            self.buffers[f"cross_key_{i}"][sentence, :, :length] = key[:, :length]
            self.buffers[f"cross_value_{i}"][sentence, :, :length] = value[:, :length]
        self.source_lengths_less_1[sentence] = length - 1

    def move_sentence(self, source: int, target: int) -> None:
        length = int(self.source_lengths_less_1[source]) + 1
        for name, buffer in self.buffers.items():
            if name.startswith("cross"):
                buffer[target, :, :length] = buffer[source, :, :length]
        self.source_lengths_less_1[target] = length - 1
