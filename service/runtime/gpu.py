"""Is there a GPU that ONNX Runtime can use, and how much of its memory is free?

Knows: the driver, CUDA's libraries, the provider. Does not know: models. ONNX Runtime itself falls back to the CPU in
silence where something is missing; whoever asked for a GPU must be told instead.
"""

import contextlib
import ctypes
import io
from collections.abc import Callable

import onnxruntime as ort

from service.errors import ConfigurationError

PROVIDER = "CUDAExecutionProvider"
MIN_CUDA = 13
# What the provider's library is linked with, in an order in which they can be loaded.
LIBRARIES = {
    "libcuda.so.1": "the NVIDIA driver",
    "libcudart.so.13": "CUDA 13's runtime",
    "libcublasLt.so.13": "CUDA 13's cuBLAS",
    "libcublas.so.13": "CUDA 13's cuBLAS",
    "libcurand.so.10": "CUDA 13's cuRAND",
}
Load = Callable[[str], object]


def load_library(name: str) -> ctypes.CDLL:
    return ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)


def preload() -> None:
    """Loads CUDA's libraries from NVIDIA's Python packages, where they are installed so and not on the system's path.

    The driver comes first: without one nothing else matters, and ONNX Runtime would complain on standard output.
    """
    load_library("libcuda.so.1")
    with contextlib.redirect_stdout(io.StringIO()):
        ort.preload_dlls(cudnn=False)


def missing(load: Load = load_library) -> list[str]:
    """What a CUDA session would need and is not there, in words; empty: nothing."""
    if PROVIDER not in ort.get_available_providers():
        return [f"ONNX Runtime's {PROVIDER}: install onnxruntime-gpu in place of onnxruntime"]
    with contextlib.suppress(OSError):
        preload()
    absent = []
    for name, meaning in LIBRARIES.items():
        try:
            load(name)
        except OSError:
            absent.append(f"{name} ({meaning})")
    return absent or no_device(load)


def no_device(load: Load) -> list[str]:
    driver = load("libcuda.so.1")
    code = driver.cuInit(0)  # type: ignore[attr-defined]
    count = ctypes.c_int(0)
    code = code or driver.cuDeviceGetCount(ctypes.byref(count))  # type: ignore[attr-defined]
    version = ctypes.c_int(0)  # 12040 is CUDA 12.4
    code = code or driver.cuDriverGetVersion(ctypes.byref(version))  # type: ignore[attr-defined]
    if code:
        return [f"a GPU that the driver can use: it answers with error {code}"]
    if version.value < MIN_CUDA * 1000:
        return [
            f"a driver for CUDA {MIN_CUDA}: this one is for CUDA {version.value // 1000}.{version.value % 1000 // 10}"
        ]
    return [] if count.value else ["a GPU: the driver sees none"]


def require_gpu(load: Load = load_library) -> None:
    """Raises ConfigurationError that names what is missing."""
    absent = missing(load)
    if absent:
        raise ConfigurationError(f"device cuda cannot be used here; missing: {'; '.join(absent)}")


def free_bytes() -> int:
    """Of the memory of the GPU that sessions run on."""
    runtime = load_library("libcudart.so.13")
    free, total = ctypes.c_size_t(0), ctypes.c_size_t(0)
    code = runtime.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total))
    if code:
        raise ConfigurationError(f"the GPU does not tell how much of its memory is free: CUDA error {code}")
    return free.value


def allocate(num_bytes: int) -> int:
    """The address of memory on that GPU: exactly so much, and free again after give_back(); ONNX Runtime would take the
    next power of two and keep it. Raises ConfigurationError where there is not so much."""
    address = ctypes.c_void_p(0)
    code = load_library("libcudart.so.13").cudaMalloc(ctypes.byref(address), ctypes.c_size_t(num_bytes))
    if code or address.value is None:
        raise ConfigurationError(f"the GPU does not give {num_bytes} bytes of its memory: CUDA error {code}")
    return address.value


def give_back(address: int) -> None:
    """Frees what allocate() gave. After a device error this fails in silence: the process is about to end."""
    load_library("libcudart.so.13").cudaFree(ctypes.c_void_p(address))
