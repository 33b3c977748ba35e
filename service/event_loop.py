"""The service's event loop: while it has work, it looks for more at most once a millisecond.

Knows: asyncio and selectors. Does not know: what runs on the loop.

asyncio asks the system for news between any two rounds of callbacks, and gives Python's lock away to ask. Beside engine
threads it gets the lock back late, and a call of grpc.aio takes several rounds: under a flood of calls that made
refusals late (CONTRIBUTING.md, decision log).
"""

import asyncio
import selectors
import time

# What comes while the loop has work may be seen so much later.
ASK_EVERY_S = 0.001


class PatientSelector(selectors.DefaultSelector):
    """Asked not to wait, because there is work already, it looks only where it has not just looked."""

    _asked_at = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """As any selector's; the empty list of a loop that is asked not to wait may be older than now."""
        if timeout is not None and timeout <= 0 and time.monotonic() - self._asked_at < ASK_EVERY_S:
            return []
        found = super().select(timeout)
        self._asked_at = time.monotonic()
        return found


def new_event_loop() -> asyncio.AbstractEventLoop:
    """The loop to run a server on: ``asyncio.Runner(loop_factory=new_event_loop)``."""
    return asyncio.SelectorEventLoop(PatientSelector())
