"""Whether calls are taken now, and how many are open.

Knows: the life of the server. Does not know: what a call asks. Used on the event loop only.
"""

import asyncio
from typing import Any

from service.errors import Draining, NotServing, Overloaded

OVERLOAD_RETRY_S = 1.0


class Admission:
    """The gate before every call of TranslationService: loading, then open, then draining.

    Attributes:
        draining: set once no new work is taken; streams wait for it so that they can end.
        silent: the deadlines of calls whose message has not come; they end when draining begins.
        is_broken_off: calls that were open when break_off() came are ended, whatever they wait for.
    """

    def __init__(self, max_open_calls: int) -> None:
        self.draining = asyncio.Event()
        self.silent: set[asyncio.Timeout] = set()
        self.is_broken_off = False
        self._is_loaded = False
        self._is_stuck = False
        self._tasks: set[asyncio.Task[Any]] = set()
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
        """From now on no call is taken; those that are open may finish, but for those that have asked nothing yet."""
        self.draining.set()
        for deadline in self.silent:
            if not deadline.expired():
                deadline.reschedule(asyncio.get_running_loop().time())

    def check_draining(self) -> None:
        """Raises Draining once drain() was called."""
        if self.draining.is_set():
            raise Draining("the server is shutting down; send the request again, to another server")

    def stick(self, is_stuck: bool) -> None:
        """While an engine is stuck no call is taken; those that are open wait for it, or for their deadline."""
        self._is_stuck = is_stuck

    def break_off(self) -> None:
        """Takes no call any more and ends those that are open: the interceptor answers them with Draining."""
        self.draining.set()
        self.is_broken_off = True
        for task in self._tasks:
            task.cancel()

    def enter(self) -> "asyncio.Task[Any]":
        """Takes one place for the call that this task answers, until leave().

        Raises:
            Draining: the server is shutting down. NotServing: it is loading, or stuck. Overloaded: too many calls
                are open.
        """
        self.check_draining()
        if not self._is_loaded:
            raise NotServing("the server is still loading its models; send the request again")
        if self._is_stuck:
            raise NotServing("the engine makes no progress; send the request again, to another server")
        if self._num_open >= self._max_open_calls:
            raise Overloaded(
                f"{self._num_open} calls are open; at most {self._max_open_calls} may be",
                OVERLOAD_RETRY_S,
                open_calls=self._num_open,
                max_open_calls=self._max_open_calls,
            )
        self._num_open += 1
        self._idle.clear()
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a call runs outside of any task. This is a bug.")
        self._tasks.add(task)
        return task

    def leave(self, task: "asyncio.Task[Any]") -> None:
        """The opposite of enter()."""
        self._tasks.discard(task)
        self._num_open -= 1
        if not self._num_open:
            self._idle.set()

    async def wait_idle(self, timeout_s: float) -> bool:
        """Waits until no call is open; True if that came in time."""
        return await set_in_time(self._idle, timeout_s)


async def set_in_time(event: asyncio.Event, timeout_s: float) -> bool:
    """Waits until it is set; True if that came in time, or before."""
    if event.is_set():
        return True
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        return False
    return True
