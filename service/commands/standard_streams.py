"""Standard input, output and error, of which a shell's ``>&-`` and some parents leave one closed.

Knows: file descriptors 0 to 2. Does not know: what is read or written there.

Python sets the stream of a closed descriptor to None, and print() then writes to another one; the first file or
connection that is opened would get the number, and take in what libraries write to it.
"""

import io
import os
import sys
from typing import BinaryIO, cast

_NAMES = ("stdin", "stdout", "stderr")


def hold_closed() -> None:
    """Puts something there that fails when it is read or written, but for standard error, whose text nobody wants."""
    for number, name in enumerate(_NAMES):
        if getattr(sys, name) is not None or not _is_closed(number):
            continue
        held = os.open(os.devnull, os.O_RDONLY if name == "stdout" else os.O_WRONLY)
        if held != number:
            os.dup2(held, number)
            os.close(held)
        os.set_inheritable(number, True)
        # Without a buffer, which would try again, and complain, when Python ends.
        file = io.FileIO(number, "r" if name == "stdin" else "w", closefd=False)
        stream = io.TextIOWrapper(cast(BinaryIO, file), encoding="utf-8", write_through=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _is_closed(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return True
    return False
