"""Attention keys and values in a device's memory: fixed places of a fixed size, changed in place.

Knows: which position of the blocks belongs to which row or sentence. Does not know: why rows move.

    self    (2 L x max_rows, H, target_capacity, D)         row r of layer i: keys at (2 i) x max_rows + r, values at
                                                            (2 i + 1) x max_rows + r
    cross   (2 L x max_sentences, H, source_capacity, D)    likewise

There are as many sentences as rows. Nothing is ever allocated anew, so addresses can be recorded. A reorder copies the
rows that change, not the cache: no second set of buffers is needed.

Copies are of chunks, some positions of one head (export/cache_graphs.py), and a capacity is a whole number of chunks.
So what a row's move or a source's arrival costs follows its length, not the room it has: with chunks of 32 positions, a
row of 40 positions is 2 chunks of each head, whatever the capacity.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.errors import BundleError
from service.runtime.bundle import Shape
from service.runtime.device_memory import Device, Dtype, Part
from service.runtime.device_turns import TURNS

# Moved at a time: what bounds the memory that a move needs, 128 MiB of float16 numbers. Warmed up with the rest.
MAX_MOVED_NUMBERS = 1 << 26
Places = NDArray[np.int64]


class DeviceSources:
    """What the encoder made of B sources: keys and values (B, H, S, D) of every layer, in the device's memory."""

    def __init__(self, arrays: Sequence[ort.OrtValue]) -> None:
        self.arrays = arrays
        self.num_sources, _, self.length, _ = arrays[0].shape()


def chunk_size(store: ort.InferenceSession, head_width: int) -> int:
    """Positions of a chunk, as the graphs of a bundle have it. Raises BundleError where they know of none."""
    block = next(value.shape for value in store.get_inputs() if value.name == "block")
    if len(block) != 2:
        raise BundleError("the graphs for CUDA are of an older form: make them again (dragoman derive-cuda or export)")
    return int(block[1]) // head_width


def up_to(positions: int, chunk: int) -> int:
    """The capacity that holds ``positions``: a whole number of chunks."""
    return -(-positions // chunk) * chunk


def chunk_places(items: NDArray[Any], lengths: NDArray[Any], chunk: int, chunks_each: int) -> Places:
    """The chunks that hold ``lengths`` (m,) positions of ``items`` (m,), in an array whose items have ``chunks_each``.

    chunk_places([3, 0], [40, 5], 32, 4) is [12, 13, 0].
    """
    counts = -(-lengths // chunk)
    firsts = np.cumsum(counts) - counts  # where each item's chunks begin in the result
    return np.repeat(items * chunks_each - firsts, counts) + np.arange(counts.sum())


class Block:
    """All layers' keys and values of one kind: ``num_arrays`` arrays of ``num_items`` rows or sentences.

    Attributes:
        heads: H. capacity: positions of an item, a whole number of chunks. chunk_numbers: numbers in a chunk.
    """

    def __init__(
        self,
        device: Device,
        move: ort.InferenceSession,
        shape: tuple[int, ...],
        num_arrays: int,
        chunk: int,
        dtype: Dtype,
    ) -> None:
        """shape: (num_arrays * num_items, H, capacity, D)."""
        self.device, self.shape, self.dtype, self.chunk = device, shape, dtype, chunk
        self.memory = device.reserve(int(np.prod(shape)) * np.dtype(dtype).itemsize)
        self.part = Part(device, self.memory.address, shape, dtype)
        _, self.heads, self.capacity, head_width = shape
        self.num_arrays, self.num_items = num_arrays, shape[0] // num_arrays
        self.chunk_numbers = chunk * head_width
        starts = self.first_chunks(self.num_items, self.capacity)
        self.starts = ort.OrtValue.ortvalue_from_numpy(starts, device.kind, device.number)
        self.move, self.moving = move, self.bound(move)

    def first_chunks(self, num_items: int, capacity: int) -> Places:
        """(2 L * H, 1): the first chunk of each head of each array, in arrays of ``num_items`` of that capacity."""
        chunks = capacity // self.chunk
        arrays = np.arange(self.num_arrays, dtype=np.int64)[:, None] * (num_items * self.heads * chunks)
        return (arrays + np.arange(self.heads, dtype=np.int64) * chunks).reshape(-1, 1)

    def places(self, items: NDArray[Any], lengths: NDArray[Any]) -> Places:
        """Of the positions in use of ``items``, in the first head of the first array."""
        return chunk_places(items, lengths, self.chunk, self.heads * self.capacity // self.chunk)

    def bound(self, session: ort.InferenceSession) -> ort.IOBinding:
        """A binding of a session that changes the block where it is."""
        binding = session.io_binding()
        chunks = self.part.at(0, (int(np.prod(self.shape)) // self.chunk_numbers, self.chunk_numbers), self.dtype)
        chunks.bind_input(binding, "block")
        width = session.get_outputs()[0].shape[1]  # bundles made before pieces were known write whole chunks
        self.part.at(0, (int(np.prod(self.shape)) // width, width), self.dtype).bind_output(binding, "result")
        binding.bind_ortvalue_input("starts", self.starts)
        return binding

    def copy(self, sources: Places, targets: Places) -> None:
        """Chunks ``sources`` of every head and array also to ``targets``; no place may be both."""
        at_once = max(1, MAX_MOVED_NUMBERS // (self.num_arrays * self.heads * self.chunk_numbers))
        for first in range(0, len(sources), at_once):
            chosen = slice(first, first + at_once)
            with TURNS.together():
                self.moving.bind_cpu_input("sources", np.ascontiguousarray(sources[chosen]))
                self.moving.bind_cpu_input("targets", np.ascontiguousarray(targets[chosen]))
                self.move.run_with_iobinding(self.moving)

    def release(self) -> None:
        """Gives the memory back; nothing can be done with the block any more."""
        del self.moving, self.move, self.starts
        self.memory.release()


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
        self.chunk = chunk_size(store, width)
        self.target_capacity = up_to(self.max_target_tokens, self.chunk)
        self.source_capacity = up_to(self.max_source_tokens, self.chunk)
        self.blocks = {
            kind: Block(device, move, (places, heads, capacity, width), self.num_arrays, self.chunk, dtype)
            for kind, capacity in (("self", self.target_capacity), ("cross", self.source_capacity))
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
        block, lengths = self.blocks["self"], self.lengths[sources]
        block.copy(block.places(sources, lengths), block.places(targets, lengths))
        self.lengths[targets] = lengths

    def move_sentence(self, source: int, target: int) -> None:
        block, lengths = self.blocks["cross"], self.source_lengths_less_1[[source]] + 1
        block.copy(*(block.places(np.array([place]), lengths) for place in (source, target)))
        self.source_lengths_less_1[target] = self.source_lengths_less_1[source]

    def write_sources(
        self,
        sentences: NDArray[np.intp],
        encoded: DeviceSources,
        chosen: NDArray[np.intp],
        lengths: NDArray[np.int64],
    ) -> None:
        block, padded = self.blocks["cross"], up_to(encoded.length, self.chunk)
        for name, array in zip(self.names, encoded.arrays, strict=True):
            self.storing.bind_ortvalue_input(f"cross_{name}", array)
        chunks_each = block.heads * padded // self.chunk
        with TURNS.together():
            self.storing.bind_cpu_input("pads", np.array([0, 0, 0, 0, 0, 0, padded - encoded.length, 0], np.int64))
            self.storing.bind_cpu_input("source_starts", block.first_chunks(encoded.num_sources, padded))
            self.storing.bind_cpu_input("sources", chunk_places(chosen, lengths, self.chunk, chunks_each))
            self.storing.bind_cpu_input("targets", block.places(sentences, lengths))
            self.store.run_with_iobinding(self.storing)
        self.source_lengths_less_1[sentences] = lengths - 1

    def release(self) -> None:
        """Gives the memory back; nothing can be done with the cache any more."""
        del self.storing, self.store
        for block in self.blocks.values():
            block.release()
