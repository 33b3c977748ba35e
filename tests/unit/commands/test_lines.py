"""Lines through a running service that fails meanwhile: each answered once, in order, or an end that says how far."""

import asyncio
import io
import threading
from collections.abc import Callable, Iterator
from unittest.mock import Mock

import pytest

from service import cli, remote_engine
from service.client import Client, ServiceError
from service.commands.lines import RemoteLines, only_source
from service.decoding.options import DecodeOptions
from service.engine.request import Priority, TextResult
from service.errors import ConfigurationError, Overloaded
from service.pb import translation_pb2 as pb
from tests.unit.transport.running_server import Running, running_on_thread

TEXTS = [f"text {number}" for number in range(300)]
EXPECTED = [text.upper() for text in TEXTS]


@pytest.fixture(autouse=True)
def _short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_engine, "FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(remote_engine, "MAX_DELAY_S", 0.05)


@pytest.fixture
def server() -> Iterator[Running]:
    with running_on_thread() as running:
        yield running


@pytest.fixture
def run(server: Running, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`dragoman translate` of some lines through the server."""

    def start(*flags: str, lines: list[str]) -> int:
        content = "".join(f"{line}\n" for line in lines).encode()
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        return cli.main(["translate", "--to", "fr", "--target", server.address, *flags])

    return start


def break_off(running: Running) -> None:
    """As when the drain takes longer than its grace: what is open ends with UNAVAILABLE."""
    for step in (running.server.announce_end(), running.server.drain(0), running.server.settle()):
        asyncio.run_coroutine_threadsafe(step, running.loop).result(10)


def test_a_replica_that_leaves_hands_its_lines_to_another():
    breaks: list[ServiceError] = []
    is_full, is_refusing = threading.Event(), threading.Event()

    def texts() -> Iterator[str]:
        yield from TEXTS[:50]
        is_full.wait(30)
        yield from TEXTS[50:]

    def refuse(*_: object, **__: object) -> None:
        is_refusing.set()
        raise Overloaded("the queue is full", 0.01)  # read, but not taken

    with (
        running_on_thread() as first,
        running_on_thread() as second,
        RemoteLines(f"ipv4:{first.address},{second.address}", "en", "fr", on_break=breaks.append) as lines,
    ):
        answers = lines.translate(texts(), DecodeOptions())
        found = [next(answers) for _ in range(50)]
        leaving, other = (first, second) if first.translator.submissions else (second, first)
        leaving.translator.submit = refuse  # type: ignore[method-assign,assignment]
        is_full.set()
        assert is_refusing.wait(30)
        break_off(leaving)
        found.extend(answers)
    assert [answer.text for answer in found if isinstance(answer, TextResult)] == EXPECTED
    assert sorted(texts for texts, *_ in other.translator.submissions) == sorted([text] for text in TEXTS[50:])
    assert {priority for _, _, priority, _ in other.translator.submissions} == {Priority.INTERACTIVE}
    assert [error.code for error in breaks] == ["UNAVAILABLE"]


def test_texts_refused_for_want_of_room_keep_their_place(
    run: Callable[..., int], server: Running, capsys: pytest.CaptureFixture[str]
):
    original, left = server.translator._answer, [20]

    def answer(text: str, *rest: object) -> object:
        if left[0] > 0:
            left[0] -= 1
            return Overloaded("the queue is full", 0.01)
        return original(text, *rest)  # type: ignore[arg-type]

    server.translator._answer = answer  # type: ignore[method-assign,assignment]
    assert run(lines=TEXTS) == 0
    printed = capsys.readouterr()
    assert (printed.out.splitlines(), printed.err) == (EXPECTED, "")


def test_streams_that_nobody_used_are_opened_again(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    original, broken = Client.stream, []

    def breaking(client: Client, *arguments: object, **named: object) -> Iterator[object]:
        for number, result in enumerate(original(client, *arguments, **named)):  # type: ignore[arg-type]
            yield result
            if number == 5 and len(broken) < 6:
                broken.append(number)
                raise ServiceError("DEADLINE_EXCEEDED", "no text was sent and no result taken for 300 s")

    monkeypatch.setattr(Client, "stream", breaking)
    assert run(lines=TEXTS) == 0
    assert len(broken) == 6
    printed = capsys.readouterr()
    assert printed.out.splitlines() == EXPECTED
    assert printed.err.count("DEADLINE_EXCEEDED: no text was sent") == 6
    assert printed.err.count("texts without an answer are sent again") == 6


def test_the_end_of_patience_says_how_many_lines_there_are(
    run: Callable[..., int], server: Running, capsys: pytest.CaptureFixture[str]
):
    original, is_over = server.translator._answer, threading.Event()

    def answer(text: str, *rest: object) -> object:
        if text == "text 3":
            is_over.wait(30)
        return original(text, *rest)  # type: ignore[arg-type]

    server.translator._answer = answer  # type: ignore[method-assign,assignment]
    assert run("--patience-s", "1", lines=TEXTS[:5]) == 1
    is_over.set()
    printed = capsys.readouterr()
    assert printed.out.splitlines() == EXPECTED[:3]
    assert "ended after 3 lines were written\n" in printed.err
    assert "UNAVAILABLE: no answer for 1 s; the last refusal was: none" in printed.err


def test_a_service_that_is_not_there_is_not_waited_for(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["translate", "--from", "en", "--to", "fr", "--target", "127.0.0.1:1", "a"]) == 1
    assert "UNAVAILABLE" in capsys.readouterr().err


def test_another_model_does_not_go_on_with_the_lines(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    versions = iter("12")
    monkeypatch.setattr(
        remote_engine.RemoteEngine,
        "_inspect",
        lambda _: (
            {"name": "m", "version": next(versions), "precision": "p", "languages": "en to fr"},
            pb.Limits(max_text_characters=1000),
        ),
    )

    def breaking(*arguments: object, **named: object) -> Iterator[object]:
        raise ServiceError("UNAVAILABLE", "the server is shutting down")
        yield

    monkeypatch.setattr(Client, "stream", breaking)
    assert run("--from", "en", lines=["a"]) == 78
    printed = capsys.readouterr().err
    assert "ended after 0 lines were written" in printed
    assert "the service now has m version 2 (p, en to fr); it was begun with m version 1 (p, en to fr)" in printed


@pytest.mark.parametrize("patience", ["0", "-1", "nan", "long"])
def test_patience_is_some_time(patience: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["translate", "--to", "fr", "--target", "h:1", "--patience-s", patience, "a"])
    assert "must be a number of seconds > 0" in capsys.readouterr().err


def test_all_languages_of_the_models_are_named_where_one_is_to_be_chosen():
    several = pb.Model(source_language="en", source_languages=["en", "de"], target_languages=["fr", "es"])
    client = Mock(list_models=lambda: pb.ListModelsResponse(models=[several]))
    with pytest.raises(ConfigurationError, match="say with --from .* has en or de to fr or es"):
        only_source(client, "fr")
    with pytest.raises(ConfigurationError, match="no model to pl; it has en or de to fr or es"):
        only_source(client, "pl")
