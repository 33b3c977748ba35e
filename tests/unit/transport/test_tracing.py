"""Traces: a client's context goes through to spans of every stage, and to the log; without OpenTelemetry to the log."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from service.client import Client
from service.connection import Connection
from service.engine.request import Timings
from service.engine.translator import Translator
from service.logs import configure
from service.transport.quotas import TokenHold, share
from service.transport.submission import Follower
from service.transport.tracing import SilentTracer, open_tracer, trace_context
from tests.unit.transport.running_server import Running, request, running, running_on_thread, with_server
from tests.unit.transport.test_score import score_request

pytest.importorskip("opentelemetry.sdk", reason="tracing is the extra otel")
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service.transport.open_telemetry import MAX_STAGES, SpanTracer

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, NOT_SAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
STAGES = {"queue", "encode", "decode", "detokenize"}


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def tracer(exporter: InMemorySpanExporter, ratio: float = 1.0) -> SpanTracer:
    return SpanTracer(SimpleSpanProcessor(exporter), ratio)


def spans_by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


@pytest.fixture
def log_lines() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure("info", "json", stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


def traced_call(exporter: InMemorySpanExporter, traceparent: str | None, ratio: float = 1.0) -> None:
    async def check(server: Running) -> None:
        metadata = [("traceparent", traceparent)] if traceparent else []
        await server.stub.Translate(request("a", request_id="mine"), metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError):
            await server.stub.Translate(request(), metadata=metadata)

    with_server(check, tracer=tracer(exporter, ratio))


def test_stages_stand_below_the_call_and_the_call_below_the_client(exporter: InMemorySpanExporter):
    traced_call(exporter, SAMPLED)
    calls = [span for span in exporter.get_finished_spans() if span.name == "dragoman.v1.TranslationService/Translate"]
    assert [span.attributes["rpc.response.status_code"] for span in calls] == ["OK", "INVALID_ARGUMENT"]
    assert [span.status.is_ok for span in calls] == [True, False]
    assert calls[0].attributes["dragoman.request_id"] == "mine"
    stages = [span for span in exporter.get_finished_spans() if span not in calls]
    assert {span.name for span in stages} == STAGES
    assert {span.parent.span_id for span in stages} == {calls[0].context.span_id}
    for span in exporter.get_finished_spans():
        assert span.context.trace_id == int(TRACE, 16)
    assert calls[0].parent.span_id == int(PARENT, 16)
    assert calls[0].resource.attributes["service.name"] == "dragoman"


def test_a_score_has_its_stages_below_the_call(exporter: InMemorySpanExporter):
    async def check(server: Running) -> None:
        await server.stub.Score(score_request("a", "bb"), metadata=[("traceparent", SAMPLED)])

    with_server(check, tracer=tracer(exporter))
    *stages, call = exporter.get_finished_spans()
    assert call.name == "dragoman.v1.TranslationService/Score"
    assert sorted(span.name for span in stages) == ["queue", "queue", "score", "score"]
    for span in stages:
        assert span.parent.span_id == call.context.span_id
        assert span.context.trace_id == int(TRACE, 16)
        expected_s = {"queue": 0.1, "score": 0.2}[span.name]  # what the scripted translator says
        assert span.end_time - span.start_time == pytest.approx(expected_s * 1e9, abs=2e7)


def test_stages_follow_each_other_in_time(exporter: InMemorySpanExporter):
    traced_call(exporter, SAMPLED)
    found = spans_by_name(exporter)
    durations = {name: found[name].end_time - found[name].start_time for name in ("queue", "encode", "decode")}
    for name, expected_s in (("queue", 0.1), ("encode", 0.2), ("decode", 0.3)):  # what the scripted translator says
        assert durations[name] == pytest.approx(expected_s * 1e9, abs=2e7)
    assert abs(found["encode"].start_time - found["queue"].end_time) < 2e7


@pytest.mark.parametrize(
    ("traceparent", "ratio", "num_calls"), [(NOT_SAMPLED, 1.0, 0), (SAMPLED, 0.0, 2), (None, 0.0, 0), (None, 1.0, 2)]
)
def test_the_client_decides_else_the_ratio(
    exporter: InMemorySpanExporter, traceparent: str | None, ratio: float, num_calls: int
):
    traced_call(exporter, traceparent, ratio)
    calls = [span for span in exporter.get_finished_spans() if span.name not in STAGES]
    assert len(calls) == num_calls


@pytest.mark.parametrize("is_traced", [True, False])
def test_log_lines_have_the_trace_id(exporter: InMemorySpanExporter, log_lines: io.StringIO, is_traced: bool):
    async def check(server: Running) -> None:
        await server.stub.Translate(request("a"), metadata=[("traceparent", SAMPLED)])
        await server.stub.Translate(request("a"), metadata=[("traceparent", "00-nonsense")])

    with_server(check, tracer=tracer(exporter) if is_traced else SilentTracer())
    first, second = [line for line in map(json.loads, log_lines.getvalue().splitlines()) if line["message"] == "call"]
    assert first["trace_id"] == TRACE
    assert first["request_id"] != second["request_id"]
    assert second.get("trace_id") != TRACE
    assert ("trace_id" in second) == is_traced


def test_the_python_client_passes_on_the_span_it_is_in(exporter: InMemorySpanExporter):
    own = TracerProvider().get_tracer("a client")
    with running_on_thread(tracer=tracer(exporter)) as server, Client(Connection(server.address)) as client:
        with own.start_as_current_span("outside") as outside:
            client.translate(["a"], source="en", target="fr")
            assert list(client.translate_stream(["b"], source="en", target="fr"))
        while len([span for span in exporter.get_finished_spans() if span.name.startswith("dragoman")]) < 2:
            pass
    for span in exporter.get_finished_spans():
        assert span.context.trace_id == outside.get_span_context().trace_id


def test_spans_of_one_call_are_bounded(exporter: InMemorySpanExporter):
    trace = tracer(exporter).begin("/dragoman.v1.TranslationService/Translate", {})
    follower = Follower(TokenHold(share.get(), 1, "texts"), trace)
    follower.counted(1)
    for _ in range(MAX_STAGES):
        follower.decoded(Timings(0.1, 0.1, 0.1))
    trace.end("OK")
    call = exporter.get_finished_spans()[-1]
    assert len(exporter.get_finished_spans()) == MAX_STAGES + 1
    assert call.attributes["dragoman.stages_left_out"] == 2 * MAX_STAGES


def test_a_real_engine_tells_every_stage(exporter: InMemorySpanExporter, nonsense_bundle: Path):
    async def check() -> None:
        async with running(tracer=tracer(exporter), translator=Translator.load(nonsense_bundle)) as server:
            await server.stub.Translate(request("the red house", "the mill. we wait"))

    asyncio.run(check())
    names = [span.name for span in exporter.get_finished_spans()]
    assert names.count("detokenize") == 2
    assert names.count("queue") == names.count("encode") == names.count("decode") >= 2
    secret = [str(span.attributes) + str(span.events) for span in exporter.get_finished_spans()]
    assert not any("house" in text for text in secret)


def test_it_is_off_by_default():
    assert isinstance(open_tracer("", 1.0), SilentTracer)


def test_only_context_keys_that_are_text_are_read():
    metadata = [("traceparent", SAMPLED), ("tracestate", b"x"), ("other", "y")]
    assert trace_context(metadata) == {"traceparent": SAMPLED}
