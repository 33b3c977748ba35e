"""Runs the exported graphs the slow and obvious way, to check them: one sentence, its cache copied at every step.

Knows: the graphs' inputs and outputs (export/graphs.py). Shares nothing with service/runtime, so that a mistake there
cannot hide one here.
"""

from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.runtime import kernels
from service.runtime.bundle import Graphs, Shape

Array = NDArray[np.generic]
Cache = dict[str, Array]
CACHE_TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int8)": np.int8,
}


def load(path: Path, with_kernels: bool) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.x64quantprecision", "1")
    if with_kernels and (library := kernels.library()) is not None:
        options.register_custom_ops_library(str(library))
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def runs_with_kernels(precision: str) -> tuple[bool, ...]:
    """How graphs of ``precision`` may be run by services, as far as this machine can: without the kernels, and with."""
    return (False, True) if precision.startswith("cpu") and kernels.library() else (False,)


class GraphRunner:
    """The graphs of one precision.

    At most two are loaded at a time: each has the weights in a form of its own, and eight of them would need more
    memory than everything else in an export together.

    Args:
        with_kernels: as machines run them that have service/runtime/kernels' library; else as those that have not.
    """

    def __init__(self, root: Path, graphs: Graphs, shape: Shape, start: int, with_kernels: bool = False) -> None:
        self.shape, self.start = shape, start
        self.root, self.graphs = root, graphs
        self.load = lru_cache(maxsize=2)(partial(load, with_kernels=with_kernels))
        kind = self.encoder.get_outputs()[0].type
        self.cache_dtype = CACHE_TYPES[kind]
        self.dtype: type[np.floating[Any]] = np.float16 if self.cache_dtype is np.float16 else np.float32  # of states

    @property
    def encoder(self) -> ort.InferenceSession:
        return self.load(self.root / self.graphs.encoder)

    def decoder(self, beams: int) -> ort.InferenceSession:
        return self.load(self.root / self.graphs.decoder[beams])

    @property
    def score_session(self) -> ort.InferenceSession:
        return self.load(self.root / self.graphs.score)

    def encode(self, sources: Sequence[Sequence[int]], capacity: int = 0) -> tuple[Cache, NDArray[np.int64]]:
        """Cross-attention keys and values (B, H, S, D) by name, and the lengths; ``capacity`` pads S further."""
        lengths = np.array([len(ids) for ids in sources], np.int64)
        source = np.zeros((len(sources), max(capacity, int(lengths.max()))), np.int64)
        for row, ids in enumerate(sources):
            source[row, : len(ids)] = ids
        encoder = self.encoder
        names = [output.name for output in encoder.get_outputs()]
        results = encoder.run(names, {"source": source, "source_lengths": lengths})
        return dict(zip(names, results, strict=True)), lengths

    def empty(self, rows: int, capacity: int) -> Cache:
        shape = (rows, self.shape.num_heads, capacity, self.shape.head_width)
        layers = range(self.shape.num_decoder_layers)
        return {f"self_{part}_{i}": np.zeros(shape, self.cache_dtype) for part in ("key", "value") for i in layers}

    def step(
        self,
        beams: int,
        tokens: Array,
        lengths: Array,
        cache: Cache,
        cross: Cache,
        source_lengths: Array,
        rows_per_sentence: int,
        num_candidates: int,
    ) -> tuple[Array, Array, Cache]:
        """One decoder step: candidate ids and log-probabilities (R, C), and the new cache.

        Rows are in order of sentence, ``rows_per_sentence`` (at most ``beams``) of them each.
        """
        num_sentences = len(source_lengths)
        place = np.arange(num_sentences)[:, None]
        rows = np.arange(rows_per_sentence)
        query_rows = place * rows_per_sentence + np.minimum(np.arange(beams), rows_per_sentence - 1)
        feeds: dict[str, Array] = {
            "tokens": np.asarray(tokens, np.int64),
            "lengths": np.asarray(lengths, np.int32),
            "source_lengths_less_1": np.asarray(source_lengths, np.int32) - np.int32(1),
            "query_rows": query_rows.reshape(-1).astype(np.int64),
            "row_queries": (place * beams + rows).reshape(-1).astype(np.int64),
            "num_candidates": np.array([num_candidates], np.int64),
            "self_capacity": np.array(cache["self_key_0"].shape[2], np.int32),
            "cross_capacity": np.array(cross["cross_key_0"].shape[2], np.int32),
            "no_keys": np.zeros((num_sentences, 0, self.shape.model_width), self.dtype),
            **cache,
            **cross,
        }
        session = self.decoder(beams)
        names = [output.name for output in session.get_outputs()]
        results = dict(zip(names, session.run(names, feeds), strict=True))
        new_cache = {name: results[f"present_{name}"] for name in cache}
        return results["candidate_ids"], results["candidate_log_probabilities"], new_cache

    def extend_with(self, source: Sequence[int], capacity: int) -> "CachedExtend":
        """What reference_decode's searches need, by the ONNX graphs."""
        return CachedExtend(self, source, capacity)

    def score(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> tuple[Array, Array]:
        """log_probabilities (B, T) and alignment (B, T, S); ``targets`` have their end token."""
        lengths = np.array([len(ids) for ids in sources], np.int64)
        source = np.zeros((len(sources), int(lengths.max())), np.int64)
        target_in = np.zeros((len(sources), max(map(len, targets))), np.int64)
        target_out = np.zeros_like(target_in)
        for row, (ids, wanted) in enumerate(zip(sources, targets, strict=True)):
            source[row, : len(ids)] = ids
            target_in[row, : len(wanted)] = [self.start, *wanted[:-1]]
            target_out[row, : len(wanted)] = wanted
        feeds = {"source": source, "source_lengths": lengths, "target_in": target_in, "target_out": target_out}
        log_probabilities, alignment = self.score_session.run(["log_probabilities", "alignment"], feeds)
        return log_probabilities, alignment


class CachedExtend:
    """Next tokens of one sentence by the decoder step graph; remembers the cache of every prefix it has seen."""

    def __init__(self, runner: GraphRunner, source: Sequence[int], capacity: int) -> None:
        self.runner, self.capacity = runner, capacity
        self.cross, self.lengths = runner.encode([source])
        self.caches: dict[tuple[int, ...], Cache] = {}

    def __call__(self, ids: list[int], count: int) -> tuple[Tensor, Tensor]:
        token = ids[-1] if ids else self.runner.start
        past = self.caches[tuple(ids[:-1])] if ids else self.runner.empty(1, self.capacity)
        candidates, values, cache = self.runner.step(
            1, np.array([token]), np.array([len(ids)]), past, self.cross, self.lengths, 1, count
        )
        self.caches[tuple(ids)] = cache
        return torch.from_numpy(values[0]), torch.from_numpy(candidates[0])
