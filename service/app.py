"""Composition root and life cycle of the service: load, warm up, SERVING, drain, stop.

Knows: every part and the order of their beginnings and ends. Does not know: what any of them does inside.

    start      the port is bound, health "" is SERVING, calls get UNAVAILABLE
    loaded     health of the service is SERVING, calls are taken
    SIGTERM    NOT_SERVING, calls are still taken for admit_grace_s (endpoint lists lag behind)
    then       new calls get UNAVAILABLE, open ones have drain_grace_s to finish; past it they get UNAVAILABLE too
    end        exit 0; 1 where calls were broken off. A second signal ends the process at once, 128 + its number.
    failure    an engine that cannot go on has answered its calls; liveness fails and the process ends with 1
    SIGHUP     bundles are looked at again; what changed is loaded and takes the next calls, open ones keep theirs
    stuck      a step longer than max_step_s: NOT_SERVING until it ends; longer than max_stuck_s: failure
"""

import asyncio
import contextlib
import functools
import logging
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Hashable

from service import garbage
from service.background import heard, on_daemon_thread
from service.config import ServiceConfig
from service.engine.translator import Translator
from service.engine.watchdog import Watchdog
from service.errors import ConfigurationError
from service.metrics import Metrics, package_version
from service.metrics_server import MetricsServer
from service.model_store import SHIPPED_BUNDLE, LoadedModel, LoadTranslator, ModelStore, bundle_paths, discard
from service.runtime import kernels, scratch
from service.transport.server import ServerOptions, TranslationServer
from service.transport.tracing import open_tracer

__all__ = ["SHIPPED_BUNDLE", "Application", "bundle_paths"]

log = logging.getLogger("dragoman.app")
EndProcess = Callable[[int], object]
# A present step may last so long while the process ends.
_CLOSE_S = 2.0
# How often steps are looked at, as a part of the least limit that they are held to.
_LOOKS_PER_LIMIT = 5
# How soon the thread that waits for an engine's failure notices that the engine is gone.
_WATCH_S = 1.0
# Replaced versions that open calls still use; with so many, nothing is replaced until one has ended.
MAX_RETIRED = 4


class Application:
    """One run of the service.

    Args:
        load: how a bundle becomes a translator; tests give another.
        end_process: called with the exit code when all is answered and the port still refuses calls. Where it ends the
            process, calls on their way find their connection closed: UNAVAILABLE, which clients send again. gRPC's own
            stop answers them CANCELLED.
    """

    def __init__(
        self, config: ServiceConfig, load: LoadTranslator = Translator.load, end_process: EndProcess | None = None
    ) -> None:
        self._config = config
        self._load = load
        self._end_process = end_process
        self._metrics = Metrics()
        self._tracer = open_tracer(config.otlp_endpoint, config.trace_ratio)
        self._store = ModelStore(config, self._metrics, load)
        # Those that take calls, and replaced ones that calls still use.
        self._models: list[LoadedModel] = []
        self._retiring: set[asyncio.Task[None]] = set()
        self._reload = asyncio.Event()
        self._is_ready = False
        self._has_failed = False
        self._failing: asyncio.Task[None] | None = None
        self._is_stuck = False
        self._stop = asyncio.Event()
        self._num_signals = 0

    async def run(self) -> int:
        """Serves until a signal says stop; returns the exit code.

        Raises:
            BundleError, ConfigurationError: a bundle cannot be served, or two of them are for the same calls.
        """
        runs = {"version": package_version(), "kernels": kernels.active(), "products": kernels.products()}
        log.info("starting", extra={"facts": runs | {"config": self._config.as_dict()}})
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        self._server = self._make_server()
        try:
            port = await self._server.start()
            http = self._start_metrics_server()
        except ConfigurationError as error:
            log.error(str(error))
            await self._server.stop()
            return 1
        try:
            code = await self._serve(port, http.port if http else None)
            await asyncio.to_thread(self._tracer.close)
            if self._end_process:
                scratch.remove_own()  # nothing else is cleaned up after this
                self._end_process(code)
            return code
        finally:
            await self._server.stop()
            if http:
                http.stop()
            await self._close_translators()
            garbage.take_back()

    async def _serve(self, port: int, metrics_port: int | None) -> int:
        started = time.monotonic()
        loading = on_daemon_thread(self._store.load_all)
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait([loading, stopping], return_when=asyncio.FIRST_COMPLETED)
        if not loading.done():
            log.info("stopped while loading")
            return 0
        self._models = loading.result()
        garbage.set_aside()
        await self._server.open([model.translator for model in self._models])
        self._is_ready = True
        facts = {
            "port": port,
            "metrics_port": metrics_port,
            "models": [model.translator.info.name for model in self._models],
            "after_s": round(time.monotonic() - started, 3),
        }
        log.info("serving", extra={"facts": facts})
        self._watch_engines(self._models)
        watching = [asyncio.create_task(self._watch_steps()), asyncio.create_task(self._watch_bundles())]
        for task in watching:  # nobody else would hear that one of them is no more
            heard(task, self._on_failure)
        await stopping
        for task in watching:
            task.cancel()
        return max(await self._drain(), int(self._has_failed))

    async def _drain(self) -> int:
        self._is_ready = False
        await self._server.announce_end()
        log.info("draining", extra={"facts": {"admit_grace_s": self._config.admit_grace_s}})
        if not self._has_failed:
            await asyncio.sleep(self._config.admit_grace_s)
        is_idle = await self._server.drain(0.0 if self._is_stuck else self._config.drain_grace_s)
        if not is_idle:
            log.warning("stopped with open calls", extra={"facts": {"drain_grace_s": self._config.drain_grace_s}})
            await self._close_translators()
        await self._server.settle()
        log.info("stopped")
        return int(not is_idle)

    async def _close_translators(self) -> None:
        """On threads that the process does not wait for: a stuck step cannot be interrupted."""
        timeout_s = 0.0 if self._is_stuck else _CLOSE_S
        closing = [on_daemon_thread(functools.partial(discard, model, timeout_s)) for model in self._models]
        if not all(await asyncio.gather(*closing)):
            log.error("a step did not end; its calls are broken off")

    def _make_server(self) -> TranslationServer:
        """Needs the running event loop, which a constructor may not have yet."""
        config = self._config
        options = ServerOptions(
            listen=config.listen,
            max_open_calls=config.max_open_calls,
            max_connection_age_s=config.max_connection_age_s,
            max_connection_age_grace_s=config.max_connection_age_grace_s,
            keepalive_time_s=config.keepalive_time_s,
            handshake_timeout_s=config.handshake_timeout_s,
            message_timeout_s=config.message_timeout_s,
            compress_from_bytes=config.compress_from_bytes,
            reflection=config.reflection,
            security=config.security,
            tracer=self._tracer,
        )
        return TranslationServer(options, config.limits, config.decode_defaults, self._metrics)

    async def _watch_bundles(self) -> None:
        """Looks at the bundles at SIGHUP, and at the models' folder every now and then."""
        is_polling = self._config.models_folder and self._config.models_poll_s
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._reload.wait(), self._config.models_poll_s if is_polling else None)
            is_asked = self._reload.is_set()
            self._reload.clear()
            if len(self._retiring) >= MAX_RETIRED:
                log.warning("models are not looked at", extra={"facts": {"versions_still_used": len(self._retiring)}})
                continue
            try:
                await self._refresh(is_asked)
            except Exception:
                log.exception("models could not be looked at; those that were loaded go on")

    async def _refresh(self, is_asked: bool) -> None:
        change = await on_daemon_thread(functools.partial(self._store.refresh, is_asked))
        new = [model for model in change.serve if model not in self._models]
        if new or change.retired:
            self._models += new
            self._watch_engines(new)
            await self._server.replace([model.translator for model in change.serve])
            for model in change.retired:
                task = heard(asyncio.create_task(self._retire(model)))
                self._retiring.add(task)
                task.add_done_callback(self._retiring.discard)
            garbage.set_aside()
        if is_asked or new or change.retired:
            facts = {
                "models": [model.translator.info.name for model in change.serve],
                "num_new": len(new),
                "num_retired": len(change.retired),
                "num_failed": change.num_failed,
            }
            log.info("models looked at", extra={"facts": facts})

    async def _retire(self, model: LoadedModel) -> None:
        """Ends a version that takes no new calls, once its last call has ended."""
        await self._server.wait_free(model.translator)
        await on_daemon_thread(functools.partial(discard, model))
        self._models.remove(model)
        info = model.translator.info
        del model  # the last that holds it
        garbage.set_aside()
        log.info("retired", extra={"facts": {"model": info.name, "version": info.version}})

    def _watch_engines(self, models: list[LoadedModel]) -> None:
        loop = asyncio.get_running_loop()

        def watch(failed: threading.Event, model: weakref.ref[LoadedModel]) -> None:
            while not failed.wait(_WATCH_S):
                if model() is None:  # nobody uses it any more
                    return
            log.error("an engine failed")
            try:
                loop.call_soon_threadsafe(self._on_failure)
            except RuntimeError:  # The loop is closed: the process ends.
                return

        for model in models:
            watched = (model.translator.engine.failed, weakref.ref(model))
            threading.Thread(target=watch, args=watched, name="watch", daemon=True).start()

    async def _watch_steps(self) -> None:
        """Looks at the engines' steps: one that takes too long takes the service out of rotation, then to its end."""
        limit_s, end_s = self._config.max_step_s, self._config.max_stuck_s
        if not limit_s:
            return
        watchdog = Watchdog(limit_s / _LOOKS_PER_LIMIT)
        while True:
            await asyncio.sleep(limit_s / _LOOKS_PER_LIMIT)
            turns: dict[Hashable, float | None] = {
                (id(model), number): began_at
                for model in self._models
                for number, began_at in enumerate(model.translator.turns())
            }
            still_s = watchdog.look(turns, time.monotonic())
            if (still_s > limit_s) != self._is_stuck:
                self._is_stuck = not self._is_stuck
                self._is_ready = not self._is_stuck
                log.error(
                    "an engine is stuck" if self._is_stuck else "engines go on", extra={"facts": {"step_s": still_s}}
                )
                await self._server.stick(self._is_stuck)
            if end_s and still_s > end_s:
                self._on_failure()
                return

    def _on_failure(self) -> None:
        log.error("ending so that the process is started again")
        self._has_failed = True
        self._failing = heard(asyncio.create_task(self._server.fail()))
        self._stop.set()

    def _start_metrics_server(self) -> MetricsServer | None:
        if not self._config.metrics_listen:
            return None
        http = MetricsServer(
            self._config.metrics_listen,
            self._metrics.render if self._config.metrics else None,
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
