"""A library of our own in C: operators for ONNX Runtime, of what stands between matrix products, and searches.

Knows: where the library is, and which of its kinds of kernels run here. Does not know: graphs. What each operator means
in ONNX's own operators is in every graph that has it (export/fused.py); without the library ONNX Runtime uses that. It
is made when the package is installed (build_hook.py), on Linux on x86-64 with a C compiler, and needs AVX2.

The environment variable DRAGOMAN_KERNELS chooses: avx512, avx2 or none; unset or auto, the best that the processor has.
"""

import ctypes
import logging
import os
from functools import cache
from pathlib import Path

from service.errors import ConfigurationError

LIBRARY = Path(__file__).with_name("libdragoman.so")
VARIABLE = "DRAGOMAN_KERNELS"
NONE, CHOICES = "none", ("auto", "avx512", "avx2", "none")

logger = logging.getLogger(__name__)


@cache
def active() -> str:
    """Which kernels this process runs: avx512, avx2 or none.

    Raises:
        ConfigurationError: DRAGOMAN_KERNELS is something else.
    """
    chosen = os.environ.get(VARIABLE) or CHOICES[0]
    if chosen not in CHOICES:
        raise ConfigurationError(f"{VARIABLE} is {chosen!r}; it may be {', '.join(CHOICES)}")
    if chosen == NONE or not LIBRARY.exists():
        return NONE
    try:
        kind = ctypes.CDLL(str(LIBRARY)).dragoman_kernels
    except (OSError, AttributeError) as error:  # made for another system, say
        logger.warning("%s cannot be used, ONNX Runtime's own operators are: %s", LIBRARY, error)
        return NONE
    kind.restype = ctypes.c_char_p
    return str(kind().decode())


def library() -> Path | None:
    """The library for ONNX Runtime's sessions; None where its own operators are to be used."""
    return None if active() == NONE else LIBRARY
