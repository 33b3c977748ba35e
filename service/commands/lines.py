"""Many texts through a translator, answers in order: an engine in this process, or a running service.

Knows: order and back-pressure. Does not know: where texts come from and where answers go.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, TypeVar

from service.client import Client, ServiceError
from service.connection import Connection
from service.decoding.options import DecodeOptions
from service.engine.observer import SilentObserver
from service.engine.request import ModelInfo, TextFormat, TextResult
from service.engine.settings import EngineSettings
from service.errors import ConfigurationError, DragomanError, InvalidRequest, Overloaded, RequestError
from service.remote_engine import DEFAULT_PATIENCE_S, RemoteEngine
from service.transport.languages import covers, model_languages, nearest

# Texts taken from the input ahead of the oldest answer that is not out yet.
MAX_OPEN_TEXTS: Final = 512
# How soon a waiting thread notices that the command has ended.
MAX_WAIT_S: Final = 0.1
LineAnswer = TextResult | DragomanError
Item = TypeVar("Item")

# What a flagged translation is, for people.
FLAGGED = "the text was split, or the translation ends at a length limit or where it began to repeat itself"


class LineTranslator(Protocol):
    """Something that translates texts one after the other."""

    def translate(
        self,
        texts: Iterable[str],
        options: DecodeOptions,
        alignment: bool = False,
        text_format: TextFormat = TextFormat.PLAIN,
    ) -> Iterator[LineAnswer]:
        """Answers in the order of the texts, each as soon as it can be; an error in the place of a text that failed.

        Args:
            alignment: whether answers carry theirs. text_format: of texts and answers.
        """

    def __enter__(self) -> "LineTranslator": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class _Order:
    """Texts into something that answers in any order, answers out in that of the texts.

    Texts are read on another thread, so that answers go out while it waits for more.
    """

    def __init__(self) -> None:
        self.has_ended = threading.Event()
        self._reader: threading.Thread | None = None

    def answers(
        self,
        texts: Iterable[str],
        submit: Callable[[str], "Future[LineAnswer]"],
        failure: Callable[[], DragomanError | None] = lambda: None,
    ) -> Iterator[LineAnswer]:
        """Answers, each as soon as it can be. Raises what ``texts`` raises, in its place, and a ``failure``."""
        waiting: queue.Queue[Future[LineAnswer] | BaseException | None] = queue.Queue()
        places = threading.Semaphore(MAX_OPEN_TEXTS)

        def read() -> None:
            try:
                for text in texts:
                    while not places.acquire(timeout=MAX_WAIT_S) and not self.has_ended.is_set():
                        pass
                    if self.has_ended.is_set():
                        return
                    waiting.put(submit(text))
                waiting.put(None)
            except BaseException as error:
                waiting.put(error)

        self._reader = threading.Thread(target=read, name="read", daemon=True)
        self._reader.start()
        while (item := _taken(lambda wait_s: waiting.get(timeout=wait_s), failure)) is not None:
            if isinstance(item, BaseException):
                raise item
            yield _taken(item.result, failure)
            places.release()

    def end(self) -> None:
        """Ends the reader; one that waits for a line that never comes is left there, where it does no harm."""
        self.has_ended.set()
        if self._reader:
            self._reader.join(MAX_WAIT_S)


def _taken(take: Callable[[float], Item], failure: Callable[[], DragomanError | None]) -> Item:
    """What ``take`` gives, asked again and again for some seconds. Raises the ``failure`` that keeps it from coming."""
    while True:
        try:
            return take(MAX_WAIT_S)
        except (queue.Empty, TimeoutError):
            if (error := failure()) is not None:
                raise error from None


def _unlike(info: ModelInfo, source: str | None, target: str | None) -> str:
    """How the languages that were asked for differ from the model's, to be put behind those."""
    given = ((source, info.sources), (target, info.targets))
    if all(not code or nearest(own, code) for code, own in given):
        return "; name both with --from and --to"
    return f", not {source or info.source_language} to {target}" if target else f", not from {source}"


class EmbeddedLines:
    """An engine in this process.

    Raises:
        BundleError: the bundle cannot be used. ConfigurationError: it is of other languages than asked for.
    """

    def __init__(self, bundle: Path, settings: EngineSettings, source: str | None, target: str | None) -> None:
        from service.engine.translator import Translator  # loads ONNX Runtime

        self._translator = Translator.load(bundle, settings, SilentObserver())
        self._order = _Order()
        info = self._translator.info
        try:
            self._languages = model_languages(info, source or "", target or "")
        except InvalidRequest:
            self._translator.close()
            raise ConfigurationError(f"{bundle} translates {info.pairs}{_unlike(info, source, target)}") from None

    def __enter__(self) -> "EmbeddedLines":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ends the reader first: a thread inside the tokenizer must not outlive the interpreter."""
        self._order.end()
        self._translator.close()

    def translate(
        self,
        texts: Iterable[str],
        options: DecodeOptions,
        alignment: bool = False,
        text_format: TextFormat = TextFormat.PLAIN,
    ) -> Iterator[LineAnswer]:
        """As LineTranslator. Raises ConfigurationError: the model cannot do what the options ask of every text."""
        try:
            self._translator.model_options.check(options)
        except InvalidRequest as error:
            raise ConfigurationError(str(error)) from None
        return self._order.answers(texts, lambda text: self._submit(text, options, alignment, text_format))

    def _submit(
        self, text: str, options: DecodeOptions, alignment: bool, text_format: TextFormat
    ) -> Future[LineAnswer]:
        future: Future[LineAnswer] = Future()
        while not self._order.has_ended.is_set():
            try:
                self._translator.submit(
                    [text],
                    options,
                    lambda _, answer: future.set_result(answer),
                    languages=self._languages,
                    alignment=alignment,
                    text_format=text_format,
                )
                return future
            except Overloaded as error:  # by texts before this one: they leave room as they finish
                time.sleep(min(error.retry_after_s, 0.05))
            except RequestError as error:
                future.set_result(error)
                return future
        return future


class RemoteLines:
    """A running service, of which replicas may go and come.

    Args:
        patience_s, on_break: as RemoteEngine.

    Raises:
        ServiceError: it does not answer. ConfigurationError: it translates from several languages, or to others.
    """

    def __init__(
        self,
        address: str | Connection,
        source: str | None,
        target: str,
        patience_s: float = DEFAULT_PATIENCE_S,
        on_break: Callable[[ServiceError], None] = lambda _: None,
    ) -> None:
        self._client = Client(address)
        try:
            self._source = source or only_source(self._client, target)
        except BaseException:
            self._client.close()
            raise
        self._target = target
        self._patience_s, self._on_break = patience_s, on_break
        self._order = _Order()
        self._engine: RemoteEngine | None = None

    def __enter__(self) -> "RemoteLines":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._order.end()
        if self._engine:
            self._engine.close()
        self._client.close()

    def translate(
        self,
        texts: Iterable[str],
        options: DecodeOptions,
        alignment: bool = False,
        text_format: TextFormat = TextFormat.PLAIN,
    ) -> Iterator[LineAnswer]:
        """As LineTranslator; called once.

        Raises:
            ServiceError: the service does not answer, or has not for longer than patience allows. ConfigurationError:
                it has not the model asked for, or no longer the one it was begun with.
        """
        engine = self._engine = RemoteEngine(
            self._client,
            self._source,
            self._target,
            options,
            patience_s=self._patience_s,
            alignment=alignment,
            text_format=text_format,
            on_break=self._on_break,
        )

        def submit(text: str) -> Future[LineAnswer]:
            future: Future[LineAnswer] = Future()
            engine.submit(text, future.set_result)
            return future

        return self._order.answers(texts, submit, lambda: engine.failure)


def only_source(client: Client, target: str) -> str:
    """The one language that the service translates to ``target`` from.

    Raises:
        ConfigurationError: there is not exactly one. ServiceError: no answer.
    """
    models = client.list_models().models
    fitting = [model for model in models if any(covers(code, target) for code in model.target_languages)]
    sources = sorted({code for model in fitting for code in model.source_languages})
    sides = [(" or ".join(model.source_languages), " or ".join(model.target_languages)) for model in models]
    have = ", ".join(f"{source} to {target}" for source, target in sides) or "none"
    if not sources:
        raise ConfigurationError(f"the service has no model to {target}; it has {have}")
    if len(sources) > 1:
        raise ConfigurationError(f"say with --from which language it is; the service has {have}")
    return sources[0]
