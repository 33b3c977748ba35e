"""A library of our own in C: operators for ONNX Runtime, of what stands between matrix products, and searches.

Knows: where the library is, and which of its kinds of kernels run here. Does not know: graphs. What each operator means
in ONNX's own operators is in every graph that has it (export/fused.py); without the library ONNX Runtime uses that. It
is made when the package is installed (build_hook.py), on Linux on x86-64 with a C compiler, and needs AVX2.

The environment variable DRAGOMAN_KERNELS chooses: amx, avx512vnni, avx512, avxvnni, avx2 or none; unset or auto, or
where the processor has no such, the best that it has. DRAGOMAN_PRODUCTS chooses who multiplies bytes, and so whether
graphs are chains: own (the library; also unset or auto) or onnxruntime.
"""

import ctypes
import logging
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from service.errors import ConfigurationError

LIBRARY = Path(__file__).with_name("libdragoman.so")
VARIABLE = "DRAGOMAN_KERNELS"
PRODUCTS_VARIABLE = "DRAGOMAN_PRODUCTS"
OWN, ONNX_RUNTIME = "own", "onnxruntime"
KINDS = ("amx", "avx512vnni", "avx512", "avxvnni", "avx2")  # the best first
NONE, CHOICES = "none", ("auto", *KINDS, "none")

logger = logging.getLogger(__name__)


def choice(variable: str, choices: Sequence[str]) -> str:
    """The environment's, or the first.

    Raises:
        ConfigurationError: it is none of them.
    """
    chosen = os.environ.get(variable) or choices[0]
    if chosen not in choices:
        raise ConfigurationError(f"{variable} is {chosen!r}; it may be {', '.join(choices)}")
    return chosen


@cache
def active() -> str:
    """Which kernels this process runs: one of KINDS, or none.

    Raises:
        ConfigurationError: DRAGOMAN_KERNELS or DRAGOMAN_PRODUCTS is something else.
    """
    chosen = choice(VARIABLE, CHOICES)
    choice(PRODUCTS_VARIABLE, (CHOICES[0], OWN, ONNX_RUNTIME))
    if chosen == NONE or not LIBRARY.exists():
        return NONE
    try:
        kind = ctypes.CDLL(str(LIBRARY)).dragoman_kernels
    except (OSError, AttributeError) as error:  # made for another system, say
        logger.warning("%s cannot be used, ONNX Runtime's own operators are: %s", LIBRARY, error)
        return NONE
    kind.restype = ctypes.c_char_p
    return str(kind().decode())


@cache
def products() -> str:
    """Who multiplies bytes in this process: own or onnxruntime.

    Raises:
        ConfigurationError: DRAGOMAN_PRODUCTS or DRAGOMAN_KERNELS is something else.
    """
    if active() == NONE:
        return ONNX_RUNTIME
    is_ours = getattr(ctypes.CDLL(str(LIBRARY)), "dragoman_products", None)  # not in one of an older source
    return OWN if is_ours is not None and is_ours() else ONNX_RUNTIME


def library() -> Path | None:
    """The library for ONNX Runtime's sessions; None where its own operators are to be used."""
    return None if active() == NONE else LIBRARY
