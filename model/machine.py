"""What a run computes on, and how its process treats memory.

Knows: PyTorch's devices, the C library, oneDNN. Does not know: what is computed.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from model.sections import TrainingConfigError


def keep_freed_memory() -> None:
    """Asks glibc to keep large freed blocks: giving them back and faulting them in again took 40 % of a CPU step."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        m_mmap_max, m_trim_threshold = -4, -1
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)
    except OSError:
        pass  # another C library: slower, not wrong


def keep_few_kernels() -> None:
    """Asks oneDNN to keep the kernels of 32 matrix shapes, not of 1,024; before its first use, later it does not look.

    Every batch has a shape of its own, so that hardly one is used twice and all that are kept are some gigabytes.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")


@contextmanager
def one_thread() -> Iterator[None]:
    """For thousands of small products, as a search makes: where other work keeps a core busy, threads wait for each
    other at every one of them, for minutes instead of seconds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def choose_device(wanted: str, local_rank: int = 0) -> torch.device:
    """The device to train on; auto is CUDA where there is one, and there the GPU number ``local_rank``.

    Raises:
        TrainingConfigError: cuda is wanted and not there.
    """
    has_gpu = torch.cuda.is_available()
    if wanted == "cuda" and not has_gpu:
        raise TrainingConfigError("run.device is cuda, but PyTorch sees no CUDA device; cpu or auto would do")
    return torch.device("cuda", local_rank) if has_gpu and wanted != "cpu" else torch.device("cpu")
