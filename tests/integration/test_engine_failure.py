"""A worker that fails: the engine says so before anybody hears of it in another way."""

import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from service.engine.engine import Engine
from service.engine.translator import Translator
from service.engine.worker import Worker
from service.errors import BundleError, ConfigurationError, DragomanError, EngineFailure
from service.jobs.text_engine import EmbeddedEngine
from service.runtime.session import BoundShape, Candidates, Sessions
from tests.integration.gated_engine import GREEDY, SETTINGS, Answers, long_texts


def fail(*_: object) -> None:
    raise RuntimeError("the device is lost")


def test_what_a_failing_engine_was_working_on_is_no_failed_row(
    nonsense_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job would write it, and never do it again."""
    engine = EmbeddedEngine(nonsense_bundle, SETTINGS, None, "fr", GREEDY)
    answers: list[object] = []
    monkeypatch.setattr(BoundShape, "run", fail)
    engine.submit("the red house", answers.append)
    assert engine.translator.engine.failed.wait(10)
    assert isinstance(engine.failure, DragomanError)
    engine.close()
    assert answers == []


def test_sentences_that_have_ended_are_answered_if_the_worker_fails_then(
    load: Callable[..., Translator], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two end in the same step; their rows are free already."""
    translator, answers = load(num_workers=1), Answers(2)
    monkeypatch.setattr(Worker, "hypotheses", fail)
    translator.submit(["the red house"] * 2, GREEDY, answers)
    answers.wait()
    assert answers.kinds() == {EngineFailure: 2}


def test_what_other_workers_were_working_on_fails_too(
    load: Callable[..., Translator], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process ends, but in no orderly way: the caller is not told to send it again at once."""
    translator = load(num_workers=2)
    both, answers = threading.Barrier(2, timeout=30), Answers(2)
    original, turns = BoundShape.run, count()

    def run(shape: BoundShape) -> Candidates:
        both.wait()
        if next(turns) == 0:
            fail()
        assert translator.engine.failed.wait(30)
        return original(shape)

    texts = long_texts(translator, 2)
    monkeypatch.setattr(BoundShape, "run", run)
    translator.submit(texts, GREEDY, answers)
    answers.wait()
    assert answers.kinds() == {EngineFailure: 2}


def test_a_worker_that_cannot_warm_up_is_not_taken_for_ready(
    load: Callable[..., Translator], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for it may run before it has come to anything else."""
    has_started = threading.Event()
    monkeypatch.setattr(Worker, "abandon", lambda *_: has_started.wait(10))
    monkeypatch.setattr(Sessions, "warm_up", fail)
    engine = load_unstarted(load, monkeypatch)
    try:
        with pytest.raises(ConfigurationError, match="the device is lost"):
            engine.start()
    finally:
        has_started.set()


def test_what_a_model_held_is_given_back_where_its_score_graph_cannot_be_loaded(
    nonsense_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a device its caches would stay, and the next model has less."""
    closed: list[bool] = []
    monkeypatch.setattr(Sessions, "close", lambda _, has_failed: closed.append(has_failed))
    monkeypatch.setattr("service.engine.translator.ScoreSession", refuse)
    with pytest.raises(BundleError, match=r"score\.onnx cannot be loaded"):
        Translator.load(nonsense_bundle, SETTINGS)
    assert closed == [False]


def refuse(path: Path, *_: object) -> None:
    raise BundleError(f"{path} cannot be loaded")


def load_unstarted(load: Callable[..., Translator], monkeypatch: pytest.MonkeyPatch) -> Engine:
    with monkeypatch.context() as patched:
        patched.setattr(Engine, "start", lambda _: None)
        patched.setattr(Translator, "replay", lambda *_: None)
        return load().engine
