"""Ctrl-C and SIGTERM for commands that finish what is in flight. Knows: signals. Does not know: what is in flight."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether a signal has come.

    Attributes:
        signal: its number; 0 until it comes.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._what: Callable[[], None] | None = None

    def then(self, what: Callable[[], None]) -> None:
        """Calls ``what`` when a signal comes, or now where one has come."""
        self._what = what
        if self.signal:
            what()

    def receive(self, number: int, frame: FrameType | None) -> None:
        """A second signal ends the process at once."""
        if self.signal:
            os._exit(128 + number)
        self.signal = number
        if self._what is not None:
            self._what()


@contextmanager
def stopped_by_signals() -> Iterator[Stop]:
    """SIGINT and SIGTERM reach a Stop while this is entered. Only on the main thread."""
    stop = Stop()
    before = {number: signal.signal(number, stop.receive) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
