"""TranslateStream over a real connection: ids, flow control, errors in place, ends."""

import asyncio

import grpc
import pytest

from service.errors import EngineFailure, Overloaded
from service.pb import translation_pb2 as pb
from service.transport.limits import Limits
from tests.unit.transport.running_server import Running, with_server

CONFIG = pb.TranslateStreamRequest(config=pb.StreamConfig(source_language="en", target_language="fr"))

NOT_ITS_LANGUAGE = pb.TranslateStreamRequest(config=pb.StreamConfig(source_language="de", model="en-fr"))


def item(name: str, text: str) -> pb.TranslateStreamRequest:
    return pb.TranslateStreamRequest(text=pb.StreamText(id=name, text=text))


async def results(call: object) -> dict[str, pb.TextResult]:
    return {response.id: response.result async for response in call}  # type: ignore[attr-defined]


def test_every_text_is_answered_once_under_its_id():
    async def check(server: Running) -> None:
        names = [str(number) for number in range(200)]
        call = server.stub.TranslateStream(iter([CONFIG, *(item(name, f"text {name}") for name in names)]))
        responses = [response async for response in call]
        assert sorted(response.id for response in responses) == sorted(names)
        assert all(response.result.translation.text == f"TEXT {response.id}" for response in responses)
        assert await call.code() is grpc.StatusCode.OK

    with_server(check, Limits(max_stream_texts=8))


@pytest.mark.parametrize("is_at_once", [True, False])
def test_a_stream_that_ends_well_takes_nothing_back(is_at_once: bool):
    """Also where texts are answered before submit() returns: what has its answer is let go of."""

    async def check(server: Running) -> None:
        if is_at_once:
            server.translator._pool.submit = lambda answer: answer()  # type: ignore[assignment,misc]
        texts = [item(str(number), "a") for number in range(100)]
        assert len(await results(server.stub.TranslateStream(iter([CONFIG, *texts])))) == 100
        assert not server.translator.cancelled.is_set()

    with_server(check)


def test_a_stream_whose_texts_are_all_there_ends_well_while_the_server_drains():
    async def check(server: Running) -> None:
        server.translator.gate.clear()
        call = server.stub.TranslateStream(iter([CONFIG, item("a", "a")]))
        while not server.translator.submissions:
            await asyncio.sleep(0.001)
        await server.stub.ListModels(pb.ListModelsRequest())  # after the end of the texts, on the same connection
        draining = asyncio.create_task(server.server.drain(5))
        await asyncio.sleep(0)
        server.translator.gate.set()
        assert list(await results(call)) == ["a"]
        assert await call.code() is grpc.StatusCode.OK
        assert await draining

    with_server(check)


def test_room_that_comes_sooner_than_was_said_is_taken():
    async def check(server: Running) -> None:
        server.translator.refusal = Overloaded("the queue is full", 60.0)
        call = server.stub.TranslateStream(iter([CONFIG, item("a", "a")]))
        await asyncio.sleep(0.02)
        server.translator.refusal = None
        assert list(await asyncio.wait_for(results(call), 5)) == ["a"]

    with_server(check)


def test_results_are_sent_before_the_last_text_is_there():
    async def check(server: Running) -> None:
        call = server.stub.TranslateStream()
        await call.write(CONFIG)
        for name in ("a", "b"):
            await call.write(item(name, name))
            assert (await call.read()).id == name
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF

    with_server(check)


def test_a_bad_text_is_answered_in_its_place_and_the_stream_goes_on():
    async def check(server: Running) -> None:
        server.translator.answers["bad"] = EngineFailure()
        texts = [item("1", "bad"), item("2", "x" * 21), item("", "nameless"), item("4", "good")]
        found = await results(server.stub.TranslateStream(iter([CONFIG, *texts])))
        assert found["1"].error.reason == "INTERNAL"
        assert (found["2"].error.reason, found["2"].error.field) == ("INVALID_FIELD", "text.text")
        assert found[""].error.field == "text.id"
        assert found["4"].translation.text == "GOOD"

    with_server(check, Limits(max_text_characters=20))


def test_no_more_texts_are_read_than_there_are_slots():
    async def check(server: Running) -> None:
        server.translator.gate.clear()
        call = server.stub.TranslateStream(iter([CONFIG, *(item(str(number), "a") for number in range(50))]))
        while len(server.translator.submissions) < 4:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)  # would be enough to read all fifty
        assert len(server.translator.submissions) == 4
        server.translator.gate.set()
        assert len(await results(call)) == 50

    with_server(check, Limits(max_stream_texts=4))


def test_an_overloaded_server_reads_more_slowly_instead_of_refusing_a_text():
    async def check(server: Running) -> None:
        server.translator.refusal = Overloaded("the queue is full", retry_after_s=0.01)
        call = server.stub.TranslateStream(iter([CONFIG, item("1", "a"), item("2", "b")]))
        await asyncio.sleep(0.05)  # would be enough to refuse both
        server.translator.refusal = None
        found = await results(call)
        assert {name: result.translation.text for name, result in found.items()} == {"1": "A", "2": "B"}

    with_server(check)


def test_a_stream_that_is_not_used_is_ended():
    async def check(server: Running) -> None:
        call = server.stub.TranslateStream()
        await call.write(CONFIG)
        await call.write(item("1", "a"))
        assert (await call.read()).result.translation.text == "A"
        with pytest.raises(grpc.aio.AioRpcError, match="for 1 s; open a new stream") as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    with_server(check, Limits(max_stream_idle_s=1))


def test_a_stream_without_a_first_message_is_ended():
    async def check(server: Running) -> None:
        silent = server.stub.TranslateStream()
        with pytest.raises(grpc.aio.AioRpcError, match="no first message was sent for 1 s") as caught:
            await silent.read()
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert server.server._admission.num_open == 0

    with_server(check, Limits(max_stream_idle_s=1))


def test_a_stream_without_a_first_message_does_not_hold_up_the_end():
    async def check(server: Running) -> None:
        silent = server.stub.TranslateStream()
        reading = asyncio.ensure_future(silent.read())
        while not server.server._admission.num_open:
            await asyncio.sleep(0.01)
        assert await server.server.drain(5)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await reading
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

    with_server(check)


def test_a_stream_that_waits_for_the_engine_is_not_idle():
    async def check(server: Running) -> None:
        server.translator.gate.clear()
        call = server.stub.TranslateStream()
        await call.write(CONFIG)
        await call.write(item("1", "a"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(reading := asyncio.ensure_future(call.read())), 1.6)
        server.translator.gate.set()
        assert (await reading).result.translation.text == "A"

    with_server(check, Limits(max_stream_idle_s=1))


def test_a_caller_who_leaves_frees_all_open_texts():
    async def check(server: Running) -> None:
        server.translator.gate.clear()
        call = server.stub.TranslateStream()
        await call.write(CONFIG)
        await call.write(item("a", "a"))
        await asyncio.to_thread(server.translator.submitted.wait)
        call.cancel()
        assert await asyncio.to_thread(server.translator.cancelled.wait, 5)

    with_server(check)


def test_draining_answers_what_was_taken_and_then_ends_the_stream():
    async def check(server: Running) -> None:
        server.translator.gate.clear()
        call = server.stub.TranslateStream()
        await call.write(CONFIG)
        await call.write(item("a", "a"))
        await asyncio.to_thread(server.translator.submitted.wait)
        draining = asyncio.create_task(server.server.drain(5))
        await asyncio.sleep(0)
        server.translator.gate.set()
        assert (await call.read()).result.translation.text == "A"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert await draining

    with_server(check)


def asking(**options: int) -> pb.TranslateStreamRequest:
    config = pb.StreamConfig(target_language="fr", source_language="en", options=pb.DecodeOptions(**options))
    return pb.TranslateStreamRequest(config=config)


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([], "config"),
        ([item("a", "a")], "config"),
        ([pb.TranslateStreamRequest(config=pb.StreamConfig(target_language="fr"))], "config.source_language"),
        ([CONFIG, CONFIG], "text"),
        ([NOT_ITS_LANGUAGE], "config.source_language"),
        ([asking(max_length=257)], "config.options.max_length"),  # the model has 256
        ([asking(min_length=257)], "config.options.min_length"),
    ],
)
def test_a_broken_stream_is_refused(messages: list[pb.TranslateStreamRequest], field: str):
    async def check(server: Running) -> None:
        call = server.stub.TranslateStream(iter(messages))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await results(call)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert (caught.value.details() or "").startswith(f"{field}:")

    with_server(check)


def test_an_unexpected_exception_ends_the_stream_with_internal():
    async def check(server: Running) -> None:
        server.translator.refusal = RuntimeError("a secret")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await results(server.stub.TranslateStream(iter([CONFIG, item("a", "a")])))
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert "secret" not in (caught.value.details() or "")

    with_server(check)


def test_unreadable_bytes_end_the_stream_with_invalid_argument():
    async def check(server: Running) -> None:
        raw = server.channel.stream_stream("/dragoman.v1.TranslationService/TranslateStream")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await results(raw(iter([CONFIG.SerializeToString(), b"\xff\xff"])))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    with_server(check)
