"""What one client may have open: calls, tokens; and that others do not feel it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from service.errors import EngineFailure, Overloaded, QuotaExceeded
from service.metrics import Metrics
from service.pb import translation_pb2 as pb
from service.transport.callers import Caller
from service.transport.quotas import Quotas
from service.transport.security import SecurityOptions
from tests.unit.transport.running_server import Running, request, with_server
from tests.unit.transport.test_score import score_request
from tests.unit.transport.test_translate import details, failure
from tests.unit.transport.test_translate_stream import CONFIG

ONE, TWO = ("authorization", "Bearer one-0123456789abcdef"), ("authorization", "Bearer two-0123456789abcdef")


@pytest.fixture
def clients(tmp_path: Path) -> str:
    """A character is a token of the scripted translator."""
    file = tmp_path / "clients.toml"
    file.write_text(
        '[one]\ntokens = ["one-0123456789abcdef"]\n'
        '[two]\ntokens = ["two-0123456789abcdef"]\nmax_open_calls = 1\nmax_open_tokens = 2\n'
    )
    return str(file)


def numbers(error: grpc.aio.AioRpcError) -> dict[str, str]:
    """Those of the message, for programs."""
    return dict(details(error)["ErrorInfo"].metadata)


async def code_of(call: "grpc.aio.Call") -> str:
    return str((await call.code()).name)


def test_calls_of_one_client_are_bounded(clients: str):
    async def check(server: Running) -> None:
        translate = server.stub.Translate
        server.translator.gate.clear()
        held = [translate(request("a"), metadata=[ONE]) for _ in range(2)]
        held.append(translate(request("a"), metadata=[TWO]))
        while len(server.translator.submissions) < 3:
            await asyncio.sleep(0.005)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await translate(request("a"), metadata=[ONE])
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert caught.value.details() == "this client has 2 calls open; at most 2 may be"
        assert dict(caught.value.trailing_metadata())["grpc-retry-pushback-ms"] == "1000"
        assert numbers(caught.value) == {"open_calls": "2", "max_open_calls": "2", "retry_after_ms": "1000"}
        assert await code_of(translate(request("a"), metadata=[TWO])) == "RESOURCE_EXHAUSTED"
        server.translator.gate.set()
        assert [await code_of(call) for call in held] == ["OK"] * 3
        assert await code_of(translate(request("a"), metadata=[ONE])) == "OK"
        assert server.sample("dragoman_rejected_total", reason="client_calls") == 2

    with_server(check, security=SecurityOptions(clients=clients, max_client_calls=2))


def test_tokens_of_one_client_are_bounded(clients: str):
    async def check(server: Running) -> None:
        translate = server.stub.Translate
        server.translator.gate.clear()
        held = translate(request("aaa"), metadata=[ONE])
        while not server.translator.submissions:
            await asyncio.sleep(0.005)
        refused = translate(request("bbb"), metadata=[ONE])
        assert await code_of(refused) == "RESOURCE_EXHAUSTED"
        assert "this client has 3 source tokens open and sent 3; at most 5 of" in str(await refused.details())
        assert await code_of(translate(request("ccc"), metadata=[TWO])) == "INVALID_ARGUMENT"  # never fits
        server.translator.gate.set()
        assert await code_of(held) == "OK"
        assert await code_of(translate(request("bbb"), metadata=[ONE])) == "OK"
        assert await code_of(translate(request("cc"), metadata=[TWO])) == "OK"
        assert server.sample("dragoman_rejected_total", reason="client_tokens") == 2

    with_server(check, security=SecurityOptions(clients=clients, max_client_tokens=5))


def test_what_can_never_be_taken_is_told_with_its_field_and_numbers():
    async def check(server: Running) -> None:
        for refused, field in (
            (server.stub.Translate(request("aaaa")), "texts"),
            (server.stub.Score(score_request("a")), "pairs"),
        ):
            error = await failure(refused)
            assert [violation.field for violation in details(error)["BadRequest"].field_violations] == [field]
            assert numbers(error) == {"value": "4", "max": "3"}
        text = pb.TranslateStreamRequest(text=pb.StreamText(id="1", text="aaaa"))
        [response] = [response async for response in server.stub.TranslateStream(iter([CONFIG, text]))]
        assert response.result.error.field == "text.text"
        server.translator.gate.clear()
        held = server.stub.Translate(request("aa"))
        await asyncio.to_thread(server.translator.submitted.wait)
        full = numbers(await failure(server.stub.Translate(request("bb"))))
        assert full == {"open_tokens": "2", "sent_tokens": "2", "max_open_tokens": "3", "retry_after_ms": "1000"}
        server.translator.gate.set()
        await held

    with_server(check, security=SecurityOptions(max_client_tokens=3))


def test_a_stream_gives_back_what_each_text_took(clients: str):
    async def check(server: Running) -> None:
        async def texts() -> object:
            config = pb.StreamConfig(source_language="en", target_language="fr")
            yield pb.TranslateStreamRequest(config=config)
            for name in "abcdef":
                yield pb.TranslateStreamRequest(text=pb.StreamText(id=name, text="xx"))
                while not any(response.id == name for response in responses):
                    await asyncio.sleep(0.001)

        responses: list[pb.TranslateStreamResponse] = []
        async for response in server.stub.TranslateStream(texts(), metadata=[TWO]):
            responses.append(response)
        assert [response.result.translation.text for response in responses] == ["XX"] * 6

    with_server(check, security=SecurityOptions(clients=clients))


def test_a_text_of_a_stream_that_waits_for_its_own_client_is_not_counted_as_refused():
    """The stream is read more slowly instead; what can never be taken is refused, and counted."""

    async def check(server: Running) -> None:
        async def texts() -> AsyncIterator[pb.TranslateStreamRequest]:
            yield pb.TranslateStreamRequest(config=pb.StreamConfig(source_language="en", target_language="fr"))
            for text in ("aa", "bb", "cccc"):
                yield pb.TranslateStreamRequest(text=pb.StreamText(id=text, text=text))

        def submit(texts: list[str], *arguments: Any, **named: Any) -> Any:
            tries[texts[0]] += 1
            if tries["bb"] == 2:
                server.translator.gate.set()
            return answered(texts, *arguments, **named)

        tries, answered = Counter[str](), server.translator.submit
        server.translator.submit = submit  # type: ignore[method-assign,assignment]
        server.translator.gate.clear()
        call = server.stub.TranslateStream(texts())
        found = {response.id: response.result.WhichOneof("outcome") async for response in call}
        assert found == {"aa": "translation", "bb": "translation", "cccc": "error"}
        assert server.sample("dragoman_rejected_total", reason="client_tokens") == 1

    with_server(check, security=SecurityOptions(max_client_tokens=3))


def test_what_was_refused_or_cancelled_is_given_back():
    async def check(server: Running) -> None:
        server.translator.refusal = Overloaded("full", 1.0)
        for _ in range(3):
            assert await code_of(server.stub.Translate(request("aaa"))) == "RESOURCE_EXHAUSTED"
        server.translator.refusal = None
        server.translator.gate.clear()
        call = server.stub.Translate(request("aaa"))
        await asyncio.to_thread(server.translator.submitted.wait)
        call.cancel()
        await asyncio.to_thread(server.translator.cancelled.wait)
        server.translator.gate.set()
        assert await code_of(server.stub.Translate(request("aaa"))) == "OK"
        assert server.sample("dragoman_rejected_total", reason="client_tokens") == 0

    with_server(check, security=SecurityOptions(max_client_tokens=3))


def test_scores_count_as_translations_do():
    """The source's tokens; given back with the answer, a refusal, or the caller's leaving."""

    async def check(server: Running) -> None:
        score, wide = server.stub.Score, score_request("a", "b")  # 4 source tokens each
        server.translator.gate.clear()
        held = score(wide)
        await asyncio.to_thread(server.translator.submitted.wait)
        refused = score(score_request("a"))
        assert await code_of(refused) == "RESOURCE_EXHAUSTED"
        assert "this client has 8 source tokens open and sent 4; at most 9" in str(await refused.details())
        assert await code_of(server.stub.Translate(request("aa"))) == "RESOURCE_EXHAUSTED"
        held.cancel()
        await asyncio.to_thread(server.translator.cancelled.wait)
        server.translator.gate.set()
        server.translator.answers["bad"] = EngineFailure()
        server.translator.refusal = Overloaded("full", 1.0)
        assert await code_of(score(wide)) == "RESOURCE_EXHAUSTED"
        server.translator.refusal = None
        for targets in (("a", "bad"), ("a", "b")):
            assert await code_of(score(score_request(*targets))) == "OK"
        assert server.sample("dragoman_rejected_total", reason="client_tokens") == 2

    with_server(check, security=SecurityOptions(max_client_tokens=9))


def test_calls_of_every_method_count():
    async def check(server: Running) -> None:
        server.translator.gate.clear()
        held = server.stub.Score(score_request("a"))
        await asyncio.to_thread(server.translator.submitted.wait)
        assert await code_of(server.stub.Score(score_request("a"))) == "RESOURCE_EXHAUSTED"
        assert await code_of(server.stub.ListModels(pb.ListModelsRequest())) == "RESOURCE_EXHAUSTED"
        server.translator.gate.set()
        assert await code_of(held) == "OK"
        assert await code_of(server.stub.ListModels(pb.ListModelsRequest())) == "OK"

    with_server(check, security=SecurityOptions(max_client_calls=1))


def test_clients_without_a_name_are_told_apart_by_their_address_and_forgotten():
    quotas = Quotas(1, 1, Metrics().call_refused)
    shares = [quotas.open_call(Caller(f"ipv4:10.0.0.{number}", is_known=False)) for number in (1, 2)]
    shares.append(quotas.open_call(Caller("ipv4:10.0.0.1")))  # somebody whose certificate says so is somebody else
    assert len(quotas) == 3
    with pytest.raises(QuotaExceeded):
        quotas.open_call(Caller("ipv4:10.0.0.1"))
    for share in shares:
        quotas.close_call(share)
    assert len(quotas) == 0
