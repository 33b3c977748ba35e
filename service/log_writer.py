"""Where log lines go: to a stream whose reader may stop reading, which is no reason to stop translating.

Knows: bytes and descriptors. Does not know: what a line says.

A pipe holds 64 KiB; whoever writes more of what nobody reads waits, and calls are logged where they are answered. So a
line is written at once only if the stream takes it at once. Else lines wait in memory, a thread writes them when they
are read again, and what is more than MAX_WAITING_BYTES is lost, and counted in a line that says so.
"""

import logging
import os
import select
import threading
from collections import deque

PIECE_BYTES = select.PIPE_BUF  # as many as a pipe that can be written to takes without waiting
MAX_WAITING_BYTES = 1 << 20
PATIENCE_S = 1.0  # that the end of the process has for lines that wait

logger = logging.getLogger("dragoman.logs")


class LogWriter(logging.Handler):
    """Writes to an open descriptor and never waits for it. Lines stay whole and in order.

    Args:
        descriptor: stays open; it is not ours to close.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.descriptor = descriptor
        self._state = select.poll()
        self._state.register(descriptor, select.POLLOUT)
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._num_waiting_bytes, self._num_lost = 0, 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.write_line((self.format(record) + "\n").encode("utf-8", "backslashreplace"))
        except Exception:  # as every handler: what cannot be logged ends nothing
            self.handleError(record)

    def write_line(self, line: bytes) -> None:
        with self._changed:
            if not self._waiting and len(line) <= PIECE_BYTES and self._state.poll(0):
                self._write(line)
                return
            if self._num_waiting_bytes + len(line) > MAX_WAITING_BYTES:
                self._num_lost += 1
                return
            self._waiting.append(line)
            self._num_waiting_bytes += len(line)
            if len(self._waiting) == 1:
                self._start_writing()

    def _start_writing(self) -> None:
        try:
            threading.Thread(target=self._write_waiting, name="log-writer", daemon=True).start()
        except RuntimeError:  # the system gives us no more threads
            self._waiting.clear()
            self._num_waiting_bytes = 0
            self._num_lost += 1

    def _write_waiting(self) -> None:
        """Runs in a thread of its own until nothing waits."""
        while True:
            line = self._waiting[0]
            for start in range(0, len(line), PIECE_BYTES):
                self._state.poll()
                self._write(line[start : start + PIECE_BYTES])
            with self._changed:
                self._waiting.popleft()
                self._num_waiting_bytes -= len(line)
                if not self._waiting:
                    num_lost, self._num_lost = self._num_lost, 0
                    self._changed.notify_all()
                    break
        if num_lost:
            logger.warning("log lines were lost", extra={"facts": {"lines": num_lost}})

    def _write(self, piece: bytes) -> None:
        try:
            while piece:
                piece = piece[os.write(self.descriptor, piece) :]
        except OSError:
            self._num_lost += 1  # a full disk, or a reader that has gone: there is nobody to tell

    def flush(self) -> None:
        """Gives the lines that wait a last PATIENCE_S."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, PATIENCE_S)
