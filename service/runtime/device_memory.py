"""Arrays in a device's memory, and sessions that work on them there.

Knows: ONNX Runtime's devices. Does not know: graphs, caches. ``Device("cpu")`` does everything that ``Device("cuda")``
does in the host's memory: tests run the same code without a GPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.errors import BundleError, ConfigurationError
from service.runtime import gpu
from service.runtime.gpu import PROVIDER

ERRORS = 3
Dtype = type[np.floating[Any]] | type[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class Device:
    """Where sessions run.

    Attributes:
        kind: ``cuda``, or ``cpu`` for tests. number: which of several.
        records: whether steps of the same shape are recorded once and replayed (CUDA graphs); nothing to the CPU.
    """

    kind: str
    number: int = 0
    records: bool = False

    def empty(self, shape: Sequence[int], dtype: Dtype) -> ort.OrtValue:
        """An array whose numbers are whatever was in that memory."""
        return ort.OrtValue.ortvalue_from_shape_and_type(shape, dtype, self.kind, self.number)

    def reserve(self, num_bytes: int) -> "Reserved":
        """A large piece of memory, of exactly that size. Raises ConfigurationError where there is not so much."""
        return Reserved(self, num_bytes)

    def load(self, path: Path, records: bool = False) -> ort.InferenceSession:
        """A session of which every operator runs here.

        Args:
            records: its runs are recorded where the device records any.

        Raises:
            BundleError: ONNX Runtime cannot load the graph. ConfigurationError: it would not run on this device.
        """
        ort.set_default_logger_severity(ERRORS)  # it warns at every CUDA session of what is nobody's fault
        options = ort.SessionOptions()
        options.log_severity_level = ERRORS
        options.inter_op_num_threads = options.intra_op_num_threads = 1
        # A pattern is memory set aside for every number of rows that was seen: more than the plan knows of.
        options.enable_mem_pattern = False
        provider: Any = "CPUExecutionProvider"
        if self.kind == "cuda":
            recording = {"enable_cuda_graph": "1"} if records and self.records else {}
            exact = {"device_id": str(self.number), "arena_extend_strategy": "kSameAsRequested"}
            provider = (PROVIDER, exact | recording)
        try:
            session = ort.InferenceSession(str(path), options, providers=[provider])
        except Exception as error:  # ONNX Runtime raises a dozen unrelated types
            raise BundleError(f"{path} cannot be loaded: {error}") from error
        if self.kind == "cuda" and PROVIDER not in session.get_providers():
            raise ConfigurationError(f"device cuda cannot be used here: ONNX Runtime loaded {path} without {PROVIDER}")
        return session


class Reserved:
    """Memory of a device until release().

    Attributes:
        address: where it begins. num_bytes: its size.
    """

    def __init__(self, device: Device, num_bytes: int) -> None:
        self.device, self.num_bytes = device, num_bytes
        self.host = np.zeros(num_bytes if device.kind == "cpu" else 0, np.uint8)
        self.address = self.host.ctypes.data if device.kind == "cpu" else gpu.allocate(num_bytes)

    def release(self) -> None:
        """Gives it back. Idempotent."""
        if self.address and self.device.kind != "cpu":
            gpu.give_back(self.address)
        self.address = 0


@dataclass(frozen=True, slots=True)
class Part:
    """A part of an array in a device's memory, as sessions are given it."""

    device: Device
    address: int
    shape: tuple[int, ...]
    dtype: Dtype

    @classmethod
    def of(cls, device: Device, whole: ort.OrtValue, dtype: Dtype) -> "Part":
        return cls(device, whole.data_ptr(), tuple(whole.shape()), dtype)

    def at(self, offset_bytes: int, shape: tuple[int, ...], dtype: Dtype) -> "Part":
        return Part(self.device, self.address + offset_bytes, shape, dtype)

    def bind_input(self, binding: ort.IOBinding, name: str) -> None:
        binding.bind_input(name, self.device.kind, self.device.number, self.dtype, self.shape, self.address)

    def bind_output(self, binding: ort.IOBinding, name: str) -> None:
        binding.bind_output(name, self.device.kind, self.device.number, self.dtype, self.shape, self.address)


class Inbox:
    """Small arrays that go to the device together, in one copy, to addresses that never change.

    Args:
        fields: name -> (shape, dtype) of each.
    """

    ALIGNMENT = 256

    def __init__(self, device: Device, fields: dict[str, tuple[tuple[int, ...], Dtype]]) -> None:
        places, size = {}, 0
        for name, (shape, dtype) in fields.items():
            places[name] = size
            size += -(-int(np.prod(shape)) * np.dtype(dtype).itemsize // self.ALIGNMENT) * self.ALIGNMENT
        self.host = np.zeros(size // 8, np.int64)
        self.there = device.empty(self.host.shape, np.int64)
        whole = Part.of(device, self.there, np.int64)
        raw = self.host.view(np.uint8)
        self.arrays: dict[str, NDArray[Any]] = {}
        self.parts: dict[str, Part] = {}
        for name, (shape, dtype) in fields.items():
            length = int(np.prod(shape)) * np.dtype(dtype).itemsize
            self.arrays[name] = raw[places[name] : places[name] + length].view(dtype).reshape(shape)
            self.parts[name] = whole.at(places[name], shape, dtype)

    def send(self) -> None:
        self.there.update_inplace(self.host)
