"""Whether calls are taken now, and how many are open.

Knows: the life of the server. Does not know: what a call asks. Used on the event loop only.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import Draining, Overloaded

OVERLOAD_RETRY_S = 1.0


class Admission:
    """The gate before every call of TranslationService: loading, then open, then draining.

    Attributes:
        draining: set once no new work is taken; streams wait for it so that they can end.
    """

    def __init__(self, max_open_calls: int) -> None:
        self.draining = asyncio.Event()
        self._is_loaded = False
        self._max_open_calls = max_open_calls
        self._num_open = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def num_open(self) -> int:
        """Calls that were admitted and not released."""
        return self._num_open

    def open(self) -> None:
        """Models are loaded: calls are taken from now on."""
        self._is_loaded = True

    def drain(self) -> None:
        """From now on no call is taken; those that are open may finish."""
        self.draining.set()

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Holds one place for a call.

        Raises:
            Draining: the server is loading or shutting down. Overloaded: too many calls are open.
        """
        if self.draining.is_set():
            raise Draining("the server is shutting down; send the request again, to another server")
        if not self._is_loaded:
            raise Draining("the server is still loading its models; send the request again")
        if self._num_open >= self._max_open_calls:
            raise Overloaded(
                f"{self._num_open} calls are open; at most {self._max_open_calls} may be", OVERLOAD_RETRY_S
            )
        self._num_open += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._num_open -= 1
            if not self._num_open:
                self._idle.set()

    async def wait_idle(self, timeout_s: float) -> bool:
        """Waits until no call is open; True if that came in time."""
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            return False
        return True
