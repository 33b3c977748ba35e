"""Attention keys and values in a device's memory: fixed places of a fixed size, changed in place.

Knows: which position of the blocks belongs to which row or sentence. Does not know: why rows move.

    self    (2 L x max_rows, H, max_target_tokens, D)       row r of layer i: keys at (2 i) x max_rows + r, values at
                                                            (2 i + 1) x max_rows + r
    cross   (2 L x max_sentences, H, max_source_tokens, D)  likewise

There are as many sentences as rows. Nothing is ever allocated anew, so addresses can be recorded. A reorder copies the
rows that change, not the cache: no second set of buffers is needed.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.runtime.bundle import Shape
from service.runtime.device_memory import Device, Dtype, Part

# The device's Gather counts in 32 bits.
MAX_MOVED_NUMBERS = 1 << 30


class DeviceSources:
    """What the encoder made of B sources: keys and values (B, H, S, D) of every layer, in the device's memory."""

    def __init__(self, arrays: Sequence[ort.OrtValue]) -> None:
        self.arrays = arrays
        self.num_sources, _, self.length, _ = arrays[0].shape()


class Block:
    """All layers' keys and values of one kind, and how places of it are copied and written."""

    def __init__(self, device: Device, move: ort.InferenceSession, shape: tuple[int, ...], dtype: Dtype) -> None:
        self.device, self.shape, self.dtype = device, shape, dtype
        self.there = device.empty(shape, dtype)
        self.part = Part.of(device, self.there, dtype)
        self.move = move
        self.moving = self.bound(move)

    def bound(self, session: ort.InferenceSession) -> ort.IOBinding:
        """A binding of a session that changes the block where it is."""
        binding = session.io_binding()
        self.part.bind_input(binding, "block")
        self.part.bind_output(binding, "result")
        return binding

    def copy(self, sources: NDArray[np.int64], targets: NDArray[np.int64]) -> None:
        """What is at each of ``sources`` also to ``targets``; no place may be both."""
        at_once = max(1, MAX_MOVED_NUMBERS // int(np.prod(self.shape[1:])))
        for first in range(0, len(sources), at_once):
            chosen = slice(first, first + at_once)
            self.moving.bind_cpu_input("sources", np.ascontiguousarray(sources[chosen]))
            self.moving.bind_cpu_input("targets", np.ascontiguousarray(targets[chosen, None]))
            self.move.run_with_iobinding(self.moving)


class DeviceCache:
    """See service/runtime/backend.py: Cache."""

    def __init__(
        self,
        shape: Shape,
        dtype: Dtype,
        device: Device,
        move: ort.InferenceSession,
        store: ort.InferenceSession,
        limits: tuple[int, int, int],
    ) -> None:
        """limits: max_rows, max_source_tokens, max_target_tokens."""
        self.shape, self.dtype, self.device = shape, dtype, device
        self.max_rows, self.max_source_tokens, self.max_target_tokens = limits
        self.lengths = np.zeros(self.max_rows, np.int32)
        self.source_lengths_less_1 = np.zeros(self.max_rows, np.int32)
        self.num_arrays = 2 * shape.num_decoder_layers
        places, heads, width = self.num_arrays * self.max_rows, shape.num_heads, shape.head_width
        self.blocks = {
            "self": Block(device, move, (places, heads, self.max_target_tokens, width), dtype),
            "cross": Block(device, move, (places, heads, self.max_source_tokens, width), dtype),
        }
        self.store = store
        self.storing = self.blocks["cross"].bound(store)
        self.names = [f"{part}_{i}" for i in range(shape.num_decoder_layers) for part in ("key", "value")]

    @property
    def max_bytes(self) -> int:
        return sum(int(np.prod(block.shape)) for block in self.blocks.values()) * np.dtype(self.dtype).itemsize

    def part(self, kind: str, index: int, num_rows: int) -> Part:
        """The first ``num_rows`` rows (or sentences) of one layer's keys or values; index: as in ``names``."""
        block = self.blocks[kind]
        row_bytes = int(np.prod(block.shape[1:])) * np.dtype(self.dtype).itemsize
        return block.part.at(index * self.max_rows * row_bytes, (num_rows, *block.shape[1:]), self.dtype)

    def places(self, rows: NDArray[Any], count: int) -> NDArray[np.int64]:
        """Of rows (m,) in each of the layers' arrays of ``count`` rows: (2 L * m,)."""
        starts = np.arange(self.num_arrays, dtype=np.int64) * count
        places: NDArray[np.int64] = starts[:, None] + rows
        return places.reshape(-1)

    def reset(self) -> None:
        """Nothing to do: what lies past a row's length is never read."""

    def reserve_target(self, length: int, num_rows: int) -> None:
        self.check(length, self.max_target_tokens)

    def reserve_source(self, length: int, num_sentences: int) -> None:
        self.check(length, self.max_source_tokens)

    @staticmethod
    def check(length: int, limit: int) -> None:
        if length > limit:
            raise RuntimeError(f"{length} positions were asked of a cache of at most {limit}. This is a bug.")

    def copy_rows(self, sources: NDArray[np.intp], targets: NDArray[np.intp]) -> None:
        if len(sources):
            rows = self.max_rows
            self.blocks["self"].copy(self.places(sources, rows), self.places(targets, rows))
            self.lengths[targets] = self.lengths[sources]

    def move_sentence(self, source: int, target: int) -> None:
        pair = (self.places(np.array([place]), self.max_rows) for place in (source, target))
        self.blocks["cross"].copy(*pair)
        self.source_lengths_less_1[target] = self.source_lengths_less_1[source]

    def write_sources(
        self,
        sentences: NDArray[np.intp],
        encoded: DeviceSources,
        chosen: NDArray[np.intp],
        lengths: NDArray[np.int64],
    ) -> None:
        for name, array in zip(self.names, encoded.arrays, strict=True):
            self.storing.bind_ortvalue_input(f"cross_{name}", array)
        room = self.max_source_tokens - encoded.length
        self.storing.bind_cpu_input("chosen", self.places(chosen, encoded.num_sources))
        self.storing.bind_cpu_input("targets", self.places(sentences, self.max_rows)[:, None].copy())
        self.storing.bind_cpu_input("pads", np.array([0, 0, 0, 0, 0, 0, room, 0], np.int64))
        self.store.run_with_iobinding(self.storing)
        self.source_lengths_less_1[sentences] = lengths - 1
