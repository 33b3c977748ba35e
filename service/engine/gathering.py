"""Several answers that come one by one, from any thread, and are wanted together."""

import functools
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class Gathering(ABC, Generic[Answer]):
    """Who waits for ``count`` (at least 1) answers and goes on with all of them.

    Its receivers hold it, and it holds none of them: it is free when the last of them is, without a garbage collection.

    Attributes:
        answers: by place; None where an answer has not come yet.
    """

    def __init__(self, count: int) -> None:
        self.answers: list[Answer | None] = [None] * count
        self.missing = count
        self.lock = threading.Lock()

    def receiver(self, place: int) -> Callable[[Answer], None]:
        """What the answer at ``place`` is to be given to, exactly once."""
        return functools.partial(self.receive, place)

    def receive(self, place: int, answer: Answer) -> None:
        with self.lock:
            self.answers[place] = answer
            self.missing -= 1
            is_complete = self.missing == 0
        if is_complete:
            self.complete()

    @abstractmethod
    def complete(self) -> None:
        """Called once, on the thread that brought the last answer."""
