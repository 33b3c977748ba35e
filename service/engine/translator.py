"""Texts in, translations out: the engine as a Python object, without gRPC.

Knows: how a text becomes sentences and token ids and back. Does not know: how sentences are scheduled or searched for.
The CLI, the batch jobs and the gRPC servicer all use this class and nothing below it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from service.decoding.options import DecodeOptions
from service.engine.request import ModelInfo, Priority, TextAnswer, TextResult


class Ticket(Protocol):
    """A submitted request: something to cancel."""

    def cancel(self) -> None:
        """Frees the request's rows within one step. Texts not answered yet are answered with Cancelled. Idempotent."""


class Translator(Protocol):
    """One loaded model and its engine."""

    info: ModelInfo

    @classmethod
    def load(cls, bundle: Path) -> "Translator":
        """Loads, verifies and warms up a bundle. Raises BundleError. (Takes engine settings too: see the class.)"""

    def submit(
        self,
        texts: Sequence[str],
        options: DecodeOptions,
        on_text: Callable[[int, TextAnswer], None],
        *,
        priority: Priority = Priority.INTERACTIVE,
        deadline: float | None = None,
    ) -> Ticket:
        """Queues all texts or none, and returns at once.

        Args:
            on_text: called exactly once per text with its index, from the engine's thread or from this one, in any
                order; must not block or raise.
            deadline: time.monotonic() seconds.

        Raises:
            Overloaded: there is no room for all sentences of all texts. Draining: drain() was called.
            InvalidRequest: a text cannot be taken (field is ``texts[i]``).
        """

    def translate(self, texts: Sequence[str], options: DecodeOptions) -> list[TextResult]:
        """Blocks until every text is translated; the first error is raised."""

    def drain(self, timeout_s: float) -> bool:
        """Takes nothing new and waits for what was taken; True if all of it was answered in time."""

    def close(self) -> None:
        """Stops at once; texts not answered yet are answered with Draining."""
