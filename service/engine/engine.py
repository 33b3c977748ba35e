"""The engine: a queue, workers, and what happens when one of them fails.

Knows: threads and their life. Does not know: text, gRPC, how a step works (worker.py).
"""

import logging
import threading
import time
from collections.abc import Sequence

from service.decoding.rules import DecodingRules
from service.engine.observer import EngineObserver
from service.engine.request import Priority, Sentence
from service.engine.request_queue import RequestQueue
from service.engine.settings import EngineSettings
from service.engine.worker import Worker
from service.errors import ConfigurationError, DragomanError, Draining, EngineFailure, RequestError
from service.runtime.backend import Backend
from service.runtime.bundle import Bundle, Manifest
from service.runtime.cpus import step_aside, usable_cpus
from service.runtime.device_memory import Device
from service.runtime.device_session import DeviceSessions
from service.runtime.session import Sessions
from service.runtime.tokenizer import Tokenizer

log = logging.getLogger(__name__)
MAX_WIDE_THREADS = 8  # measured with 2; a step of one row has little to divide


def num_workers(settings: EngineSettings) -> int:
    """One one-thread worker per usable CPU does most work a second (CONTRIBUTING.md, decision log); a GPU needs one."""
    if settings.device != "cpu":
        return 1
    return settings.num_workers or max(1, usable_cpus() // max(settings.threads_per_worker, 1))


def threads_per_worker(settings: EngineSettings) -> int:
    return settings.threads_per_worker or max(1, usable_cpus() // num_workers(settings))


def wide_threads(settings: EngineSettings) -> int:
    """Threads of a worker that is alone; 0: where the settings divide the processors, they are divided for good."""
    is_chosen = settings.num_workers or settings.threads_per_worker
    return 0 if is_chosen else min(usable_cpus(), MAX_WIDE_THREADS)


def rules_of(manifest: Manifest, end: int) -> DecodingRules | None:
    """What the model demands of every search; None: nothing."""
    decoding = manifest.decoding
    rules = DecodingRules(end, decoding.banned, decoding.force_end, decoding.stop_at_beams)
    is_ruled = rules != DecodingRules(end) or any(language.first for language in manifest.target_languages)
    return rules if is_ruled else None


class Engine:
    """Translates sentences (token ids) with continuous batching.

    Attributes:
        max_rows: of each worker; a device's memory may hold fewer than the settings ask for.
        failure: what ended a worker, or None. An engine that failed answers everything with EngineFailure and never
            recovers: the process is meant to end and be started again.
    """

    def __init__(
        self,
        sessions: Backend,
        manifest: Manifest,
        tokenizer: Tokenizer,
        settings: EngineSettings,
        observer: EngineObserver,
    ) -> None:
        count = num_workers(settings)
        self.queue = RequestQueue(
            settings.max_queue_sentences, settings.max_queue_tokens, count, observer, settings.max_delay_s
        )
        self.sessions, self.niceness = sessions, settings.niceness
        self.failure: BaseException | None = None
        self.failed = threading.Event()
        self.is_closed = False
        limits = (settings.max_rows, manifest.max_source_tokens, manifest.max_target_tokens)
        special = (tokenizer.start, tokenizer.end)
        rules = rules_of(manifest, tokenizer.end)
        self.workers = [
            Worker(number, sessions, sessions.make_cache(*limits), self.queue, special, observer, rules)
            for number in range(count)
        ]
        self.max_rows = self.workers[0].cache.max_rows
        self.observe(observer)
        self.threads = [
            threading.Thread(target=self.run, args=(worker,), name=f"engine-{worker.number}", daemon=True)
            for worker in self.workers
        ]

    @classmethod
    def load(
        cls, bundle: Bundle, precision: str, tokenizer: Tokenizer, settings: EngineSettings, observer: EngineObserver
    ) -> "Engine":
        """Raises BundleError where a graph cannot be loaded, ConfigurationError where the device cannot run it."""
        sessions: Backend
        if settings.device == "cpu":
            sessions = Sessions(bundle, precision, threads_per_worker(settings), wide_threads(settings))
        else:
            device = Device(settings.device, records=settings.record_steps)
            sessions = DeviceSessions(bundle, precision, device, settings.device_memory_share)
        return cls(sessions, bundle.manifest, tokenizer, settings, observer)

    def start(self) -> None:
        """Returns when every worker is ready to work.

        Raises:
            ConfigurationError: one cannot work on its device.
        """
        for thread in self.threads:
            thread.start()
        for worker in self.workers:
            worker.is_warm.wait()
        if isinstance(self.failure, DragomanError):
            raise self.failure
        if self.failure is not None:
            raise ConfigurationError(f"the model does not run on this device: {self.failure}") from self.failure

    def observe(self, observer: EngineObserver) -> None:
        """From now on tells ``observer`` what happens, beginning with what there is."""
        self.observer = self.queue.observer = observer
        for worker in self.workers:
            worker.observer = observer
        observer.workers(len(self.workers))
        observer.cache_bytes(sum(worker.cache.max_bytes for worker in self.workers))
        observer.device_bytes(*self.sessions.device_bytes)

    def run(self, worker: Worker) -> None:
        try:
            step_aside(self.niceness)
            worker.run()
            worker.abandon(self.why_closed)
        except BaseException as error:
            log.exception("engine worker %d failed; the process should be restarted", worker.number)
            self.failure = self.failure or error  # before anybody hears of it: a job that does is not to write it down
            worker.is_warm.set()
            try:
                worker.abandon(EngineFailure)
            finally:  # what broke the worker may break that too
                self.fail(error)

    def why_closed(self) -> RequestError:
        """What is left is answered with this: also where another worker failed, it is no orderly end."""
        return EngineFailure() if self.failure is not None else Draining("the server is shutting down")

    def fail(self, error: BaseException) -> None:
        """Answers what waits with EngineFailure, refuses all else with it, and says that the process must end."""
        self.failure = self.failure or error
        for sentence in self.queue.close():
            self.workers[0].answer(sentence, EngineFailure(), "error")
        self.failed.set()

    def check(self, priority: Priority, deadline: float | None, is_counted: bool = True) -> None:
        """Raises Overloaded, Draining or EngineFailure where a sentence would not be taken now."""
        if self.failure is not None:
            raise EngineFailure()
        self.queue.check(priority, deadline, is_counted=is_counted)

    def submit(self, sentences: Sequence[Sentence], is_counted: bool = True) -> None:
        """Queues all sentences or none. Raises Overloaded, Draining, EngineFailure."""
        if self.failure is not None:
            raise EngineFailure()
        self.queue.submit(sentences, is_counted)

    def drain(self, timeout_s: float) -> bool:
        """Takes nothing new and waits for what was taken; True if all of it was answered in time."""
        return self.queue.drain(timeout_s)

    def turns(self) -> list[float | None]:
        """When each worker began what it does now, by the monotonic clock; None: it waits for work."""
        return [worker.turn_at for worker in self.workers]

    def close(self, timeout_s: float | None = None) -> bool:
        """Ends the workers after their present step; what was not answered is answered with Draining.

        Returns False where a step outlasts ``timeout_s``; its sentences are then not answered.
        """
        for sentence in self.queue.close():
            self.workers[0].answer(sentence, self.why_closed(), "error")
        until = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in self.threads:
            thread.join(None if until is None else max(0.0, until - time.monotonic()))
        if any(thread.is_alive() for thread in self.threads):
            return False
        if not self.is_closed:
            self.is_closed = True
            self.sessions.close(self.failure is not None)
        return True
