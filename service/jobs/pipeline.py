"""Windows through an engine: read ahead, longest texts first, each text once, complete windows out in order.

Knows: threads, back-pressure. Does not know: files, forms, checkpoints, what an engine is.
"""

import queue
import threading
from collections.abc import Iterator
from typing import Any, Final

from service.engine.request import TextResult
from service.errors import DragomanError
from service.jobs.outcome_cache import OutcomeCache
from service.jobs.rows import NOTHING_TO_DO, Outcome, failed, outcome_of
from service.jobs.source import Source
from service.jobs.text_engine import TextEngine
from service.jobs.windows import Window, cut_windows

# Texts that the engine has at once: enough for several workers of 128 rows.
MAX_OPEN_TEXTS: Final = 1024
# Windows that are read and not written yet. The next is begun when the last text of the one before was submitted.
MAX_OPEN_WINDOWS: Final = 3
# How soon a waiting thread notices that the job has failed or ended.
MAX_WAIT_S: Final = 0.1


class Pipeline:
    """Reads, translates and hands out windows. Used by one thread; reads on another."""

    def __init__(self, source: Source, engine: TextEngine, cache: OutcomeCache) -> None:
        self._source, self._engine, self._cache = source, engine, cache
        self._stopped, self._closed = threading.Event(), threading.Event()
        self._windows: queue.Queue[Window | BaseException | None] = queue.Queue(MAX_OPEN_WINDOWS)
        self._places = threading.Semaphore(MAX_OPEN_TEXTS)
        self._lock = threading.Lock()
        # Text -> where its outcome goes once it comes; guarded by the lock, as are the cache and all windows.
        self._open: dict[str, list[tuple[Window, int]]] = {}
        self._reader: threading.Thread | None = None

    @property
    def model(self) -> dict[str, Any]:
        """The engine's."""
        return self._engine.model

    def check_model(self) -> None:
        """Raises ConfigurationError where the engine's model is no longer what it was."""
        self._engine.check_model()

    def stop(self) -> None:
        """Begins no more windows; those begun come out."""
        self._stopped.set()

    def completed(self, first: int, last: int | None) -> Iterator[Window]:
        """Complete windows of the rows ``first`` to ``last``, in order.

        Raises:
            DragomanError: reading failed, once the windows before it are out, or the engine failed.
        """
        self._reader = threading.Thread(target=self._read, args=(first, last), name="read", daemon=True)
        self._reader.start()
        while (window := self._next()) is not None:
            if isinstance(window, BaseException):
                raise window
            while not window.complete.wait(MAX_WAIT_S):
                self._raise_failure()
            yield window

    def close(self) -> None:
        """Ends the engine and the reader, which is left where it waits for input that may never come."""
        self._closed.set()
        if self._reader:
            self._reader.join(2 * MAX_WAIT_S)
        self._engine.close()

    def _next(self) -> Window | BaseException | None:
        while True:
            try:
                return self._windows.get(timeout=MAX_WAIT_S)
            except queue.Empty:
                self._raise_failure()
                # A reader may wait for standard input for ever: what it has not read is not in flight.
                if self._stopped.is_set() and self._source.files.is_standard_input:
                    return None

    def _raise_failure(self) -> None:
        if (failure := self._engine.failure) is not None:
            raise failure

    def _read(self, first: int, last: int | None) -> None:
        try:
            for rows in cut_windows(self._source.rows(first, last)):
                if self._stopped.is_set() or self._closed.is_set():
                    break
                self._source.files.check_unchanged()
                window = Window(rows, self._source.files.position(), self._source.state())
                self._put(window)
                self._submit(window)
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _put(self, item: Window | BaseException | None) -> None:
        while not self._closed.is_set():
            try:
                self._windows.put(item, timeout=MAX_WAIT_S)
                return
            except queue.Full:
                continue

    def _submit(self, window: Window) -> None:
        for place in window.by_length():
            row = window.rows[place]
            if row.text is None:
                outcome = failed(row.reason) if row.reason else NOTHING_TO_DO
                self._fill([(window, place)], outcome)
            elif not self._join(row.text, window, place):
                self._translate(row.text)
            if self._closed.is_set():
                return

    def _join(self, text: str, window: Window, place: int) -> bool:
        """Waits for the outcome together with whoever asked for the same text before; False for the first one."""
        with self._lock:
            if (outcome := self._cache.get(text)) is None:
                waiting = self._open.setdefault(text, [])
                waiting.append((window, place))
                return len(waiting) > 1
        self._fill([(window, place)], outcome)
        return True

    def _translate(self, text: str) -> None:
        while not self._places.acquire(timeout=MAX_WAIT_S):
            if self._closed.is_set():
                return

        def receive(answer: TextResult | DragomanError) -> None:
            outcome = outcome_of(answer)
            with self._lock:
                waiting = self._open.pop(text)
                if not outcome.reason:
                    self._cache.put(text, outcome)
            self._fill(waiting, outcome)
            self._places.release()

        self._engine.submit(text, receive)

    def _fill(self, waiting: list[tuple[Window, int]], outcome: Outcome) -> None:
        with self._lock:
            for window, place in waiting:
                window.outcomes[place] = outcome
                window.missing -= 1
                if window.missing == 0:
                    window.complete.set()
