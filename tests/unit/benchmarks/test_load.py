"""A server that fails is not measured as a slow one."""

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from benchmarks.open_loop import OpenLoop, Outcome
from benchmarks.report import numbers, some_of
from service.demo import free_port
from service.pb import translation_pb2 as pb
from service.pb import translation_pb2_grpc as pb_grpc

PEERS = "needs CTranslate2, which the extra 'peers' installs"


class Stub:
    """Answers every call with ``response``."""

    def __init__(self, response: pb.TranslateResponse) -> None:
        self.response = response

    async def Translate(self, request: pb.TranslateRequest, timeout: float) -> pb.TranslateResponse:  # noqa: N802
        return self.response


def phase_of(response: pb.TranslateResponse) -> Outcome:
    """A short phase whose calls are all answered with that."""

    async def phase() -> Outcome:
        client = OpenLoop("127.0.0.1:1", 1, 10, 1.0)
        client.stubs = [Stub(response)]  # type: ignore[list-item]
        outcome = await client.phase(["a text"], 200.0, 0.1, seed=1)
        await client.close()
        return outcome

    return asyncio.run(phase())


def test_a_text_that_failed_is_no_answer() -> None:
    good = phase_of(pb.TranslateResponse(results=[pb.TextResult(translation=pb.Translation(text="bonjour"))]))
    assert len(good.latencies_s) == good.num_sent > 5
    assert not good.errors
    bad = phase_of(pb.TranslateResponse(results=[pb.TextResult(error=pb.TextError(code=13, reason="INTERNAL"))]))
    assert not bad.latencies_s
    assert bad.failures() == {"text: INTERNAL": bad.num_sent}


def test_only_load_may_be_the_reason_of_an_error() -> None:
    outcome = Outcome(1.0, 1.0, errors={"RESOURCE_EXHAUSTED": 3, "DEADLINE_EXCEEDED": 2, "UNAVAILABLE": 1})
    assert outcome.failures() == {"UNAVAILABLE": 1}


def test_a_contender_that_fails_ends_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ctranslate2", reason=PEERS)
    from benchmarks import load

    class Failing:
        async def phase(self, *_: Any, **__: Any) -> Outcome:
            return Outcome(1.0, 1.0, num_sent=1, errors={"UNAVAILABLE": 1})

    monkeypatch.setattr(load, "PAUSE_S", 0.0)
    contender = load.Contender("static ctranslate2", Failing())  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="static ctranslate2 failed at 5.0 calls/s.*UNAVAILABLE"):
        asyncio.run(contender.phase(5.0, argparse.Namespace(duration_s=1.0, seed=1), ["a text"], 0))


def test_what_makes_a_best_rate_doubtful_is_said() -> None:
    pytest.importorskip("ctranslate2", reason=PEERS)
    from benchmarks.load import doubts

    rows = [
        {"system": system, "rate": rate, "kept": kept, "overload": overload, "num_sent": int(rate * 20)}
        for system, rate, kept, overload in [
            ("a", 10.0, True, False),
            ("a", 20.0, True, False),
            ("a", 40.0, False, True),
        ]
        + [("b", 10.0, True, False), ("b", 20.0, False, False), ("b", 20.0, False, True)]
    ]
    said = doubts(rows, 2.0, phases=2)
    assert "factor of 2" in said[0]
    assert said[1:] == ["a kept even the last rate."]
    assert "a phase of 50 calls is its slowest" in doubts(rows, 2.0, phases=4)[-1]


def test_a_front_whose_lane_fails_ends_with_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ctranslate2", reason=PEERS)
    from benchmarks import static_front

    class Broken:
        def translate(self, texts: Sequence[str], num_beams: int, max_length: int) -> Any:
            raise ValueError("this engine is broken")

        def close(self) -> None:
            pass

    address = f"127.0.0.1:{free_port()}"
    given = argparse.Namespace(listen=address, lanes=2, num_beams=1, max_length=9, window_ms=1.0, max_batch=4)
    given.max_queue, given.model = 16, Path()
    monkeypatch.setattr(static_front, "system_of", lambda _: Broken())

    async def call() -> None:
        front = asyncio.create_task(static_front.run(given))
        async with grpc.aio.insecure_channel(address) as channel:
            stub: Any = pb_grpc.TranslationServiceStub(channel)  # type: ignore[no-untyped-call]
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Translate(pb.TranslateRequest(texts=["a text"]), timeout=30, wait_for_ready=True)
        await front

    with pytest.raises(ValueError, match="this engine is broken"):
        asyncio.run(call())


def test_wrong_words_of_options_are_named() -> None:
    assert some_of(("a b", "c"))("c,a b") == ["c", "a b"]
    with pytest.raises(argparse.ArgumentTypeError, match="'d' is none of a b, c"):
        some_of(("a b", "c"))("c,d")
    with pytest.raises(argparse.ArgumentTypeError, match="0 must be >= 1"):
        numbers("8,0")


def test_best_rates_for_shorter_objectives() -> None:
    pytest.importorskip("ctranslate2", reason=PEERS)
    from benchmarks.load import by_objective

    def row(system: str, rate: float, p99_ms: float | str, overload: bool = False) -> dict[str, Any]:
        return {"system": system, "rate": rate, "p99_ms": p99_ms, "overload": overload}

    rows = [row("a", 10.0, 120.0), row("a", 20.0, 240.0), row("a", 30.0, "no answer"), row("a", 60.0, 90.0, True)]
    rows += [row("b", 10.0, 260.0), row("b", 20.0, 290.0), row("b", 30.0, 500.0)]
    assert by_objective(rows, 400.0) == [
        {"objective_ms": 150, "a": 10.0, "b": None},
        {"objective_ms": 200, "a": 10.0, "b": None},
        {"objective_ms": 250, "a": 20.0, "b": None},
        {"objective_ms": 300, "a": 20.0, "b": 20.0},
        {"objective_ms": 400, "a": 20.0, "b": 20.0},
    ]
