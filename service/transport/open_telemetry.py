"""Traces as OpenTelemetry spans: one of each call, and below it one of each stage of each sentence.

Knows: OpenTelemetry, which is the extra `otel`. Does not know: what a call does. Spans hold times, codes and names, and
never a text.
"""

import threading
import time
from collections.abc import Mapping
from typing import Final

from service.errors import ConfigurationError
from service.logs import request_id, trace_id
from service.metrics import package_version

try:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as error:
    raise ConfigurationError(f"tracing needs more packages: pip install 'dragoman[otel]' ({error})") from None

# Stages of one call that become spans: of 64 sentences. A stream of a million texts stays one span of bounded size.
MAX_STAGES: Final = 256
# What the SDK's own shutdown may take where nobody takes the spans.
CLOSE_S: Final = 2.0


class SpanTrace:
    """One call's span; stages become its children."""

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self._below = set_span_in_context(span)
        self._num_stages = 0

    def stage(self, name: str, began_at: float, ended_at: float) -> None:
        """As CallTrace. Past MAX_STAGES they are only counted."""
        self._num_stages += 1  # two threads may count one: a bound, not a statistic
        if self._num_stages > MAX_STAGES or not self._span.is_recording():
            return
        child = self._tracer.start_span(name, self._below, start_time=_epoch_ns(began_at))
        child.end(_epoch_ns(ended_at))

    def end(self, code: str) -> None:
        """As CallTrace."""
        self._span.set_attribute("rpc.response.status_code", code)
        self._span.set_attribute("dragoman.request_id", request_id.get())
        self._span.set_attribute("dragoman.stages_left_out", max(0, self._num_stages - MAX_STAGES))
        if code not in ("OK", "CANCELLED"):
            self._span.set_status(Status(StatusCode.ERROR, code))
        self._span.end()


class SpanTracer:
    """Makes spans.

    Args:
        processor: takes finished spans. ratio: share of the calls that are traced where the client says nothing.
    """

    def __init__(self, processor: SpanProcessor, ratio: float) -> None:
        resource = Resource.create({"service.name": "dragoman", "service.version": package_version()})
        sampler = ParentBased(TraceIdRatioBased(ratio))
        self._provider = TracerProvider(sampler, resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("dragoman")
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, method: str, context: Mapping[str, str]) -> SpanTrace:
        """Below the client's span where the call names one, else a new trace."""
        name = method.removeprefix("/")
        attributes = {"rpc.system.name": "grpc", "rpc.method": name}
        parent = self._propagator.extract(context)
        span = self._tracer.start_span(name, parent, SpanKind.SERVER, attributes)
        trace_id.set(f"{span.get_span_context().trace_id:032x}")
        return SpanTrace(self._tracer, span)

    def close(self) -> None:
        """Gives up after CLOSE_S where nobody takes the spans."""
        closing = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        closing.start()
        closing.join(CLOSE_S)


def otlp_tracer(endpoint: str, ratio: float) -> SpanTracer:
    """A tracer that sends spans to ``endpoint`` by OTLP over gRPC, in batches, on a thread of its own."""
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise ConfigurationError(f"tracing needs more packages: pip install 'dragoman[otel]' ({error})") from None
    return SpanTracer(BatchSpanProcessor(OTLPSpanExporter(endpoint)), ratio)


def _epoch_ns(moment: float) -> int:
    """A moment of time.monotonic() as nanoseconds since 1970."""
    return time.time_ns() - int((time.monotonic() - moment) * 1e9)
