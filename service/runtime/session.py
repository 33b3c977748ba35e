"""ONNX Runtime sessions: how graphs are loaded and run.

Knows: ONNX Runtime, the graphs' inputs and outputs. Does not know: what rows are searched for, queues.
Dimension key: model/transformer.py; R rows and N sentences of a step (export/graphs.py).
"""

import ctypes
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.errors import BundleError
from service.runtime import kernels
from service.runtime.bundle import Bundle, Shape
from service.runtime.cpus import saturates_int8
from service.runtime.kv_cache import EncodedSources, KVCache

CPU = ("cpu", 0)
MAX_SHAPES = 256
# How long a session's second and further threads stay awake after their work: a step has some hundred operators, and to
# wake a thread for each takes longer than most of these. Idle sessions sleep.
SPIN_US = 50
# One worker alone is faster with the threads of the others (decision log), for sentences of up to so many beams: each
# graph holds its own copy of the weights. Two threads share the work of a model with less than so many bytes of them.
WIDE_BEAMS = 4
SMALL_BYTES, SMALL_THREADS = 24 << 20, 2
CACHE_TYPES: dict[str, type[np.generic]] = {"tensor(float)": np.float32, "tensor(int8)": np.int8}


def address(array: NDArray[Any]) -> int:
    """Where a contiguous array's numbers are: a third of the time that its own ways of telling take.

    Raises:
        BufferError, ValueError, TypeError: it has gaps, or may not be written to.
    """
    return ctypes.addressof(ctypes.c_char.from_buffer(array)) if array.size else 0  # type: ignore[arg-type]


def load_session(path: Path, num_threads: int) -> ort.InferenceSession:
    """A session on the CPU provider.

    Raises:
        BundleError: ONNX Runtime cannot load the graph.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if num_threads > 1 else "0")
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_US))
    if saturates_int8():
        # The exact product of 8-bit numbers instead of the one that saturates; elsewhere it takes twice the time.
        options.add_session_config_entry("session.x64quantprecision", "1")
    if (library := kernels.library()) is not None:
        options.register_custom_ops_library(str(library))
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises a dozen unrelated types
        raise BundleError(f"{path} cannot be loaded: {error}") from error


def check_names(session: ort.InferenceSession, path: Path, inputs: set[str], outputs: set[str]) -> None:
    has_inputs = {value.name for value in session.get_inputs()}
    has_outputs = {value.name for value in session.get_outputs()}
    if has_inputs != inputs or not outputs <= has_outputs:
        raise BundleError(f"{path} is not the graph that the manifest says: it takes {sorted(has_inputs)}")


class EncoderSession:
    """Source token ids to the decoder's cross-attention keys and values."""

    def __init__(self, path: Path, shape: Shape, num_threads: int, num_wide_threads: int = 0) -> None:
        self.session = load_session(path, num_threads)
        self.wide = load_session(path, num_wide_threads) if num_wide_threads else self.session
        self.num_layers = shape.num_decoder_layers
        self.names = [f"cross_{part}_{i}" for part in ("key", "value") for i in range(self.num_layers)]
        check_names(self.session, path, {"source", "source_lengths"}, set(self.names))

    def run(self, source: NDArray[np.int64], lengths: NDArray[np.int64], is_alone: bool = False) -> EncodedSources:
        """source (B, S), padded with any valid id; lengths (B,); is_alone: as backend.py says."""
        session = self.wide if is_alone else self.session
        results = session.run(self.names, {"source": source, "source_lengths": lengths})
        return EncodedSources(results[: self.num_layers], results[self.num_layers :])


class StepInputs(NamedTuple):
    """What a decoder step reads besides the cache; see export/graphs.py.

    tokens (R,), query_rows (N * K,), row_queries (R,) int64; num_candidates: per row.
    """

    tokens: NDArray[np.int64]
    query_rows: NDArray[np.int64]
    row_queries: NDArray[np.int64]
    num_candidates: int


class Candidates(NamedTuple):
    """The best continuations of each row, best first: ids (R, C) int64, log_probabilities (R, C) float32."""

    ids: NDArray[np.int64]
    log_probabilities: NDArray[np.float32]


class DecoderSession:
    """One decoder step for all rows, for sentences of up to ``num_beams`` beams.

    The session can be shared by threads; a StepBinding cannot.
    """

    def __init__(self, path: Path, shape: Shape, num_beams: int, num_threads: int) -> None:
        self.session = load_session(path, num_threads)
        self.shape, self.num_beams = shape, num_beams
        cache = [
            f"{kind}_{part}_{i}"
            for kind in ("self", "cross")
            for part in ("key", "value")
            for i in range(shape.num_decoder_layers)
        ]
        plain = {"tokens", "lengths", "source_lengths_less_1", "query_rows", "row_queries", "num_candidates"}
        capacities = {"self_capacity", "cross_capacity", "no_keys"}
        outputs = {"candidate_ids", "candidate_log_probabilities", *(f"present_{name}" for name in cache)}
        check_names(self.session, path, plain | capacities | set(cache), outputs)
        kinds = {value.type for value in self.session.get_inputs() if value.name in cache}
        if len(kinds) > 1 or not kinds <= CACHE_TYPES.keys():
            raise BundleError(f"{path} keeps keys and values in {sorted(kinds)}; known are {sorted(CACHE_TYPES)}")
        self.cache_dtype = CACHE_TYPES[kinds.pop()]


class BoundShape:
    """A decoder step of one number of rows, sentences and candidates, with everything bound to its memory."""

    def __init__(self, decoder: DecoderSession, cache: KVCache, num_rows: int, num_sentences: int, wanted: int) -> None:
        self.decoder = decoder
        self.binding = decoder.session.io_binding()
        self.num_candidates = np.array([wanted], np.int64)
        self.capacities = np.array([cache.target_capacity, cache.source_capacity], np.int32)
        # An input that is never read still needs an address.
        self.no_keys = np.zeros(1, np.float32)
        self.bind("num_candidates", self.num_candidates, (1,))
        self.bind("self_capacity", self.capacities[:1], ())
        self.bind("cross_capacity", self.capacities[1:], ())
        self.bind("no_keys", self.no_keys, (num_sentences, 0, decoder.shape.model_width))
        self.bind("lengths", cache.lengths, (num_rows,))
        self.bind("source_lengths_less_1", cache.source_lengths_less_1, (num_sentences,))
        self.tokens, self.row_queries = np.empty(num_rows, np.int64), np.empty(num_rows, np.int64)
        self.query_rows = np.empty(num_sentences * decoder.num_beams, np.int64)
        self.laid_out: NDArray[np.int64] | None = None
        self.memory: Any = None  # what unchanged_steps.py keeps of it
        for name in ("tokens", "row_queries", "query_rows"):
            array: NDArray[np.int64] = getattr(self, name)
            self.bind(name, array, array.shape)
        for name, buffer in cache.buffers.items():
            count = num_rows if name.startswith("self") else num_sentences
            self.bind(name, buffer, (count, *buffer.shape[1:]))
            self.bind_output(f"present_{name}", buffer, (count, *buffer.shape[1:]))
        ids, log_probabilities = np.zeros((num_rows, wanted), np.int64), np.zeros((num_rows, wanted), np.float32)
        self.bind_output("candidate_ids", ids, ids.shape)
        self.bind_output("candidate_log_probabilities", log_probabilities, log_probabilities.shape)
        self.candidates = Candidates(ids, log_probabilities)

    def bind(self, name: str, array: NDArray[np.generic], shape: tuple[int, ...]) -> None:
        self.binding.bind_input(name, *CPU, array.dtype.type, shape, address(array))

    def bind_output(self, name: str, array: NDArray[np.generic], shape: tuple[int, ...]) -> None:
        self.binding.bind_output(name, *CPU, array.dtype.type, shape, address(array))

    def take(self, inputs: StepInputs) -> None:
        """Makes ``inputs`` those of the next step."""
        self.tokens[:] = inputs.tokens
        if inputs.query_rows is not self.laid_out:  # the layout of the step before, as mostly
            self.laid_out = inputs.query_rows
            self.query_rows[:] = inputs.query_rows
            self.row_queries[:] = inputs.row_queries

    def run(self) -> Candidates:
        """A step of what the bound arrays hold. The result is overwritten by the next step."""
        self.decoder.session.run_with_iobinding(self.binding)
        return self.candidates


class StepBinding:
    """Runs decoder steps of one worker on its cache, binding memory by address: the cache is not copied.

    Binding takes as long as a step of one row. With sentences that come and go, the same numbers of rows and capacities
    come again and again: the last ``MAX_SHAPES`` stay bound.
    """

    bucket, was_replayed = 0, False  # the CPU computes the rows there are

    def __init__(self, decoder: DecoderSession, cache: KVCache, wide: DecoderSession | None = None) -> None:
        """wide: the same graph with more threads, for a worker that is alone."""
        self.decoder, self.wide, self.cache = decoder, wide or decoder, cache
        self.shapes: dict[tuple[DecoderSession, int, int, int, int, int], BoundShape] = {}
        self.generation = cache.generation

    def bound(self, decoder: DecoderSession, num_rows: int, num_sentences: int, num_candidates: int) -> BoundShape:
        cache = self.cache
        numbers = (decoder, num_rows, num_sentences, num_candidates, cache.target_capacity, cache.source_capacity)
        if self.generation != cache.generation:
            self.generation = cache.generation
            self.shapes.clear()
        if (shape := self.shapes.get(numbers)) is None:
            if len(self.shapes) >= MAX_SHAPES:
                del self.shapes[next(iter(self.shapes))]
            shape = self.shapes[numbers] = BoundShape(decoder, cache, num_rows, num_sentences, num_candidates)
        return shape

    def run(self, inputs: StepInputs, num_sentences: int, is_alone: bool = False) -> Candidates:
        """One step for rows 0 to R-1 of the cache. The result is overwritten by the next step.

        The step writes position ``lengths[r]`` of each row and changes no length: running it again gives the same.
        """
        return self.prepared(inputs, num_sentences, is_alone).run()

    def prepared(self, inputs: StepInputs, num_sentences: int, is_alone: bool) -> BoundShape:
        """The shape whose run() is this step."""
        decoder = self.wide if is_alone else self.decoder
        shape = self.bound(decoder, len(inputs.tokens), num_sentences, inputs.num_candidates)
        shape.take(inputs)
        return shape


class Sessions:
    """All graphs of one precision of a bundle, loaded once and shared by the workers.

    Args:
        num_wide_threads: threads, at most, of a second set of sessions, for a worker that is alone: its answers are the
            same, bit for bit, and come sooner. 0: none.
    """

    def __init__(self, bundle: Bundle, precision: str, num_threads: int, num_wide_threads: int = 0) -> None:
        graphs, shape = bundle.graphs(precision), bundle.manifest.shape
        self.shape = shape
        self.device_bytes = (0, 0)
        is_small = bundle.path(graphs.weights).stat().st_size < SMALL_BYTES
        wide = min(num_wide_threads, SMALL_THREADS) if is_small else num_wide_threads
        wide = wide if wide > num_threads else 0
        self.encoder = EncoderSession(bundle.path(graphs.encoder), shape, num_threads, wide)
        paths = {beams: bundle.path(path) for beams, path in sorted(graphs.decoder.items())}
        self.decoders = {beams: DecoderSession(path, shape, beams, num_threads) for beams, path in paths.items()}
        self.wide_decoders = {
            beams: DecoderSession(path, shape, beams, wide)
            for beams, path in paths.items()
            if wide and beams <= WIDE_BEAMS
        }

    def decoder_for(self, num_beams: int) -> DecoderSession:
        """The narrowest decoder that takes sentences of ``num_beams`` beams."""
        for beams, decoder in self.decoders.items():
            if beams >= num_beams:
                return decoder
        raise RuntimeError(f"no decoder graph for {num_beams} beams was loaded. This is a bug.")

    def make_cache(self, max_rows: int, max_source_tokens: int, max_target_tokens: int) -> KVCache:
        """A cache for one worker; there may be as many sentences as rows."""
        dtype = next(iter(self.decoders.values())).cache_dtype
        return KVCache(self.shape, max_rows, max_rows, max_source_tokens, max_target_tokens, dtype)

    def bind_step(self, decoder: DecoderSession, cache: KVCache) -> StepBinding:
        return StepBinding(decoder, cache, self.wide_decoders.get(decoder.num_beams))

    def warm_up(self, cache: KVCache) -> None:
        """Nothing to do: memory is taken as it is needed, up to a limit that is known."""

    def close(self, has_failed: bool) -> None:
        """Nothing to do: it goes with the last reference."""
