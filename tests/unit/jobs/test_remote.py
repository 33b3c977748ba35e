"""A running service as the engine: the same bytes, refusals tried again, and an end where nothing helps."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service import remote_engine
from service.client import Client, ServiceError
from service.commands import batch as batch_command
from service.engine.request import Priority
from service.errors import EngineFailure, Overloaded
from service.pb import translation_pb2 as pb
from tests.unit.jobs.conftest import Batch
from tests.unit.transport.running_server import Running, running_on_thread

NUM_ROWS = 300


@pytest.fixture
def server() -> Iterator[Running]:
    with running_on_thread() as running:
        yield running


@pytest.fixture(autouse=True)
def _short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_engine, "FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(remote_engine, "MAX_DELAY_S", 0.05)


@pytest.fixture
def run(batch: Batch, server: Running) -> Callable[..., int]:
    """Runs a job on as many rows as NUM_ROWS on the server."""

    def start(*flags: str, output: str = "out.jsonl") -> int:
        Path("in.txt").write_text("".join(f"text {number}\n" for number in range(NUM_ROWS)))
        return batch("in.txt", output, "--target", server.address, *flags)

    return start


def translations(output: str = "out.jsonl") -> list[str | None]:
    return [json.loads(line)["translation"] for line in Path(output).read_text().splitlines()]


EXPECTED = [f"TEXT {number}" for number in range(NUM_ROWS)]


def test_the_bytes_of_the_embedded_engine(run: Callable[..., int], batch: Batch, server: Running):
    assert run() == 0
    assert translations() == EXPECTED
    assert {priority for _, _, priority, _ in server.translator.submissions} == {Priority.BATCH}
    assert batch("in.txt", "embedded.jsonl") == 0
    assert Path("out.jsonl").read_bytes() == Path("embedded.jsonl").read_bytes()


@pytest.mark.parametrize(("flags", "expected"), [(["--streams", "2"], 2), ([], 4)])
def test_as_many_streams_as_were_asked_for(
    run: Callable[..., int], flags: list[str], expected: int, monkeypatch: pytest.MonkeyPatch
):
    asked: list[int] = []

    def engine(*arguments: Any, num_streams: int, **named: Any) -> remote_engine.RemoteEngine:
        asked.append(num_streams)
        return remote_engine.RemoteEngine(*arguments, num_streams=num_streams, **named)

    monkeypatch.setattr(batch_command, "RemoteEngine", engine)
    assert run(*flags) == 0
    assert asked == [expected]


def test_texts_refused_for_want_of_room_are_sent_again(run: Callable[..., int], server: Running):
    original, left = server.translator._answer, [20]

    def answer(text: str, *rest: object) -> object:
        if left[0] > 0:
            left[0] -= 1
            return Overloaded("the queue is full", 0.01)
        return original(text, *rest)  # type: ignore[arg-type]

    server.translator._answer = answer  # type: ignore[method-assign,assignment]
    assert run() == 0
    assert translations() == EXPECTED


def test_streams_that_break_are_opened_again(run: Callable[..., int], monkeypatch: pytest.MonkeyPatch):
    original, broken = Client.stream, []

    def breaking(client: Client, *arguments: object, **named: object) -> Iterator[object]:
        for number, result in enumerate(original(client, *arguments, **named)):  # type: ignore[arg-type]
            yield result
            if number == 5 and len(broken) < 6:
                broken.append(number)
                raise ServiceError("UNAVAILABLE", "the connection broke", 0.01)

    monkeypatch.setattr(Client, "stream", breaking)
    assert run() == 0
    assert len(broken) == 6
    assert translations() == EXPECTED


def test_a_text_that_breaks_the_engine_fails_alone(run: Callable[..., int], server: Running):
    server.translator.answers["text 7"] = EngineFailure()
    assert run() == 1
    assert translations() == [None if text == "TEXT 7" else text for text in EXPECTED]
    assert json.loads(Path("out.jsonl.errors.jsonl").read_text())["row"] == 8
    assert sum(texts == ["text 7"] for texts, *_ in server.translator.submissions) == remote_engine.MAX_TRIES


def test_a_service_that_gives_no_answers_ends_the_job(
    run: Callable[..., int], server: Running, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def refuse(*arguments: object, **named: object) -> Iterator[object]:
        raise ServiceError("UNAVAILABLE", "nobody is there")

    with monkeypatch.context() as patch:
        patch.setattr(Client, "stream", refuse)
        assert run("--patience-s", "0.1") == 1
    assert "no answer for 0.1 s; the last refusal was: UNAVAILABLE: nobody is there" in capsys.readouterr().err
    server.translator.gate.clear()
    assert run("--patience-s", "0.1") == 1
    assert "no answer for 0.1 s" in capsys.readouterr().err
    server.translator.gate.set()
    assert run() == 0
    assert translations() == EXPECTED


def test_a_service_that_is_not_there(batch: Batch, capsys: pytest.CaptureFixture[str]):
    Path("in.txt").write_text("a\n")
    assert batch("in.txt", "out.txt", "--target", "127.0.0.1:1") == 1
    assert "the service at 127.0.0.1:1 does not answer: UNAVAILABLE" in capsys.readouterr().err
    assert not Path("out.txt.job").exists()


def test_a_service_is_not_asked_where_there_is_nothing_to_do(batch: Batch):
    Path("in.txt").write_text("a\n")
    Path("out.txt").write_text("A\n")
    assert batch("in.txt", "out.txt", "--target", "127.0.0.1:1", "--if-exists", "skip") == 0
    assert batch("in.txt", "new.txt", "--target", "127.0.0.1:1", "--beam", "99") == 2


def test_other_languages_are_refused(batch: Batch, server: Running, capsys: pytest.CaptureFixture[str]):
    Path("in.txt").write_text("a\n")
    assert batch("in.txt", "out.txt", "--target", server.address, "--from", "de") == 78
    assert "the service has no model from de to fr" in capsys.readouterr().err


def test_a_text_too_long_for_the_service_fails_alone(batch: Batch, server: Running):
    Path("in.txt").write_text("a" * 100_001 + "\nb\n")
    assert batch("in.txt", "out.jsonl", "--target", server.address) == 1
    assert translations() == [None, "B"]


def test_a_model_that_changes_while_the_job_runs_ends_it(
    run: Callable[..., int], server: Running, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    found = iter(
        [
            (
                {"name": "m", "version": "1", "precision": "p", "languages": "en to fr"},
                pb.Limits(max_text_characters=1000),
            ),
            (
                {"name": "m", "version": "2", "precision": "p", "languages": "en to fr"},
                pb.Limits(max_text_characters=1000),
            ),
        ]
    )
    monkeypatch.setattr(remote_engine.RemoteEngine, "_inspect", lambda _: next(found))
    assert run("--from", "en") == 78
    assert (
        "the service now has m version 2 (p, en to fr); it was begun with m version 1 (p, en to fr)"
        in capsys.readouterr().err
    )
    assert not Path("out.jsonl").exists()
