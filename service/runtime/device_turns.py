"""Who may use a device while a step is being recorded: nobody else.

Knows: threads. Does not know: devices. While CUDA records one thread's work as a graph, it forbids every thread of the
process to take memory, to wait for the device or to copy to it; who does it nevertheless breaks the recording and gets
an error itself, after which the whole process can use the device no more. Engines of several models, or of an old and a
new version of one, have a thread each.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Any number use the device together, or one records. Not reentrant."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._num_users = 0
        self._num_waiting = 0
        self._is_recording = False

    @contextmanager
    def together(self) -> Iterator[None]:
        """For everything but recording. Waits while somebody records, or waits for it: steps follow so closely one
        upon the other that it would never come to it."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._is_recording or self._num_waiting))
            self._num_users += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_users -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """For recording."""
        with self._changed:
            self._num_waiting += 1
            self._changed.wait_for(lambda: not (self._is_recording or self._num_users))
            self._num_waiting -= 1
            self._is_recording = True
        try:
            yield
        finally:
            with self._changed:
                self._is_recording = False
                self._changed.notify_all()


TURNS = Turns()
"""Of all devices of this process."""
