"""One log line a call; of a flood of refused ones a few a second, and how many more there were.

Knows: what a line says. Does not know: why a call ended as it did.

A line for each of hundreds of refusals a second makes the next ones late (CONTRIBUTING.md, decision log).
"""

import logging
import time
from collections.abc import Callable

from service.transport.callers import Caller

log = logging.getLogger("dragoman.calls")
MAX_REFUSED_LINES_PER_S = 20
REFUSED = "RESOURCE_EXHAUSTED"


class CallLog:
    """Of all calls of a server.

    Args:
        own_service: what the methods that are logged begin with; of others only the level debug knows.
        clock: seconds.
    """

    def __init__(self, own_service: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._own_service, self._clock = own_service, clock
        self._second, self._num_refused = 0, 0

    def write(self, method: str, code: str, duration_s: float, caller: Caller | None) -> None:
        """Logs a call that has ended with ``code``."""
        self._begin_second()
        self._num_refused += code == REFUSED
        level = logging.INFO if method.startswith(self._own_service) else logging.DEBUG
        if not log.isEnabledFor(level) or (code == REFUSED and self._num_refused > MAX_REFUSED_LINES_PER_S):
            return
        facts: dict[str, object] = {"method": method, "code": code, "duration_ms": round(duration_s * 1000, 3)}
        if caller and caller.is_known:
            facts["client"] = caller.name
        log.log(level, "call", extra={"facts": facts})

    def _begin_second(self) -> None:
        """Says, with the first call of a later second, how many refused ones had no line in the last."""
        second = int(self._clock())
        if second == self._second:
            return
        unwritten = self._num_refused - MAX_REFUSED_LINES_PER_S
        if unwritten > 0:
            log.info("refused calls without a line of their own", extra={"facts": {"calls": unwritten}})
        self._second, self._num_refused = second, 0
