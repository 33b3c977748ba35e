"""Translate, Score and ListModels over a real connection, good and bad."""

import asyncio
import random

import grpc
import pytest
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from service.decoding.options import DecodeOptions
from service.engine.request import Priority
from service.errors import Draining, EngineFailure, Overloaded
from service.pb import translation_pb2 as pb
from tests.unit.transport.running_server import Running, request, running, with_server
from tests.unit.transport.scripted_translator import result_of

TRANSLATE = "/dragoman.v1.TranslationService/Translate"


async def failure(call: object) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return caught.value


def details(error: grpc.aio.AioRpcError) -> dict[str, object]:
    """google.rpc details by the name of their type."""
    status = rpc_status.from_call(_AsCall(error))
    found = {}
    for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
        for packed in status.details:
            message = kind()
            if packed.Unpack(message):
                found[kind.__name__] = message
    return found


class _AsCall:
    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code, self.details, self.trailing_metadata = error.code, error.details, error.trailing_metadata


def test_results_come_in_the_order_of_the_texts_with_the_request_id():
    async def check(server: Running) -> None:
        response = await server.stub.Translate(request("one", "two", "three", request_id="mine"))
        assert [result.translation.text for result in response.results] == ["ONE", "TWO", "THREE"]
        assert (response.request_id, response.model, response.target_language) == ("mine", "en-fr", "fr")
        translation = response.results[0].translation
        assert translation.score == -0.5
        assert (translation.num_source_tokens, translation.num_target_tokens, translation.num_sentences) == (3, 2, 1)
        assert translation.timings == pb.StageTimings(queue_s=0.1, encode_s=0.2, decode_s=0.3)
        assert response.results[0].finish_reason == pb.FINISH_REASON_END_TOKEN
        assert not translation.alternatives
        assert not translation.token_ids
        assert server.sample("dragoman_texts_total", outcome="translated") == 3

    with_server(check)


def test_a_single_translation_is_an_alternative_where_several_were_asked_for():
    async def check(server: Running) -> None:
        server.translator.answers["a"] = result_of("a")  # a loop that was stopped, or nothing to translate
        for several, expected in ((4, ["A"]), (1, [])):
            options = pb.DecodeOptions(num_beams=4, num_alternatives=several)
            translation = (await server.stub.Translate(request("a", options=options))).results[0].translation
            assert [item.text for item in translation.alternatives] == expected

    with_server(check)


def test_options_priority_and_deadline_reach_the_translator():
    async def check(server: Running) -> None:
        options = pb.DecodeOptions(num_beams=5, length_penalty=0.6, num_alternatives=3, max_length=40)
        call = request("a", options=options, priority=pb.PRIORITY_BATCH, include_token_ids=True)
        response = await server.stub.Translate(call, timeout=5)
        (_, received, priority, deadline) = server.translator.submissions[0]
        assert (received.num_beams, received.length_penalty, received.max_length) == (5, 0.6, 40)
        assert priority is Priority.BATCH
        assert deadline is not None
        assert [(item.text, list(item.token_ids)) for item in response.results[0].translation.alternatives] == [
            ("A", [7, 2]),
            ("A'", [8, 2]),
            ("A''", [9, 2]),
        ]

        await server.stub.Translate(request("b"))
        assert server.translator.submissions[1][1].num_beams == 4
        assert server.translator.submissions[1][3] is None

    with_server(check)


def test_one_bad_text_does_not_fail_its_neighbours():
    async def check(server: Running) -> None:
        server.translator.answers["bad"] = EngineFailure()
        response = await server.stub.Translate(request("good", "bad"))
        good, bad = response.results
        assert good.translation.text == "GOOD"
        assert (bad.error.code, bad.error.reason) == (grpc.StatusCode.INTERNAL.value[0], "INTERNAL")
        assert bad.finish_reason == pb.FINISH_REASON_ERROR

    with_server(check)


def test_a_call_fails_when_all_texts_fail_or_one_may_be_sent_again():
    async def check(server: Running) -> None:
        server.translator.answers |= {"bad": EngineFailure(), "gone": Draining("the server stopped")}
        assert (await failure(server.stub.Translate(request("bad")))).code() is grpc.StatusCode.INTERNAL
        assert (await failure(server.stub.Translate(request("good", "gone")))).code() is grpc.StatusCode.UNAVAILABLE

    with_server(check)


def test_overload_says_when_to_come_back():
    async def check(server: Running) -> None:
        server.translator.refusal = Overloaded("7 of 7 wait", retry_after_s=0.25, waiting_sentences=7, max_queue=7)
        error = await failure(server.stub.Translate(request("a")))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        found = details(error)
        assert found["RetryInfo"] == error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(nanos=250_000_000))
        assert found["ErrorInfo"].reason == "OVERLOADED"
        numbers = {"waiting_sentences": "7", "max_queue": "7", "retry_after_ms": "250"}
        assert dict(found["ErrorInfo"].metadata) == numbers
        assert ("grpc-retry-pushback-ms", "250") in list(error.trailing_metadata())
        assert server.sample("dragoman_requests_total", method=TRANSLATE, code="RESOURCE_EXHAUSTED") == 1

    with_server(check)


def test_calls_past_the_limit_are_refused_and_the_place_is_given_back():
    async def check(server: Running) -> None:
        server.translator.gate.clear()
        first = server.stub.Translate(request("a"))
        await asyncio.to_thread(server.translator.submitted.wait)
        assert (await failure(server.stub.Translate(request("b")))).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert server.sample("dragoman_rejected_total", reason="too_many_calls") == 1
        server.translator.gate.set()
        await first
        await server.stub.Translate(request("b"))

    with_server(check, max_open_calls=1)


def test_draining_refuses_new_calls_and_finishes_open_ones():
    async def check(server: Running) -> None:
        server.translator.gate.clear()
        accepted = server.stub.Translate(request("a"))
        await asyncio.to_thread(server.translator.submitted.wait)
        await server.server.announce_end()
        draining = asyncio.create_task(server.server.drain(5))
        await asyncio.sleep(0)  # lets drain() close the gate
        error = await failure(server.stub.Translate(request("b")))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert any(key == "grpc-retry-pushback-ms" for key, _ in error.trailing_metadata())
        assert server.sample("dragoman_rejected_total", reason="draining") == 1
        assert not draining.done()
        server.translator.gate.set()
        assert (await accepted).results[0].translation.text == "A"
        assert await draining

    with_server(check)


def test_a_caller_who_leaves_frees_the_work():
    async def check(server: Running) -> None:
        server.translator.gate.clear()
        call = server.stub.Translate(request("a"), timeout=60)
        await asyncio.to_thread(server.translator.submitted.wait)
        call.cancel()
        assert await asyncio.to_thread(server.translator.cancelled.wait, 5)
        assert await server.server.drain(5)
        assert server.sample("dragoman_requests_total", method=TRANSLATE, code="CANCELLED") == 1

    with_server(check)


def test_a_passed_deadline_frees_the_work():
    async def check(server: Running) -> None:
        server.translator.gate.clear()
        error = await failure(server.stub.Translate(request("a"), timeout=0.2))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert await asyncio.to_thread(server.translator.cancelled.wait, 5)
        assert await server.server.drain(5)
        assert server.sample("dragoman_requests_total", method=TRANSLATE, code="DEADLINE_EXCEEDED") == 1

    with_server(check)


def test_text_of_an_unexpected_exception_never_leaves_the_server():
    async def check(server: Running) -> None:
        server.translator.refusal = RuntimeError("secret path /var/lib")
        error = await failure(server.stub.Translate(request("a")))
        assert error.code() is grpc.StatusCode.INTERNAL
        assert "secret" not in (error.details() or "")
        assert "secret" not in str(list(error.trailing_metadata()))

    with_server(check)


def test_bytes_that_do_not_parse_are_the_callers_fault():
    async def check(server: Running) -> None:
        for method in (
            "/dragoman.v1.TranslationService/Translate",
            "/dragoman.v1.TranslationService/ListModels",
            "/grpc.health.v1.Health/Check",
        ):
            error = await failure(server.channel.unary_unary(method)(b"\xff\xff\xff\xff"))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, method
            assert details(error)["BadRequest"].field_violations[0].field == "request"

    with_server(check)


def test_damaged_messages_get_documented_codes_only():
    async def check(server: Running) -> None:
        seeded = random.Random(20261121)
        valid = request("one", "two", options=pb.DecodeOptions(num_beams=2), request_id="x").SerializeToString()
        call = server.channel.unary_unary("/dragoman.v1.TranslationService/Translate")
        seen = set()
        for _ in range(400):
            payload = bytearray(valid if seeded.random() < 0.8 else seeded.randbytes(seeded.randrange(1, 60)))
            for _ in range(seeded.randrange(4)):
                payload[seeded.randrange(len(payload)) : seeded.randrange(len(payload) + 1)] = seeded.randbytes(1)
                payload = payload or bytearray(b"\0")
            try:
                await call(bytes(payload))
                seen.add("OK")
            except grpc.aio.AioRpcError as error:
                seen.add(error.code().name)
        assert {"OK", "INVALID_ARGUMENT"} <= seen <= {"OK", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "NOT_FOUND"}

    with_server(check)


def test_every_bad_field_is_named():
    async def check(server: Running) -> None:
        options = pb.DecodeOptions(num_beams=17)
        error = await failure(server.stub.Translate(request("ok", source_language="english!", options=options)))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        violations = details(error)["BadRequest"].field_violations
        assert [violation.field for violation in violations] == ["source_language", "options.num_beams"]
        numbers = {"violation1_value": "17", "violation1_min": "1", "violation1_max": "16"}
        assert dict(details(error)["ErrorInfo"].metadata) == numbers
        long = await failure(server.stub.Translate(request("ok", model="m" * 129)))
        assert dict(details(long)["ErrorInfo"].metadata) == {"value": "129", "max": "128"}

    with_server(check)


def test_a_compressed_request_is_understood():
    async def check(server: Running) -> None:
        text = "the same words " * 2000
        call = server.stub.Translate(request(text), compression=grpc.Compression.Gzip)
        assert (await call).results[0].translation.text == text.upper()

    with_server(check)


def test_models_are_found_by_pair_and_by_name():
    async def check(server: Running) -> None:
        assert (await server.stub.Translate(request("a", source_language="en-GB"))).source_language == "en"
        named = pb.TranslateRequest(texts=["a"], model="en-fr")
        assert (await server.stub.Translate(named)).target_language == "fr"
        other = await failure(server.stub.Translate(request("a", target_language="de")))
        assert other.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "en to fr" in (other.details() or "")
        unknown = await failure(server.stub.Translate(request("a", model="nobody")))
        assert unknown.code() is grpc.StatusCode.NOT_FOUND
        wrong = await failure(server.stub.Translate(request("a", model="en-fr", target_language="de")))
        assert wrong.code() is grpc.StatusCode.INVALID_ARGUMENT

    with_server(check)


def test_the_request_id_of_the_metadata_comes_back():
    async def check(server: Running) -> None:
        call = server.stub.Translate(request("a"), metadata=(("x-request-id", "from-metadata"),))
        assert (await call).request_id == "from-metadata"
        assert ("x-request-id", "from-metadata") in list(await call.trailing_metadata())
        error = await failure(server.stub.Translate(request(), metadata=(("x-request-id", "of-a-failure"),)))
        assert ("x-request-id", "of-a-failure") in list(error.trailing_metadata())
        assert (await server.stub.Translate(request("a"))).request_id

    with_server(check)


def test_the_request_id_of_the_message_comes_back_whatever_is_wrong_with_the_rest():
    async def check(server: Running) -> None:
        asked = pb.StreamConfig(source_language="en", target_language="english!", request_id="of-a-stream")
        failures = {
            "of-texts": await failure(server.stub.Translate(request(request_id="of-texts"))),
            "of-pairs": await failure(server.stub.Score(pb.ScoreRequest(request_id="of-pairs"))),
            "of-a-stream": await stream_failure(server, pb.TranslateStreamRequest(config=asked)),
        }
        for name, error in failures.items():
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert ("x-request-id", name) in list(error.trailing_metadata())
        unusable = await failure(server.stub.Translate(request("a", request_id="two\nlines")))
        assert "two" not in dict(unusable.trailing_metadata())["x-request-id"]

    with_server(check)


async def stream_failure(server: Running, first: pb.TranslateStreamRequest) -> grpc.aio.AioRpcError:
    call = server.stub.TranslateStream(iter([first]))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    return caught.value


def test_models_limits_and_defaults_are_listed():
    async def check(server: Running) -> None:
        response = await server.stub.ListModels(pb.ListModelsRequest())
        assert [(model.name, model.precision, model.max_source_tokens) for model in response.models] == [
            ("en-fr", "cpu-int8", 256)
        ]
        assert response.limits.max_texts == 1024
        assert response.defaults.num_beams == 4
        for message in (response.limits, response.defaults):
            unset = [field.name for field in message.DESCRIPTOR.fields if field.name not in dict_of(message)]
            assert unset == []

    with_server(check)


def dict_of(message: object) -> set[str]:
    return {field.name for field, _ in message.ListFields()}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "field"),
    [(pb.DecodeOptions(min_length=60), "options.min_length"), (pb.DecodeOptions(max_length=10), "options")],
)
def test_options_that_do_not_go_with_the_defaults_are_the_callers_fault(options: pb.DecodeOptions, field: str):
    async def check() -> None:
        async with running(defaults=DecodeOptions(max_length=50, min_length=20)) as server:
            error = await failure(server.stub.Translate(request("ok", options=options)))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert [violation.field for violation in details(error)["BadRequest"].field_violations] == [field]

    asyncio.run(check())
