"""Every metric in one place. Names begin with dragoman_, end in their base unit, and have bounded labels.

Knows: Prometheus. Does not know: engine or gRPC; both call plain methods here.
"""

import threading
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from service.engine.request import ModelInfo

# The time at which each series was made: twice the series, for nothing that Prometheus asks by default.
disable_created_metrics()  # type: ignore[no-untyped-call]

# From one step of a small model (1 ms) to a long document (100 s).
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100)
_STEP_SECONDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1, 4)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_RATIO = (0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1)

Labelled = TypeVar("Labelled", Counter, Gauge, Histogram)


class Metrics:
    """All metrics of one process, in their own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.lock = threading.Lock()
        # Gauge name -> what each engine last said, of those gauges that show the largest of them.
        self.largest_of: dict[str, dict[EngineMetrics, float]] = {"oldest": {}, "workers": {}}
        self._make_transport_metrics()
        self._make_engine_metrics()
        self._make_device_metrics()
        self._make_process_metrics()

    def _make_transport_metrics(self) -> None:
        registry = self.registry
        self._requests = Counter(
            "dragoman_requests_total", "Calls answered, by method and gRPC code.", ["method", "code"], registry=registry
        )
        self._request_duration = Histogram(
            "dragoman_request_duration_seconds", "From a call's arrival to its answer.", ["method"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._open_requests = Gauge("dragoman_open_requests", "Calls open now.", registry=registry)
        self._texts = Counter("dragoman_texts_total", "Texts answered, by outcome.", ["outcome"], registry=registry)
        self._credentials = Counter(
            "dragoman_credential_reloads_total", "New certificates or files of clients, by what became of them.",
            ["kind", "outcome"], registry=registry,
        )  # fmt: skip
        self._split = Counter(
            "dragoman_split_total", "Texts with a sentence longer than the model's limit.", registry=registry
        )

    def _make_engine_metrics(self) -> None:
        registry = self.registry

        def histogram(name: str, meaning: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, meaning, buckets=buckets, registry=registry)

        def gauge(name: str, meaning: str) -> Gauge:
            return Gauge(name, meaning, registry=registry)

        def counter(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(name, meaning, labels, registry=registry)

        self.queue_duration = histogram("dragoman_queue_duration_seconds", "A sentence's wait for a row.", _SECONDS)
        self.first_token = histogram(
            "dragoman_time_to_first_token_seconds", "From a sentence's submission to its first token.", _SECONDS
        )
        self.encoder = histogram("dragoman_encoder_seconds", "One encoder run.", _STEP_SECONDS)
        self.decoder_step = histogram("dragoman_decoder_step_seconds", "One decoder step.", _STEP_SECONDS)
        self.batch_rows = histogram("dragoman_batch_rows", "Rows of a decoder step.", _ROWS)
        self.padding = histogram("dragoman_batch_padding_ratio", "Computed rows nobody needed.", _RATIO)
        self.encoder_padding = histogram(
            "dragoman_encoder_padding_ratio", "Encoded token places that hold padding.", _RATIO
        )
        self.active_rows = gauge("dragoman_active_rows", "Rows that belong to a sentence now.")
        self.queue_sentences = gauge("dragoman_queue_sentences", "Sentences waiting for a row.")
        self.queue_tokens = gauge("dragoman_queue_tokens", "Source tokens waiting for a row.")
        self.queue_oldest = gauge("dragoman_queue_oldest_seconds", "Age of the sentence that waits longest.")
        self.workers = gauge(
            "dragoman_workers",
            "Engine threads of the model that has most: seconds of steps and encoder runs per second, at most.",
        )
        self.cache_bytes = gauge("dragoman_cache_bytes", "Memory that attention keys and values can come to take.")
        self.input_tokens = counter("dragoman_input_tokens_total", "Source tokens of answered sentences.")
        self.output_tokens = counter("dragoman_output_tokens_total", "Target tokens of answered sentences.")
        self.finished = counter("dragoman_finished_total", "Sentences answered, by finish reason.", "reason")
        self.repetition = counter("dragoman_repetition_total", "Sentences stopped for repeating themselves.")
        self.rejected = counter("dragoman_rejected_total", "Requests not taken, by reason.", "reason")
        self.cancelled = counter("dragoman_cancelled_total", "Sentences given up, by stage.", "stage")

    def _make_device_metrics(self) -> None:
        registry = self.registry
        self.device_step = Histogram(
            "dragoman_device_step_seconds", "One decoder step on a GPU, by the rows it was padded to.", ["rows"],
            buckets=_STEP_SECONDS, registry=registry,
        )  # fmt: skip
        self.device_replays = Counter(
            "dragoman_device_replays_total", "Decoder steps that were recorded CUDA graphs.", registry=registry
        )
        self.device_bytes = Gauge(
            "dragoman_device_memory_bytes", "Memory of the GPU: planned for the model, used once it was warm.",
            ["kind"], registry=registry,
        )  # fmt: skip

    def _make_process_metrics(self) -> None:
        self._model_load = Gauge(
            "dragoman_model_load_seconds", "Loading and warming up a model.", ["model"], registry=self.registry
        )
        self._model_reloads = Counter(
            "dragoman_model_reloads_total", "Bundles loaded while serving, or refused, by outcome.", ["outcome"],
            registry=self.registry,
        )  # fmt: skip
        for outcome in ("loaded", "failed"):
            self._model_reloads.labels(outcome)
        labels = ["name", "version", "source_language", "target_language", "precision", "device"]
        self._model_info = Gauge("dragoman_model_info", "1 for each loaded model.", labels, registry=self.registry)
        self._ready = Gauge("dragoman_ready", "1 while calls are taken.", registry=self.registry)
        build = Gauge("dragoman_build_info", "1; the version is the label.", ["version"], registry=self.registry)
        build.labels(package_version()).set(1)
        ProcessCollector(registry=self.registry)

    def render(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self.registry)

    # Calls (service/transport)

    def call_opened(self) -> None:
        self._open_requests.inc()

    def call_closed(self, method: str, code: str, duration_s: float) -> None:
        """``method`` is one of the served methods, never what a stranger sent."""
        self._open_requests.dec()
        _child(self._requests, method, code).inc()
        _child(self._request_duration, method).observe(duration_s)

    def call_refused(self, reason: str) -> None:
        """A call was not admitted: ``too_many_calls``, or ``not_serving`` while loading or stuck, ``draining``,
        ``unauthenticated``, ``permission_denied``, ``client_calls``, ``client_tokens``, ``unread_answers``,
        or ``texts``: too many characters are being divided into sentences."""
        _child(self.rejected, reason).inc()

    def credentials_reloaded(self, kind: str, outcome: str) -> None:
        """``kind`` is ``certificate`` or ``clients``, ``outcome`` is ``taken`` or ``refused``."""
        self._credentials.labels(kind, outcome).inc()

    def text_answered(self, outcome: str, split: bool) -> None:
        """``outcome`` is ``translated``, ``scored``, or an ErrorInfo reason in lower case."""
        _child(self._texts, outcome).inc()
        if split:
            self._split.inc()

    # Models and the process (service/app.py)

    def model_loaded(self, info: ModelInfo, duration_s: float) -> None:
        self._model_load.labels(info.name).set(duration_s)
        self.model_served(info)

    def model_served(self, info: ModelInfo) -> None:
        self._model_info.labels(*_labels(info)).set(1)

    def model_removed(self, info: ModelInfo) -> None:
        """It takes no new calls; those it has go on."""
        self._model_info.remove(*_labels(info))

    def model_reloaded(self, outcome: str) -> None:
        """A bundle that is new or has changed was ``loaded``, or it ``failed`` and what was loaded goes on."""
        self._model_reloads.labels(outcome).inc()

    def ready(self, is_ready: bool) -> None:
        self._ready.set(int(is_ready))

    def observer(self) -> "EngineMetrics":
        """An observer for one engine; gauges of several engines add up, but for those of largest_of."""
        return EngineMetrics(self)


class EngineMetrics:
    """One engine's EngineObserver."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._lock = threading.Lock()
        # Gauge name -> what this engine last contributed to it.
        self._contributed: dict[str, float] = {}

    def _set(self, name: str, gauge: Gauge, value: float) -> None:
        with self._lock:
            before = self._contributed.get(name, 0.0)
            if value != before:
                gauge.inc(value - before)
                self._contributed[name] = value

    def _set_largest(self, name: str, gauge: Gauge, value: float) -> None:
        told = self._metrics.largest_of[name]
        with self._metrics.lock:
            if told.get(self, 0.0) == value:
                return
            if value:
                told[self] = value
            else:
                del told[self]
            gauge.set(max(told.values(), default=0.0))

    def forget(self) -> None:
        """The engine has ended: what it added to the gauges goes."""
        gauges = {
            "sentences": self._metrics.queue_sentences,
            "tokens": self._metrics.queue_tokens,
            "rows": self._metrics.active_rows,
            "cache": self._metrics.cache_bytes,
            "planned": self._metrics.device_bytes.labels("planned"),
            "used": self._metrics.device_bytes.labels("used"),
        }
        for name, gauge in gauges.items():
            self._set(name, gauge, 0.0)
        self._set_largest("oldest", self._metrics.queue_oldest, 0.0)
        self.workers(0)

    def queued(self, num_sentences: int, num_tokens: int, oldest_s: float = 0.0) -> None:
        self._set("sentences", self._metrics.queue_sentences, num_sentences)
        self._set("tokens", self._metrics.queue_tokens, num_tokens)
        self._set_largest("oldest", self._metrics.queue_oldest, oldest_s)

    def dequeued(self, wait_s: float) -> None:
        self._metrics.queue_duration.observe(wait_s)

    def encoded(self, num_sentences: int, num_tokens: int, padded_tokens: int, duration_s: float) -> None:
        self._metrics.encoder.observe(duration_s)
        if padded_tokens:
            self._metrics.encoder_padding.observe(1.0 - num_tokens / padded_tokens)

    def first_token(self, delay_s: float) -> None:
        self._metrics.first_token.observe(delay_s)

    def step(self, num_rows: int, padding_ratio: float, duration_s: float) -> None:
        self._metrics.batch_rows.observe(num_rows)
        self._metrics.padding.observe(padding_ratio)
        self._metrics.decoder_step.observe(duration_s)

    def bucket(self, num_rows: int, was_replayed: bool, duration_s: float) -> None:
        """``num_rows`` is one of the fixed numbers that steps are padded to."""
        self._metrics.device_step.labels(str(num_rows)).observe(duration_s)
        if was_replayed:
            self._metrics.device_replays.inc()

    def device_bytes(self, planned: int, used: int) -> None:
        self._set("planned", self._metrics.device_bytes.labels("planned"), planned)
        self._set("used", self._metrics.device_bytes.labels("used"), used)

    def active_rows(self, num_rows: int) -> None:
        self._set("rows", self._metrics.active_rows, num_rows)

    def workers(self, num_workers: int) -> None:
        """Models share the processors: their threads do not add up."""
        self._set_largest("workers", self._metrics.workers, num_workers)

    def cache_bytes(self, num_bytes: int) -> None:
        self._set("cache", self._metrics.cache_bytes, num_bytes)

    def finished(self, reason: str, num_source_tokens: int, num_target_tokens: int) -> None:
        _child(self._metrics.finished, reason).inc()
        self._metrics.input_tokens.inc(num_source_tokens)
        self._metrics.output_tokens.inc(num_target_tokens)
        if reason == "repetition":
            self._metrics.repetition.inc()

    def rejected(self, reason: str) -> None:
        _child(self._metrics.rejected, reason).inc()

    def cancelled(self, stage: str) -> None:
        self._metrics.cancelled.labels(stage).inc()


@lru_cache(maxsize=1024)  # labels() checks them anew under a lock, three times for a refused call
def _child(metric: Labelled, *labels: str) -> Labelled:
    """The series of these labels; not for one that is ever removed."""
    return metric.labels(*labels)


def _labels(info: ModelInfo) -> tuple[str, ...]:
    languages = (info.source_language, info.target_language)
    return (info.name, info.version, *languages, info.precision, info.device)


def package_version() -> str:
    """Version of the installed distribution; ``0+unknown`` when run from a tree that is not installed."""
    try:
        return version("dragoman")
    except PackageNotFoundError:
        return "0+unknown"
