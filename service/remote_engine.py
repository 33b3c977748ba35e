"""A running service as an engine: texts in, answers in any order, sent again where a stream breaks.

Knows: which answers are worth another try, and when. Does not know: gRPC (service/client.py), rows, lines, order.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

from service.client import Client, ServiceError
from service.decoding.options import DecodeOptions
from service.engine.request import Priority, TextFormat, TextResult
from service.errors import ConfigurationError, DragomanError, InvalidRequest
from service.pb import translation_pb2 as pb
from service.transport.languages import nearest

OnAnswer = Callable[[TextResult | DragomanError], None]
# A text that is answered so is sent again, until patience ends.
_TRY_AGAIN: Final = ("UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED", "ABORTED")
# A text that is answered so may have met an engine that was failing, or be the reason.
_MAY_BE_THE_TEXT: Final = "INTERNAL"
# A stream that ends so is followed by another. We set no deadline: one that passed was the service's, for idle streams.
_OPEN_AGAIN: Final = (*_TRY_AGAIN, _MAY_BE_THE_TEXT, "DEADLINE_EXCEEDED")
MAX_TRIES: Final = 3
# A server that is started again loads for seconds, a name that stands for other servers is looked up after 30 s.
DEFAULT_PATIENCE_S: Final = 300.0
FIRST_DELAY_S, MAX_DELAY_S = 0.2, 10.0
MAX_WAIT_S: Final = 0.1
# Whoever waits asks so often whether the engine has failed that a longer time between two looks was no waiting: the
# process was stopped, by Ctrl-Z for one.
MAX_LOOK_S: Final = 10 * MAX_WAIT_S
# Of a stream's message beside the text: its id, its lengths.
OTHER_BYTES: Final = 64


@dataclass(slots=True)
class _Text:
    text: str
    on_answer: OnAnswer
    num_failures: int = 0


class RemoteEngine:
    """Texts through TranslateStream, of which one is opened as soon as there is a text to send.

    Args:
        client: its owner from now on is the engine, which closes it.
        num_streams: a stream goes to one server; where the name stands for several, each stream chooses anew.
        patience_s: how long no answer but refusals may come, while texts are open, before the engine fails; time in
            which this process was stopped is left out.
        on_break: told why a stream ended whose texts are sent again; once until the next answer, on any thread.

    Raises:
        ServiceError: the service does not answer. ConfigurationError: it has no model of these languages.
    """

    def __init__(
        self,
        client: Client,
        source: str,
        target: str,
        options: DecodeOptions,
        *,
        num_streams: int = 1,
        patience_s: float = DEFAULT_PATIENCE_S,
        priority: Priority = Priority.INTERACTIVE,
        alignment: bool = False,
        text_format: TextFormat = TextFormat.PLAIN,
        on_break: Callable[[ServiceError], None] = lambda _: None,
    ) -> None:
        self._client, self._source, self._target, self._options = client, source, target, options
        self._priority, self._alignment, self._format = priority, alignment, text_format
        self._patience_s, self._on_break = patience_s, on_break
        self.model, limits = self._inspect()
        self._max_characters, self._max_bytes = limits.max_text_characters, limits.max_message_bytes
        self._failure: DragomanError | None = None
        self._last_refusal = "none"
        self._closed = threading.Event()
        # Guards all below; notified when a text comes.
        self._changed = threading.Condition()
        self._waiting: deque[_Text] = deque()
        self._delay_s, self._paused_until = 0.0, 0.0
        self._num_open, self._quiet_s, self._looked_at, self._is_told = 0, 0.0, time.monotonic(), False
        self._threads = [
            threading.Thread(target=self._run, name=f"stream-{number}", daemon=True) for number in range(num_streams)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def failure(self) -> DragomanError | None:
        """Why no more answers will come, or None. One reason: none has come for longer than patience allows."""
        with self._changed:
            now = time.monotonic()
            self._quiet_s += min(now - self._looked_at, MAX_LOOK_S)
            self._looked_at = now
            if self._num_open and self._quiet_s > self._patience_s:
                self._failure = self._failure or ServiceError(
                    "UNAVAILABLE", f"no answer for {self._patience_s:g} s; the last refusal was: {self._last_refusal}"
                )
        return self._failure

    def submit(self, text: str, on_answer: OnAnswer) -> None:
        """Takes a text; ``on_answer`` is called once, on any thread, unless the engine fails."""
        if len(text) > self._max_characters:
            limit = self._max_characters
            on_answer(InvalidRequest("text.text", f"{len(text)} characters are more than the service's {limit}"))
            return
        num_bytes = len(text.encode("utf-8", "surrogatepass")) + OTHER_BYTES
        if 0 < self._max_bytes < num_bytes:
            on_answer(
                InvalidRequest("text.text", f"a message of {num_bytes} bytes; the service takes {self._max_bytes}")
            )
            return
        with self._changed:
            if self._num_open == 0:
                self._quiet_s = 0.0
            self._num_open += 1
            self._waiting.append(_Text(text, on_answer))
            self._changed.notify()

    def check_model(self) -> None:
        """Raises ConfigurationError where the service has another model now than at the start."""
        if (now := self._inspect()[0]) != self.model:
            raise ConfigurationError(f"the service now has {_shown(now)}; it was begun with {_shown(self.model)}")

    def close(self) -> None:
        """Ends streams and client; what was not answered is answered no more."""
        self._closed.set()
        with self._changed:
            self._changed.notify_all()
            is_broken_off = self._num_open > 0
        if is_broken_off:
            self._client.close()
        until = time.monotonic() + 1.0
        for thread in self._threads:  # they end by themselves, unless the service answers no more
            thread.join(max(0.0, until - time.monotonic()))
        self._client.close()

    def _inspect(self) -> tuple[dict[str, Any], pb.Limits]:
        """The model that the service would choose, and what it allows."""
        response = self._client.list_models()
        found = [
            (source, target, model)
            for model in response.models
            if (source := nearest(tuple(model.source_languages), self._source))
            and (target := nearest(tuple(model.target_languages), self._target))
        ]
        if not found:
            raise ConfigurationError(f"the service has no model from {self._source} to {self._target}")
        # All these codes begin the one that was asked for: the longer, the nearer.
        source, target, model = max(found, key=lambda item: (len(item[0]), len(item[1])))
        described = {"name": model.name, "version": model.version, "precision": model.precision}
        described["languages"] = f"{source} to {target}"
        return described, response.limits

    def _run(self) -> None:
        """One stream after the other until the end."""
        is_first = True
        while self._wait_for_text():
            call = _Call(self)
            try:
                if not is_first:
                    self.check_model()
                is_first = False
                self._stream(call)
            except ServiceError as error:
                self._broken(error)
            except ConfigurationError as error:
                self._failure = error
            except Exception as error:  # a bug; whoever waits for ever would not tell
                self._failure = DragomanError(f"a stream failed: {type(error).__name__}: {error}")
            finally:
                call.end()

    def _wait_for_text(self) -> bool:
        """Returns when there is a text to send and no pause; False where the end has come."""
        while not self.is_over:
            with self._changed:
                paused_s = self._paused_until - time.monotonic()
                if paused_s <= 0 and self._waiting:
                    return True
                self._changed.wait(min(paused_s, MAX_WAIT_S) if paused_s > 0 else MAX_WAIT_S)
        return False

    def _stream(self, call: "_Call") -> None:
        results = self._client.stream(
            call.texts(),
            source=self._source,
            target=self._target,
            options=self._options,
            alignment=self._alignment,
            text_format=self._format,
            priority=self._priority,
        )
        for name, answer in results:
            self._receive(call.take(name), answer)

    def _receive(self, item: _Text, answer: TextResult | ServiceError) -> None:
        if isinstance(answer, ServiceError):
            item.num_failures += 1
            is_retried = answer.code == _MAY_BE_THE_TEXT and item.num_failures < MAX_TRIES
            if answer.code in _TRY_AGAIN or is_retried:
                self._pause(answer)
                self.put_back([item])
                return
        with self._changed:
            self._delay_s, self._quiet_s, self._is_told = 0.0, 0.0, False
            self._num_open -= 1
        item.on_answer(answer)

    def _broken(self, error: ServiceError) -> None:
        """A stream, or the question before it, has ended with this."""
        if self._closed.is_set():
            return
        if error.code not in _OPEN_AGAIN:
            # Texts are answered one by one: a stream that ends for what it asks, ends for the options of all of them.
            self._failure = ConfigurationError(str(error)) if error.code == "INVALID_ARGUMENT" else error
            return
        self._pause(error)
        with self._changed:
            is_news = self._num_open > 0 and not self._is_told
            self._is_told = self._is_told or is_news
        if is_news:
            self._on_break(error)

    def _pause(self, refusal: ServiceError) -> None:
        """Lets all streams wait: twice as long as the last time, but no shorter than the service wants."""
        now = time.monotonic()
        with self._changed:
            self._last_refusal = str(refusal)
            if now >= self._paused_until:  # one refusal of many at the same time counts
                self._delay_s = min(max(2 * self._delay_s, FIRST_DELAY_S, refusal.retry_after_s or 0), MAX_DELAY_S)
                self._paused_until = now + self._delay_s * random.uniform(0.8, 1.2)

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
    return f"{model['name']} version {model['version']} ({model['precision']}, {model['languages']})"
