"""The bridge from the engine's threads to the event loop: answers go in on any thread and come out as a coroutine.

Knows: threads and the loop. Does not know: what an answer means.
"""

import asyncio
import threading
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class AnswerBuffer(Generic[Answer]):
    """Answers of one call that were not taken yet.

    The loop is woken once for all answers that came since it last looked, and not before there are ``wake_at`` of them:
    a request of a thousand texts costs one wake-up. Holds at most as many answers as the call has open texts.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, wake_at: int = 1) -> None:
        self._loop = loop
        self._wake_at = wake_at
        self._lock = threading.Lock()
        self._answers: list[tuple[int, Answer]] = []
        self._is_waking = False
        self._event = asyncio.Event()

    def put(self, index: int, answer: Answer) -> None:
        """Takes one answer, on any thread; does not block and does not raise."""
        with self._lock:
            self._answers.append((index, answer))
            if self._is_waking or len(self._answers) < self._wake_at:
                return
            self._is_waking = True
        self.wake()

    def wake(self) -> None:
        """Lets take() return, on any thread."""
        try:
            self._loop.call_soon_threadsafe(self._event.set)
        except RuntimeError:  # The loop is closed: the process ends and nobody waits.
            return

    async def take(self) -> list[tuple[int, Answer]]:
        """Waits for answers and returns all there are: (index, answer) in the order they came; none after wake()."""
        await self._event.wait()
        with self._lock:
            self._event.clear()
            self._is_waking = False
            taken, self._answers = self._answers, []
        return taken
