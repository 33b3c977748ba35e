"""Who translates the texts of a job: an engine in this process. (A running service: service/remote_engine.py.)

Knows: waiting for room. Does not know: rows, files, order.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from service.decoding.options import DecodeOptions
from service.engine.request import ModelInfo, Priority, TextAnswer, TextFormat, TextResult
from service.engine.settings import EngineSettings
from service.errors import (
    Cancelled,
    ConfigurationError,
    DragomanError,
    Draining,
    EngineFailure,
    InvalidRequest,
    Overloaded,
    RequestError,
)
from service.runtime.bundle import MANIFEST, Bundle, sha256_of
from service.transport.languages import model_languages

OnAnswer = Callable[[TextResult | DragomanError], None]
MAX_WAIT_S: Final = 0.05


class TextEngine(Protocol):
    """Translates texts in any order.

    Attributes:
        model: which model it is: what must be the same when a job goes on.
        failure: why no more answers will come, or None.
    """

    model: dict[str, Any]

    @property
    def failure(self) -> DragomanError | None: ...

    def submit(self, text: str, on_answer: OnAnswer) -> None:
        """Takes a text, waiting for room; ``on_answer`` is called once, on any thread, unless the engine fails."""

    def check_model(self) -> None:
        """Raises ConfigurationError where it is no longer the model it was."""

    def close(self) -> None:
        """Ends it; what was not answered is answered no more."""


class EmbeddedEngine:
    """An engine in this process.

    Attributes:
        translator: the engine itself.

    Raises:
        BundleError: the bundle cannot be used. ConfigurationError: it is of other languages than asked for, or gives
            less than the options ask for.
    """

    def __init__(
        self,
        bundle: Path,
        settings: EngineSettings,
        source: str | None,
        target: str,
        options: DecodeOptions,
        text_format: TextFormat = TextFormat.PLAIN,
    ) -> None:
        from service.engine.translator import Translator  # loads ONNX Runtime

        self.translator = Translator.load(bundle, settings)
        self._options, self._format = options, text_format
        self._closed = threading.Event()
        info = self.translator.info
        try:
            self._languages = _chosen_languages(info, bundle, source, target)
            self._check(options)
        except ConfigurationError:
            self.translator.close()
            raise
        self.model = _described(info, bundle, self._languages)

    @property
    def failure(self) -> DragomanError | None:
        if self.translator.engine.failure is None:
            return None
        return EngineFailure("the engine failed; its log line says why")

    def _check(self, options: DecodeOptions) -> None:
        """Raises ConfigurationError where the model cannot do what they ask of every text."""
        try:
            self.translator.model_options.check(options)
        except InvalidRequest as error:
            raise ConfigurationError(str(error)) from None

    def submit(self, text: str, on_answer: OnAnswer) -> None:
        def receive(_: int, answer: TextAnswer) -> None:
            # A failed or closed engine answers all it has; none of that is about the text.
            is_end = isinstance(answer, EngineFailure) and self.failure is not None
            if not is_end and not isinstance(answer, Draining | Cancelled):
                on_answer(answer)

        while not self._closed.is_set() and self.failure is None:
            try:
                self.translator.submit(
                    [text],
                    self._options,
                    receive,
                    languages=self._languages,
                    priority=Priority.BATCH,
                    text_format=self._format,
                )
            except Overloaded as error:  # by texts before this one: they leave room as they finish
                time.sleep(min(error.retry_after_s, MAX_WAIT_S))
                continue
            except RequestError as error:
                receive(0, error)
            return

    def check_model(self) -> None:
        """Nothing: what was loaded stays."""

    def close(self) -> None:
        self._closed.set()
        self.translator.close()


def model_of(bundle: Path, settings: EngineSettings, source: str | None, target: str) -> dict[str, Any]:
    """What EmbeddedEngine.model would be, without loading it. Raises as EmbeddedEngine does."""
    from service.engine.placement import choose_precision, settle_device

    opened = Bundle.open(bundle)
    try:
        settled = settle_device(opened, settings)
        info = ModelInfo.of(opened.manifest, choose_precision(opened, settled), settled.device)
    finally:
        opened.close()
    return _described(info, bundle, _chosen_languages(info, bundle, source, target))


def _chosen_languages(info: ModelInfo, bundle: Path, source: str | None, target: str) -> tuple[str, str]:
    try:
        return model_languages(info, source or "", target)
    except InvalidRequest:
        asked = f"{source or info.source_language} to {target}"
        raise ConfigurationError(f"{bundle} translates {info.pairs}, not {asked}") from None


def _described(info: ModelInfo, bundle: Path, languages: tuple[str, str]) -> dict[str, Any]:
    manifest = bundle / MANIFEST
    return {
        "name": info.name,
        "version": info.version,
        "precision": info.precision,
        "languages": " to ".join(languages),
        "sha256": sha256_of(manifest if manifest.exists() else bundle),  # it holds the checksums of all its files
    }
