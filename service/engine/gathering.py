"""Several answers that come one by one, from any thread, and are wanted together."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class Gathering(Generic[Answer]):
    """Calls ``complete`` once, on the thread that brings the last of ``count`` (at least 1) answers.

    Attributes:
        answers: by place; None where an answer has not come yet.
    """

    def __init__(self, count: int, complete: Callable[[], None]) -> None:
        self.answers: list[Answer | None] = [None] * count
        self.missing = count
        self.lock = threading.Lock()
        self.complete = complete

    def receiver(self, place: int) -> Callable[[Answer], None]:
        """What the answer at ``place`` is to be given to, exactly once."""

        def receive(answer: Answer) -> None:
            with self.lock:
                self.answers[place] = answer
                self.missing -= 1
                is_complete = self.missing == 0
            if is_complete:
                self.complete()

        return receive
