"""Standard input, output and error, which a shell's ``>&-`` and some parents leave closed, and which a disk may refuse.

Knows: file descriptors 0 to 2. Does not know: what is read or written there.

Python sets the stream of a closed descriptor to None, and print() then writes to another one; the first file or
connection that is opened would get the number, and take in what libraries write to it. And messages are for people:
that nobody can take them, on a full disk or down a pipe that is gone, fails no command that does its work.
"""

import contextlib
import io
import os
import sys
from typing import Any, BinaryIO, cast

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
    if sys.stderr is sys.__stderr__ and isinstance(sys.stderr, io.TextIOWrapper):
        messages = io.BufferedWriter(_Messages(2, "w", closefd=False))
        sys.stderr = io.TextIOWrapper(messages, sys.stderr.encoding, "backslashreplace", line_buffering=True)


def leave_unwritten() -> None:
    """Output that could not be written is not tried again when Python ends, which would complain and exit with 120."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError):  # no file of the system's
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Messages(io.FileIO):
    """Loses what it cannot write."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data) or len(data)  # None: a pipe that is full and does not block
        except OSError:
            return len(data)


def _is_closed(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return True
    return False
