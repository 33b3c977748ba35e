"""A running service as the engine of a job: several streams, sent again where they break.

Knows: which answers are worth another try, and when. Does not know: gRPC (service/client.py), rows.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

from service.client import Client, ServiceError
from service.decoding.options import DecodeOptions
from service.engine.request import Priority, TextResult
from service.errors import ConfigurationError, DragomanError, InvalidRequest
from service.jobs.text_engine import OnAnswer
from service.transport.languages import nearest

# A stream that ends so is opened again, and a text that is answered so is sent again, until patience ends.
_TRY_AGAIN: Final = ("UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED", "ABORTED")
# A text that is answered so may have met an engine that was failing, or be the reason.
_MAY_BE_THE_TEXT: Final = "INTERNAL"
MAX_TRIES: Final = 3
FIRST_DELAY_S, MAX_DELAY_S = 0.2, 10.0
MAX_WAIT_S: Final = 0.1


@dataclass(slots=True)
class _Text:
    text: str
    on_answer: OnAnswer
    num_failures: int = 0


class RemoteEngine:
    """Texts through TranslateStream, with the priority of batch work.

    Args:
        num_streams: a stream goes to one server; where the name stands for several, each stream chooses anew.
        patience_s: how long no answer but refusals may come, while texts are open, before the job fails.

    Raises:
        ServiceError: the service does not answer. ConfigurationError: it has not one model of these languages.
    """

    def __init__(
        self, client: Client, source: str, target: str, options: DecodeOptions, num_streams: int, patience_s: float
    ) -> None:
        self._client, self._source, self._target, self._options = client, source, target, options
        self._patience_s = patience_s
        self.model, self._max_characters = self._inspect()
        self._failure: DragomanError | None = None
        self._last_refusal = "none"
        self._closed = threading.Event()
        # Guards all below; notified when a text comes.
        self._changed = threading.Condition()
        self._waiting: deque[_Text] = deque()
        self._delay_s, self._paused_until = 0.0, 0.0
        self._num_open, self._quiet_since = 0, time.monotonic()
        self._threads = [
            threading.Thread(target=self._run, name=f"stream-{number}", daemon=True) for number in range(num_streams)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def failure(self) -> DragomanError | None:
        """As TextEngine; also where nothing has come for longer than patience allows."""
        with self._changed:
            if self._num_open and time.monotonic() - self._quiet_since > self._patience_s:
                self._failure = self._failure or ServiceError(
                    "UNAVAILABLE", f"no answer for {self._patience_s:g} s; the last refusal was: {self._last_refusal}"
                )
        return self._failure

    def submit(self, text: str, on_answer: OnAnswer) -> None:
        if len(text) > self._max_characters:
            limit = self._max_characters
            on_answer(InvalidRequest("text.text", f"{len(text)} characters are more than the service's {limit}"))
            return
        with self._changed:
            if self._num_open == 0:
                self._quiet_since = time.monotonic()
            self._num_open += 1
            self._waiting.append(_Text(text, on_answer))
            self._changed.notify()

    def check_model(self) -> None:
        """Raises ConfigurationError where the service has another model now than at the start."""
        if (now := self._inspect()[0]) != self.model:
            raise ConfigurationError(f"the service now has {_shown(now)}; this job was begun with {_shown(self.model)}")

    def close(self) -> None:
        self._closed.set()
        until = time.monotonic() + 1.0
        for thread in self._threads:  # they end by themselves, unless the service answers no more
            thread.join(max(0.0, until - time.monotonic()))
        self._client.close()

    def _inspect(self) -> tuple[dict[str, Any], int]:
        """The model, and how many characters a text may have."""
        response = self._client.list_models()
        found = [
            {"name": model.name, "version": model.version, "precision": model.precision}
            for model in response.models
            if nearest(model.source_languages, self._source) and nearest(model.target_languages, self._target)
        ]
        if len(found) != 1:
            raise ConfigurationError(f"the service has {len(found)} models from {self._source} to {self._target}")
        return found[0], response.limits.max_text_characters

    def _run(self) -> None:
        """One stream after the other until the end."""
        while not self.is_over:
            call = _Call(self)
            try:
                self._stream(call)
            except ServiceError as error:
                self._refused(error)
            except Exception as error:  # a bug; a job that waits for ever would not tell
                self._failure = DragomanError(f"a stream failed: {type(error).__name__}: {error}")
            finally:
                call.end()
            self._before_next_stream()

    def _stream(self, call: "_Call") -> None:
        results = self._client.stream(
            call.texts(), source=self._source, target=self._target, options=self._options, priority=Priority.BATCH
        )
        for name, answer in results:
            self._receive(call.take(name), answer)

    def _receive(self, item: _Text, answer: TextResult | ServiceError) -> None:
        if isinstance(answer, ServiceError):
            item.num_failures += 1
            is_retried = answer.code == _MAY_BE_THE_TEXT and item.num_failures < MAX_TRIES
            if answer.code in _TRY_AGAIN or is_retried:
                self._refused(answer)
                self.put_back([item])
                return
        with self._changed:
            self._delay_s, self._quiet_since = 0.0, time.monotonic()
            self._num_open -= 1
        item.on_answer(answer)

    def _refused(self, error: ServiceError) -> None:
        """Lets all streams wait: twice as long as the last time, but no shorter than the service wants."""
        if self._closed.is_set():
            return
        if error.code not in (*_TRY_AGAIN, _MAY_BE_THE_TEXT):
            self._failure = error
            return
        now = time.monotonic()
        with self._changed:
            self._last_refusal = str(error)
            if now >= self._paused_until:  # one refusal of many at the same time counts
                self._delay_s = min(max(2 * self._delay_s, FIRST_DELAY_S, error.retry_after_s or 0), MAX_DELAY_S)
                self._paused_until = now + self._delay_s * random.uniform(0.8, 1.2)

    def _before_next_stream(self) -> None:
        while (left := self._paused_until - time.monotonic()) > 0 and not self._closed.wait(min(left, MAX_WAIT_S)):
            pass
        try:
            if not self.is_over:
                self.check_model()
        except ConfigurationError as error:
            self._failure = error
        except ServiceError as error:
            self._refused(error)

    def next_text(self) -> _Text | None:
        """The next text to send, or None after a short wait for one."""
        with self._changed:
            paused_s = self._paused_until - time.monotonic()
            if paused_s > 0 or not self._waiting:
                self._changed.wait(min(max(paused_s, 0.01), MAX_WAIT_S) if paused_s > 0 else MAX_WAIT_S)
                return None
            return self._waiting.popleft()

    def put_back(self, items: list[_Text]) -> None:
        """Texts that were sent and not answered go before all others."""
        with self._changed:
            self._waiting.extendleft(reversed(items))
            self._changed.notify_all()

    @property
    def is_over(self) -> bool:
        return self._closed.is_set() or self.failure is not None


class _Call:
    """One stream's texts: sent by gRPC's thread, answered on ours, given back where the stream broke."""

    def __init__(self, engine: RemoteEngine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._open: dict[str, _Text] = {}
        self._ended = threading.Event()

    def texts(self) -> Iterator[tuple[str, str]]:
        names = count()
        while not (self._ended.is_set() or self._engine.is_over):
            if (item := self._engine.next_text()) is None:
                continue
            name = str(next(names))
            with self._lock:
                if is_late := self._ended.is_set():  # end() has not seen this one
                    self._engine.put_back([item])
                else:
                    self._open[name] = item
            if is_late:
                return
            yield name, item.text

    def take(self, name: str) -> _Text:
        with self._lock:
            return self._open.pop(name)

    def end(self) -> None:
        """Gives back what was not answered; may be called again."""
        with self._lock:
            self._ended.set()
            left, self._open = list(self._open.values()), {}
        self._engine.put_back(left)


def _shown(model: dict[str, Any]) -> str:
    return f"{model['name']} version {model['version']} ({model['precision']})"
