"""What an engine tells about itself while it works.

Knows: which events there are. Does not know: who listens; service/metrics.py turns them into Prometheus metrics.

Methods are called from the engine's threads and from callers' threads, must not block and must not raise. All
durations are seconds by the monotonic clock.
"""

from typing import Protocol

from service.engine.request import Timings


class EngineObserver(Protocol):
    """Somebody who wants to know what the engine does."""

    def queued(self, num_sentences: int, num_tokens: int, oldest_s: float = 0.0) -> None:
        """The queue changed: it now holds so much, the oldest sentence for oldest_s."""

    def dequeued(self, wait_s: float) -> None:
        """One sentence left the queue for the encoder after wait_s."""

    def encoded(self, num_sentences: int, num_tokens: int, padded_tokens: int, duration_s: float) -> None:
        """One encoder run; padded_tokens is sentences x longest, so >= num_tokens."""

    def first_token(self, delay_s: float) -> None:
        """One sentence has its first target token, delay_s after it was submitted."""

    def step(self, num_rows: int, padding_ratio: float, duration_s: float) -> None:
        """One decoder step; padding_ratio is the share of computed rows nobody needed, 0 to 1."""

    def bucket(self, num_rows: int, was_replayed: bool, duration_s: float) -> None:
        """That step was padded to num_rows; was_replayed: the device had it recorded."""

    def device_bytes(self, planned: int, used: int) -> None:
        """Bytes of the device's memory that the model may come to use, and those in use once it was warm."""

    def active_rows(self, num_rows: int) -> None:
        """Rows that belong to a sentence now."""

    def workers(self, num_workers: int) -> None:
        """The engine has so many workers: at most so many seconds of encoder runs and steps in a second."""

    def cache_bytes(self, num_bytes: int) -> None:
        """Bytes that keys and values can come to take, with every row as long as it may be."""

    def finished(self, reason: str, num_source_tokens: int, num_target_tokens: int) -> None:
        """One sentence was answered; reason is a FinishReason's value, or ``cancelled``, ``deadline``, ``error``."""

    def rejected(self, reason: str) -> None:
        """A request was not taken: ``queue_full``, ``delay`` (an answer would take too long), ``draining``."""

    def cancelled(self, stage: str) -> None:
        """One sentence's caller went away while it was ``queued``, ``encoding`` or ``decoding``."""


class SubmissionWatch(Protocol):
    """Somebody who follows one submission: the texts of one call of Translator.submit()."""

    def counted(self, num_source_tokens: int) -> None:
        """The submission is tokenized and goes into the queue next, on the caller's thread. May raise a RequestError:
        then it does not."""

    def decoded(self, timings: Timings) -> None:
        """One sentence has its translation, on the engine's thread."""

    def assembled(self, began_at: float, ended_at: float) -> None:
        """One text was put together from its sentences, between these moments of time.monotonic()."""


class SilentObserver:
    """Listens to nothing: for commands and tests."""

    def queued(self, num_sentences: int, num_tokens: int, oldest_s: float = 0.0) -> None: ...

    def dequeued(self, wait_s: float) -> None: ...

    def encoded(self, num_sentences: int, num_tokens: int, padded_tokens: int, duration_s: float) -> None: ...

    def first_token(self, delay_s: float) -> None: ...

    def step(self, num_rows: int, padding_ratio: float, duration_s: float) -> None: ...

    def bucket(self, num_rows: int, was_replayed: bool, duration_s: float) -> None: ...

    def device_bytes(self, planned: int, used: int) -> None: ...

    def active_rows(self, num_rows: int) -> None: ...

    def workers(self, num_workers: int) -> None: ...

    def cache_bytes(self, num_bytes: int) -> None: ...

    def finished(self, reason: str, num_source_tokens: int, num_target_tokens: int) -> None: ...

    def rejected(self, reason: str) -> None: ...

    def cancelled(self, stage: str) -> None: ...
