"""Composition root and life cycle of the service: load, warm up, SERVING, drain, stop.

Knows: every part and the order of their beginnings and ends. Does not know: what any of them does inside.

    start      the port is bound, health "" is SERVING, calls get UNAVAILABLE
    loaded     health of the service is SERVING, calls are taken
    SIGTERM    NOT_SERVING, calls are still taken for admit_grace_s (endpoint lists lag behind)
    then       new calls get UNAVAILABLE, open ones have drain_grace_s to finish; past it they get UNAVAILABLE too
    end        exit 0; 1 where calls were broken off. A second signal ends the process at once, 128 + its number.
    failure    an engine that cannot go on has answered its calls; liveness fails and the process ends with 1
"""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.config import ServiceConfig
from service.engine.observer import EngineObserver
from service.engine.settings import EngineSettings
from service.engine.translator import Translator
from service.errors import BundleError, ConfigurationError
from service.metrics import Metrics, package_version
from service.metrics_server import MetricsServer
from service.transport.server import ServerOptions, TranslationServer

log = logging.getLogger("dragoman.app")
LoadTranslator = Callable[[Path, EngineSettings, EngineObserver], Translator]
SHIPPED_BUNDLE = Path(__file__).parent / "models" / "en-fr"


class Application:
    """One run of the service.

    Args:
        load: how a bundle becomes a translator; tests give another.
    """

    def __init__(self, config: ServiceConfig, load: LoadTranslator = Translator.load) -> None:
        self._config = config
        self._load = load
        self._metrics = Metrics()
        self._translators: list[Translator] = []
        self._is_ready = False
        self._has_failed = False
        self._stop = asyncio.Event()
        self._num_signals = 0

    async def run(self) -> int:
        """Serves until a signal says stop; returns the exit code.

        Raises:
            BundleError, ConfigurationError: a bundle cannot be served, or two of them are for the same calls.
        """
        log.info("starting", extra={"facts": {"version": package_version(), "config": self._config.as_dict()}})
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        self._server = self._make_server()
        try:
            port = await self._server.start()
            http = self._start_metrics_server()
        except ConfigurationError as error:
            log.error(str(error))
            await self._server.stop()
            return 1
        try:
            return await self._serve(port, http.port if http else None)
        finally:
            await self._server.stop()
            if http:
                http.stop()
            for translator in self._translators:
                await asyncio.to_thread(translator.close)

    async def _serve(self, port: int, metrics_port: int | None) -> int:
        started = time.monotonic()
        loading = _on_daemon_thread(self._load_all)
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait([loading, stopping], return_when=asyncio.FIRST_COMPLETED)
        if not loading.done():
            log.info("stopped while loading")
            return 0
        self._translators = loading.result()
        await self._server.open(self._translators)
        self._is_ready = True
        facts = {
            "port": port,
            "metrics_port": metrics_port,
            "models": [translator.info.name for translator in self._translators],
            "after_s": round(time.monotonic() - started, 3),
        }
        log.info("serving", extra={"facts": facts})
        self._watch_engines()
        await stopping
        return max(await self._drain(), int(self._has_failed))

    async def _drain(self) -> int:
        self._is_ready = False
        await self._server.announce_end()
        log.info("draining", extra={"facts": {"admit_grace_s": self._config.admit_grace_s}})
        if not self._has_failed:
            await asyncio.sleep(self._config.admit_grace_s)
        is_idle = await self._server.drain(self._config.drain_grace_s)
        if is_idle:
            log.info("stopped")
            return 0
        log.warning("stopped with open calls", extra={"facts": {"drain_grace_s": self._config.drain_grace_s}})
        for translator in self._translators:
            await asyncio.to_thread(translator.close)
        return 1

    def _make_server(self) -> TranslationServer:
        """Needs the running event loop, which a constructor may not have yet."""
        config = self._config
        options = ServerOptions(
            listen=config.listen,
            max_open_calls=config.max_open_calls,
            max_connection_age_s=config.max_connection_age_s,
            keepalive_time_s=config.keepalive_time_s,
            reflection=config.reflection,
        )
        return TranslationServer(options, config.limits, config.decode_defaults, self._metrics)

    def _load_all(self) -> list[Translator]:
        return [self._load_one(bundle) for bundle in bundle_paths(self._config.bundle)]

    def _load_one(self, bundle: Path) -> Translator:
        started = time.monotonic()
        translator = self._load(bundle, self._config.engine, self._metrics.observer())
        if self._config.max_length > translator.info.max_target_tokens:
            raise ConfigurationError(
                f"max_length ({self._config.max_length}) must be <= {translator.info.max_target_tokens}, the most that "
                f"model {translator.info.name!r} can give"
            )
        duration_s = time.monotonic() - started
        self._metrics.model_loaded(translator.info, duration_s)
        facts = {"model": translator.info.name, "version": translator.info.version, "seconds": round(duration_s, 3)}
        log.info("loaded", extra={"facts": facts})
        return translator

    def _watch_engines(self) -> None:
        loop = asyncio.get_running_loop()

        def watch(translator: Translator) -> None:
            translator.engine.failed.wait()
            try:
                loop.call_soon_threadsafe(self._on_failure)
            except RuntimeError:  # The loop is closed: the process ends.
                return

        for translator in self._translators:
            threading.Thread(target=watch, args=(translator,), name="watch", daemon=True).start()

    def _on_failure(self) -> None:
        log.error("an engine failed; ending so that the process is started again")
        self._has_failed = True
        self._stop.set()

    def _start_metrics_server(self) -> MetricsServer | None:
        if not self._config.metrics_listen:
            return None
        http = MetricsServer(
            self._config.metrics_listen,
            self._metrics.render,
            is_alive=lambda: not self._has_failed,
            is_ready=lambda: self._is_ready,
        )
        http.start()
        return http

    def _on_signal(self, number: int) -> None:
        self._num_signals += 1
        if self._num_signals > 1:
            log.warning("ended at once by a second signal")
            os._exit(128 + number)
        self._stop.set()


def bundle_paths(bundles: tuple[str, ...]) -> list[Path]:
    """The bundles to serve; the shipped one where none is named.

    Raises:
        BundleError: a bundle is not there.
    """
    paths = [Path(bundle) for bundle in bundles]
    if not paths:
        if not SHIPPED_BUNDLE.exists():
            raise BundleError(f"this installation holds no model at {SHIPPED_BUNDLE}; name one with --bundle")
        return [SHIPPED_BUNDLE]
    for path in paths:
        if not path.exists():
            raise BundleError(f"there is no bundle at {path}")
    return paths


def _on_daemon_thread(work: Callable[[], Any]) -> "asyncio.Future[Any]":
    """Like asyncio.to_thread, but the process does not wait for it at its end: loading cannot be interrupted."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def finish(result: Any, error: Exception | None) -> None:
        if done.done():
            return
        if error:
            done.set_exception(error)
        else:
            done.set_result(result)

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except Exception as error:
            failure = error
        try:
            loop.call_soon_threadsafe(finish, result, failure)
        except RuntimeError:  # The loop is closed: the process ends.
            return

    threading.Thread(target=run, name="load", daemon=True).start()
    return done
