"""One log line a call; of a flood of refused ones a few a second, and how many more there were.

Knows: what a line says. Does not know: why a call ended as it did.

A line for each of hundreds of refusals a second makes the next ones late, and to write one between other work takes
several times as long as to write many together (CONTRIBUTING.md, decision log). So a line is written at once only if
none was for PAUSE_S; those that come sooner wait that long, and keep the time of their calls.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextvars import Context
from typing import NamedTuple

from service.logs import ids
from service.transport.callers import Caller

log = logging.getLogger("dragoman.calls")
MAX_REFUSED_LINES_PER_S = 20
REFUSED = "RESOURCE_EXHAUSTED"
PAUSE_S = 0.1


class Line(NamedTuple):
    """A line that waits; ``at``: time.time()."""

    level: int
    message: str
    facts: dict[str, object]
    at: float


class CallLog:
    """Of all calls of a server. Used on the event loop only.

    Args:
        own_service: what the methods that are logged begin with; of others only the level debug knows.
        clock: seconds.
    """

    def __init__(self, own_service: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._own_service, self._clock = own_service, clock
        self._second, self._num_refused = 0, 0
        self._waiting: list[Line] = []
        self._written_at = -PAUSE_S

    def write(self, method: str, code: str, duration_s: float, caller: Caller | None) -> None:
        """Logs a call that has ended with ``code``."""
        now = self._clock()
        self._begin_second(now)
        self._num_refused += code == REFUSED
        level = logging.INFO if method.startswith(self._own_service) else logging.DEBUG
        if not log.isEnabledFor(level) or (code == REFUSED and self._num_refused > MAX_REFUSED_LINES_PER_S):
            return
        facts: dict[str, object] = {**ids(), "method": method, "code": code, "duration_ms": round(duration_s * 1000, 3)}
        if caller and caller.is_known:
            facts["client"] = caller.name
        self._put(now, Line(level, "call", facts, time.time()))

    def flush(self) -> None:
        """Writes the lines that wait. Runs in a context of its own: that of a call would give them its names."""
        lines, self._waiting = self._waiting, []
        self._written_at = self._clock()
        for line in lines:
            record = log.makeRecord(log.name, line.level, "", 0, line.message, (), None, extra={"facts": line.facts})
            record.created = line.at
            log.handle(record)

    def _put(self, now: float, line: Line) -> None:
        self._waiting.append(line)
        if now - self._written_at >= PAUSE_S:
            Context().run(self.flush)
        elif len(self._waiting) == 1:
            asyncio.get_running_loop().call_later(PAUSE_S, self.flush, context=Context())

    def _begin_second(self, now: float) -> None:
        """Says, with the first call of a later second, how many refused ones had no line in the last."""
        second = int(now)
        if second == self._second:
            return
        unwritten = self._num_refused - MAX_REFUSED_LINES_PER_S
        if unwritten > 0:
            facts: dict[str, object] = {"calls": unwritten}
            self._put(now, Line(logging.INFO, "refused calls without a line of their own", facts, time.time()))
        self._second, self._num_refused = second, 0
