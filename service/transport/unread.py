"""Answers that are finished and that their clients do not read: how many bytes of them wait in memory.

Knows: counting. Does not know: gRPC. Used on the event loop only.

gRPC keeps an answer until its client takes it, however long that is, and there is no way to end such a call. A blank
text of a megabyte costs a client three kilobytes, compressed, and comes back as it was: without a bound one client that
asks and does not read would take all memory within seconds. So whoever has too much unread gets nothing new until it
has read.
"""

import asyncio
from collections import Counter
from typing import Any

from service.errors import Overloaded, QuotaExceeded
from service.transport.admission import OVERLOAD_RETRY_S, set_in_time

# gRPC holds about twice as much.
MAX_BYTES = 64 * 1024 * 1024


class UnreadAnswers:
    """Bytes by client, and of all.

    Args:
        max_bytes: of all clients; one of them may have half of it.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes: Counter[str] = Counter()
        self._total = 0
        self._none = asyncio.Event()
        self._none.set()

    @property
    def num_bytes(self) -> int:
        """Of all clients."""
        return self._total

    def check(self, client: str) -> None:
        """Raises QuotaExceeded, or Overloaded: this client, or all together, have to read first."""
        if self._bytes[client] > self._max_bytes // 2:
            raise QuotaExceeded(
                f"{self._bytes[client]} bytes of answers to this client are not read; at most {self._max_bytes // 2} "
                "may be when a call begins",
                OVERLOAD_RETRY_S,
                unread_bytes=self._bytes[client],
                max_unread_bytes=self._max_bytes // 2,
            )
        if self._total > self._max_bytes:
            raise Overloaded(
                f"{self._total} bytes of answers are not read; at most {self._max_bytes} may be when a call begins",
                OVERLOAD_RETRY_S,
                unread_bytes=self._total,
                max_unread_bytes=self._max_bytes,
            )

    def add(self, client: str, num_bytes: int, call: "asyncio.Task[Any]") -> None:
        """Counts an answer until its call ends, which is when its last byte has left, or the client."""
        self._bytes[client] += num_bytes
        self._total += num_bytes
        self._none.clear()
        call.add_done_callback(lambda _: self._remove(client, num_bytes))

    def _remove(self, client: str, num_bytes: int) -> None:
        self._bytes[client] -= num_bytes
        self._total -= num_bytes
        if not self._bytes[client]:
            del self._bytes[client]
        if not self._total:
            self._none.set()

    async def wait_none(self, timeout_s: float) -> bool:
        """Waits until every answer has left; True if that came in time."""
        return await set_in_time(self._none, timeout_s)
