"""Runs a bundle's graphs on a device: what crosses the bus is token ids, lengths and the best candidates.

Knows: the graphs' inputs and outputs, buckets, recorded steps. Does not know: what rows are searched for, queues.

A step is padded to one of a few numbers of rows, its bucket, with as many places for sentences as for rows; a place
nobody needs attends to one position and costs next to nothing. So there is one recorded step (CUDA graph) for each
bucket of a decoder. ONNX Runtime runs a step more than once while it records it: steps change nothing that they read.
"""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.runtime import gpu
from service.runtime.bundle import Bundle, Shape
from service.runtime.device_cache import DeviceCache, DeviceSources, chunk_size, up_to
from service.runtime.device_memory import Device, Dtype, Inbox, Part
from service.runtime.device_turns import TURNS
from service.runtime.memory_plan import MemoryPlan, bucket_of, buckets, plan_memory
from service.runtime.session import Candidates, StepInputs

# Tokens of the encoder run that warms up: the most that the engine gives it at a time (service/engine/worker.py).
WARM_UP_TOKENS = 1024
EAGER = -1


class DeviceEncoder:
    """Source token ids to the decoder's cross-attention keys and values, left on the device."""

    def __init__(self, path: Path, shape: Shape, device: Device) -> None:
        self.session, self.device = device.load(path), device
        self.names = [f"cross_{part}_{i}" for i in range(shape.num_decoder_layers) for part in ("key", "value")]

    def run(self, source: NDArray[np.int64], lengths: NDArray[np.int64], is_alone: bool = False) -> DeviceSources:
        """source (B, S), padded with any valid id; lengths (B,)."""
        with TURNS.together():
            binding = self.session.io_binding()
            binding.bind_cpu_input("source", source)
            binding.bind_cpu_input("source_lengths", lengths)
            for name in self.names:
                binding.bind_output(name, self.device.kind, self.device.number)
            self.session.run_with_iobinding(binding)
            return DeviceSources(binding.get_outputs())


class DeviceDecoder:
    """One decoder step graph, for sentences of up to ``num_beams`` beams.

    Args:
        num_banned: tokens that the model may never say; as many candidates more are asked for.
    """

    def __init__(self, path: Path, shape: Shape, num_beams: int, device: Device, num_banned: int = 0) -> None:
        self.session = device.load(path, records=True)
        self.shape, self.num_beams, self.num_banned = shape, num_beams, num_banned

    @property
    def usual_candidates(self) -> int:
        """Candidates of a row where no penalty needs more; only steps with so many are recorded."""
        return min(2 * self.num_beams + self.num_banned, self.shape.vocab_size)

    def candidates_for(self, wanted: int) -> int:
        """So that there are few different numbers of them, and few outputs in the device's memory."""
        doubled = self.usual_candidates
        while doubled < wanted:
            doubled *= 2
        return min(doubled, self.shape.vocab_size)


class Bucket:
    """Steps of a fixed number of rows and candidates: memory that stays where it is, bound once."""

    def __init__(self, decoder: DeviceDecoder, cache: DeviceCache, num_rows: int, num_candidates: int) -> None:
        device, width = cache.device, decoder.num_beams
        self.num_rows = num_rows
        self.binding = decoder.session.io_binding()
        many = (num_rows,)
        self.inbox = Inbox(
            device,
            {
                "tokens": (many, np.int64),
                "lengths": (many, np.int32),
                "source_lengths_less_1": (many, np.int32),
                "query_rows": ((num_rows * width,), np.int64),
                "row_queries": (many, np.int64),
            },
        )
        for name, part in self.inbox.parts.items():
            part.bind_input(self.binding, name)
        self.bind_cache(cache)
        self.bind_numbers(cache, num_candidates)
        self.no_keys = device.empty((1,), cache.dtype)  # an input that is never read still needs an address
        no_keys = (num_rows, 0, decoder.shape.model_width)
        Part.of(device, self.no_keys, cache.dtype).at(0, no_keys, cache.dtype).bind_input(self.binding, "no_keys")
        self.ids = device.empty((num_rows, num_candidates), np.int64)
        self.log_probabilities = device.empty((num_rows, num_candidates), np.float32)
        self.binding.bind_ortvalue_output("candidate_ids", self.ids)
        self.binding.bind_ortvalue_output("candidate_log_probabilities", self.log_probabilities)

    def bind_cache(self, cache: DeviceCache) -> None:
        for kind in cache.blocks:
            for index, name in enumerate(cache.names):
                part = cache.part(kind, index, self.num_rows)
                part.bind_input(self.binding, f"{kind}_{name}")
                part.bind_output(self.binding, f"present_{kind}_{name}")

    def bind_numbers(self, cache: DeviceCache, num_candidates: int) -> None:
        """What operators read on the host; it stays the same, or a recorded step would be another."""
        host = Device("cpu")
        self.numbers = np.array([num_candidates], np.int64)
        self.capacities = np.array([cache.target_capacity, cache.source_capacity], np.int32)
        Part(host, self.numbers.ctypes.data, (1,), np.int64).bind_input(self.binding, "num_candidates")
        for name, capacity in (("self_capacity", self.capacities[:1]), ("cross_capacity", self.capacities[1:])):
            Part(host, capacity.ctypes.data, (), np.int32).bind_input(self.binding, name)

    def fill(self, cache: DeviceCache, inputs: StepInputs, num_sentences: int) -> None:
        """Rows and sentences that nobody needs are token 0 at position 0, attending to one position."""
        arrays = self.inbox.arrays
        given: dict[str, NDArray[Any]] = {
            "tokens": inputs.tokens,
            "lengths": cache.lengths[: len(inputs.tokens)],
            "source_lengths_less_1": cache.source_lengths_less_1[:num_sentences],
            "query_rows": inputs.query_rows,
            "row_queries": inputs.row_queries,
        }
        for name, values in given.items():
            arrays[name][: len(values)] = values
            arrays[name][len(values) :] = 0
        self.inbox.send()


class DeviceStep:
    """See service/runtime/backend.py: Step."""

    def __init__(self, decoder: DeviceDecoder, cache: DeviceCache) -> None:
        self.decoder, self.cache = decoder, cache
        self.sizes = buckets(cache.max_rows)
        self.buckets: dict[tuple[int, int], Bucket] = {}
        self.recorded: set[int] = set()
        self.bucket, self.was_replayed = 0, False

    def run(self, inputs: StepInputs, num_sentences: int, is_alone: bool = False) -> Candidates:
        num_rows = len(inputs.tokens)
        self.bucket = bucket_of(num_rows, self.sizes)
        num_candidates = self.decoder.candidates_for(inputs.num_candidates)
        key = (self.bucket, num_candidates)
        number = self.graph_number(num_candidates)
        self.was_replayed = number in self.recorded
        is_recording = number != EAGER and not self.was_replayed
        with TURNS.alone() if is_recording else TURNS.together():
            if key not in self.buckets:
                self.buckets[key] = Bucket(self.decoder, self.cache, *key)
            bucket = self.buckets[key]
            bucket.fill(self.cache, inputs, num_sentences)
            options = ort.RunOptions()
            options.add_run_config_entry("gpu_graph_id", str(number))
            self.decoder.session.run_with_iobinding(bucket.binding, options)
            found = Candidates(bucket.ids.numpy()[:num_rows], bucket.log_probabilities.numpy()[:num_rows])
        if is_recording:
            self.recorded.add(number)
        return found

    def graph_number(self, num_candidates: int) -> int:
        """Which recorded step this is, or EAGER; the first run with a number records it."""
        can_record = self.cache.device.records and num_candidates == self.decoder.usual_candidates
        return self.sizes.index(self.bucket) + 1 if can_record else EAGER


class DeviceSessions:
    """See service/runtime/backend.py: Backend."""

    def __init__(self, bundle: Bundle, precision: str, device: Device, memory_share: float = 1.0) -> None:
        """memory_share: how much of the device's free memory may be used, 0 to 1."""
        graphs, shape = bundle.graphs(precision), bundle.manifest.shape
        self.shape, self.device, self.memory_share = shape, device, memory_share
        num_banned = len(bundle.manifest.decoding.banned)
        with TURNS.together():
            self.free_at_first = gpu.free_bytes() if device.kind == "cuda" else 0
            self.encoder = DeviceEncoder(bundle.path(graphs.encoder), shape, device)
            self.decoders = {
                beams: DeviceDecoder(bundle.path(path), shape, beams, device, num_banned)
                for beams, path in sorted(graphs.decoder.items())
            }
            self.move, self.store = device.load(bundle.path(graphs.move)), device.load(bundle.path(graphs.store))
        is_half = self.move.get_inputs()[0].type == "tensor(float16)"
        self.dtype: Dtype = np.float16 if is_half else np.float32
        self.plan: MemoryPlan | None = None
        self.device_bytes = (0, 0)
        self.steps: dict[int, DeviceStep] = {}
        self.caches: list[DeviceCache] = []

    def decoder_for(self, num_beams: int) -> DeviceDecoder:
        for beams, decoder in self.decoders.items():
            if beams >= num_beams:
                return decoder
        raise RuntimeError(f"no decoder graph for {num_beams} beams was loaded. This is a bug.")

    def make_cache(self, max_rows: int, max_source_tokens: int, max_target_tokens: int) -> DeviceCache:
        """Raises ConfigurationError where the device's memory does not hold a sentence of the widest beam."""
        limits = (max_rows, max_source_tokens, max_target_tokens)
        if self.device.kind == "cuda":
            free = int(gpu.free_bytes() * self.memory_share)
            least = min(max_rows, max(self.decoders))
            chunk = chunk_size(self.store, self.shape.head_width)
            capacities = (up_to(max_source_tokens, chunk), up_to(max_target_tokens, chunk))
            self.plan = plan_memory(free, self.shape, np.dtype(self.dtype).itemsize, max_rows, *capacities, least)
            limits = (self.plan.max_rows, *limits[1:])
        with TURNS.together():
            self.caches.append(DeviceCache(self.shape, self.dtype, self.device, self.move, self.store, limits))
        return self.caches[-1]

    def bind_step(self, decoder: DeviceDecoder, cache: DeviceCache) -> DeviceStep:
        if decoder.num_beams not in self.steps:
            self.steps[decoder.num_beams] = DeviceStep(decoder, cache)
        return self.steps[decoder.num_beams]

    def warm_up(self, cache: DeviceCache) -> None:
        """Runs the largest encoder batches, the largest move and every bucket of every decoder, and records these."""
        longest = cache.max_source_tokens
        for length in (longest, 1):
            count = max(1, min(cache.max_rows, WARM_UP_TOKENS // length))
            lengths = np.full(count, length, np.int64)
            sources = self.encoder.run(np.zeros((count, length), np.int64), lengths)
            cache.write_sources(np.arange(count), sources, np.arange(count), lengths)
        cache.lengths[:] = cache.max_target_tokens
        half = cache.max_rows // 2
        cache.copy_rows(np.arange(half), np.arange(half, 2 * half))
        cache.lengths[:] = 0
        for decoder in self.decoders.values():
            step = self.bind_step(decoder, cache)
            for num_rows in reversed(step.sizes):
                rows = np.zeros(num_rows, np.int64)
                queries = np.zeros(num_rows * decoder.num_beams, np.int64)
                step.run(StepInputs(rows, queries, rows, decoder.usual_candidates), num_rows)
        if self.plan is not None:
            self.device_bytes = (self.plan.planned_bytes, self.free_at_first - gpu.free_bytes())

    def close(self, has_failed: bool) -> None:
        """Gives everything back, whoever still holds these objects: what a replaced model had is its successor's."""
        if has_failed:
            for session in (self.encoder.session, self.move, self.store, *(d.session for d in self.decoders.values())):
                never_destroy(session)
        with TURNS.together():
            for step in self.steps.values():
                step.buckets.clear()
            for cache in self.caches:
                cache.release()
            self.caches.clear()
            for decoder in self.decoders.values():
                del decoder.session
            del self.encoder.session, self.move, self.store


def never_destroy(session: ort.InferenceSession) -> None:
    """After a device error ONNX Runtime's destructors raise, where C++ may end the process."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))
