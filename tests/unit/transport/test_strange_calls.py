"""Calls that no friendly client makes: contradictory, empty, huge, in the wrong order, gone at once."""

import asyncio
import socket
from collections.abc import Sequence

import grpc
import pytest

from service.pb import translation_pb2 as pb
from service.transport.limits import Limits
from tests.unit.transport.running_server import Running, request, with_server
from tests.unit.transport.test_translate import details, failure

OPTIONS = pb.DecodeOptions
CONFIG = pb.TranslateStreamRequest(config=pb.StreamConfig(source_language="en", target_language="fr"))


def text(name: str, content: str = "a") -> pb.TranslateStreamRequest:
    return pb.TranslateStreamRequest(text=pb.StreamText(id=name, text=content))


async def stream(server: Running, *messages: pb.TranslateStreamRequest) -> tuple[str, list[tuple[str, str]]]:
    """The code of a stream of these messages, and what came before it: (id, translation or reason)."""
    call, found = server.stub.TranslateStream(iter(messages), timeout=5), []
    try:
        async for response in call:
            result = response.result
            found.append((response.id, result.error.reason or result.translation.text))
    except grpc.aio.AioRpcError as error:
        if error.details() == "Internal error from Core":
            # Said by grpc.aio's client, not by the server: the stream ended while it was still sending (1 of 100).
            return await stream(server, *messages)
        return error.code().name, found
    return "OK", found


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"options": OPTIONS(num_alternatives=3, num_beams=2)}, ["options.num_alternatives"]),
        ({"options": OPTIONS(num_alternatives=5)}, ["options.num_alternatives"]),  # more than the default's beams
        ({"options": OPTIONS(min_length=9, max_length=8)}, ["options.min_length"]),
        ({"options": OPTIONS(min_length=-1, max_length=-5)}, ["options.max_length", "options.min_length"]),
        ({"options": OPTIONS(length_penalty=float("inf"))}, ["options.length_penalty"]),
        ({"options": OPTIONS(repetition_penalty=-0.0)}, ["options.repetition_penalty"]),
        ({"source_language": "en_US"}, ["source_language"]),
        ({"source_language": "auto", "target_language": "fr\0"}, ["source_language", "target_language"]),
        ({"model": "en-fr", "target_language": "de"}, ["target_language"]),
        ({"texts": ["a"] * 10_000}, ["texts"]),
    ],
)
def test_what_contradicts_itself_is_refused(fields: dict[str, object], named: list[str]):
    async def check(server: Running) -> None:
        error = await failure(server.stub.Translate(request("a", **fields)))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        violations = details(error)["BadRequest"].field_violations
        assert [violation.field for violation in violations] == named
        assert "in [0, -5]" not in error.details()

    with_server(check)


@pytest.mark.parametrize(
    ("messages", "code", "results"),
    [
        ((), "INVALID_ARGUMENT", []),
        ((CONFIG,), "OK", []),
        ((text("1"),), "INVALID_ARGUMENT", []),
        ((CONFIG, CONFIG), "INVALID_ARGUMENT", []),
        ((CONFIG, pb.TranslateStreamRequest()), "INVALID_ARGUMENT", []),
        ((pb.TranslateStreamRequest(config=pb.StreamConfig()), text("1")), "INVALID_ARGUMENT", []),
        ((CONFIG, text("1"), text("1", "b"), text("1")), "OK", [("1", "A"), ("1", "A"), ("1", "B")]),
        ((CONFIG, text(""), text("2")), "OK", [("", "INVALID_FIELD"), ("2", "A")]),
        ((CONFIG, text("x" * 129), text("y" * 128)), "OK", [("x" * 129, "INVALID_FIELD"), ("y" * 128, "A")]),
    ],
)
def test_streams_in_the_wrong_order(
    messages: Sequence[pb.TranslateStreamRequest], code: str, results: list[tuple[str, str]]
):
    async def check(server: Running) -> None:
        found, answers = await stream(server, *messages)
        assert (found, sorted(answers)) == (code, results)
        assert (await stream(server, CONFIG, text("1")))[0] == "OK"

    with_server(check)


STREAM = "/dragoman.v1.TranslationService/TranslateStream"
LATE_STREAM_CODES = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL)


@pytest.mark.parametrize("timeout_s", [0.0, 0.001])
def test_deadlines_that_cannot_be_kept(timeout_s: float):
    async def check(server: Running) -> None:
        server.translator.gate.clear()  # what is taken is not answered in time
        for call in (
            server.stub.Translate(request("a"), timeout=timeout_s),
            server.stub.Score(pb.ScoreRequest(pairs=[pb.ScorePair(source="a")], model="en-fr"), timeout=timeout_s),
        ):
            assert (await failure(call)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        streamed = server.stub.TranslateStream(iter([CONFIG, text("1")]), timeout=timeout_s)
        # grpc.aio's client names a stream whose deadline passes while it begins by where it was then.
        assert await streamed.code() in LATE_STREAM_CODES
        server.translator.gate.set()
        assert (await server.stub.Translate(request("a"), timeout=5)).results
        assert not server.sample("dragoman_requests_total", method=STREAM, code="INTERNAL")

    with_server(check)


@pytest.mark.parametrize(
    "metadata",
    [
        [("x-request-id-bin", b"\xff\x00\n")],
        [("traceparent", "00-" + "z" * 32), ("tracestate", "=,;"), ("grpc-trace-bin", b"\0" * 29)],
        [("x-request-id", "a" * 200)],
        [("x-request-id", "one"), ("x-request-id", "two")],
        [("authorization", "Bearer"), ("authorization", "Basic \x7e")],
        [("grpc-previous-rpc-attempts", "-7")],
        [(f"key-{number}", "x" * 50) for number in range(60)],
    ],
)
def test_strange_metadata_is_passed_over(metadata: list[tuple[str, str | bytes]]):
    async def check(server: Running) -> None:
        response = await server.stub.Translate(request("a"), metadata=metadata, timeout=5)
        assert response.results[0].translation.text == "A"
        assert 1 <= len(response.request_id) <= 128

    with_server(check)


def test_many_clients_that_leave_at_once_leave_nothing():
    async def check(server: Running) -> None:
        server.translator.gate.clear()
        for _ in range(30):
            async with grpc.aio.insecure_channel(
                server.address, options=[("grpc.use_local_subchannel_pool", 1)]
            ) as channel:
                stub = type(server.stub)(channel)
                calls = [stub.TranslateStream(iter([CONFIG, text("1")])), stub.Translate(request("a"))]
                await asyncio.sleep(0)
                calls[0].cancel()
        server.translator.gate.set()
        assert (await server.stub.Translate(request("a"), timeout=5)).results
        while server.sample("dragoman_open_requests"):
            await asyncio.sleep(0.01)

    with_server(check, Limits(max_stream_texts=2))


@pytest.mark.parametrize("begun", [b"", b"PRI * HTTP/2.0\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
def test_connections_that_do_not_begin_to_speak_are_closed(begun: bytes):
    """So that strangers cannot hold the file descriptors that others wait for."""

    async def check(server: Running) -> None:
        host, _, port = server.address.partition(":")
        with socket.create_connection((host, int(port))) as stranger:
            stranger.sendall(begun)
            stranger.settimeout(8)
            while await asyncio.to_thread(stranger.recv, 4096):
                pass  # the server's settings; then the end
        assert (await server.stub.Translate(request("a"), timeout=5)).results

    with_server(check, handshake_timeout_s=0.3)
