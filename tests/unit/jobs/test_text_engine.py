"""An engine in this process that is full, that fails, or that closes: none of that is said of a row."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.decoding.options import DecodeOptions
from service.engine.settings import EngineSettings
from service.errors import Cancelled, Draining, EngineFailure, Overloaded, RequestError
from service.jobs.text_engine import EmbeddedEngine
from tests.unit.jobs.conftest import Batch
from tests.unit.transport.scripted_translator import ScriptedTicket, ScriptedTranslator, refuse_at_first

TEXTS = "one\ntwo\nthree\n"


def test_an_engine_that_is_full_is_asked_again(batch: Batch, monkeypatch: pytest.MonkeyPatch):
    refusals: list[RequestError] = [Overloaded("the queue is full", 0.001)] * 2
    refuse_at_first(monkeypatch, refusals)
    Path("in.txt").write_text(TEXTS)
    assert batch("in.txt", "out.txt") == 0
    assert Path("out.txt").read_text() == TEXTS.upper()
    assert refusals == []


@pytest.mark.parametrize("is_refused", [False, True])
def test_a_failed_engine_ends_the_job_before_its_rows_fail(
    is_refused: bool,
    batch: Batch,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """It answers all it has, or refuses the only one; the same command does these rows once more."""
    content = "one\n" if is_refused else TEXTS
    taken: list[Callable[[int, EngineFailure], None]] = []

    def submit(translator: ScriptedTranslator, *arguments: Any, **named: Any) -> ScriptedTicket:
        taken.append(arguments[2])
        if len(taken) == len(content.split()):
            translator.engine.failure = RuntimeError("the device is lost")
            if is_refused:
                raise EngineFailure()
            for answer in taken:
                answer(0, EngineFailure())
        return ScriptedTicket(lambda: None)

    Path("in.txt").write_text(content)
    with monkeypatch.context() as patch:
        patch.setattr(ScriptedTranslator, "submit", submit)
        assert batch("in.txt", "out.txt") == 1
    assert "the engine failed; its log line says why" in capsys.readouterr().err
    assert not Path("out.txt").exists()
    assert not Path("out.txt.errors.jsonl").exists()
    assert batch("in.txt", "out.txt") == 0
    assert Path("out.txt").read_text() == content.upper()


@pytest.mark.usefixtures("batch")  # the folder, and the bundle in it
@pytest.mark.parametrize("end", [Draining("the engine closes"), Cancelled("cancelled")])
def test_what_an_engine_that_closes_says_is_no_answer(end: RequestError, translator: ScriptedTranslator):
    translator.answers |= {"left": end, "failed": EngineFailure()}
    engine = EmbeddedEngine(Path("bundle"), EngineSettings(), None, "fr", DecodeOptions())
    found: dict[str, object] = {}
    for text in ("left", "failed", "done"):
        engine.submit(text, lambda answer, text=text: found.update({text: answer}))  # type: ignore[misc]
    engine.close()
    assert sorted(found) == ["done", "failed"], "one text that breaks the engine is told of: the engine goes on"
