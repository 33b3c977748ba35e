"""Windows, and how they go through an engine that answers at once: what is asked for, in which order, how often."""

from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from service.engine.request import TextResult
from service.errors import DragomanError, EngineFailure, InputError
from service.jobs import windows
from service.jobs.outcome_cache import OutcomeCache
from service.jobs.pipeline import Pipeline
from service.jobs.rows import Row
from service.jobs.source import Source
from service.jobs.text_engine import OnAnswer
from service.jobs.windows import MAX_WINDOW_BYTES, MAX_WINDOW_ROWS, Window, cut_windows
from tests.unit.transport.scripted_translator import result_of


class Engine:
    """Answers with what ``answer`` makes of a text, before submit() returns; ``texts`` are those it was asked for."""

    failure: DragomanError | None = None
    model: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, answer: Callable[[str], TextResult | DragomanError] = result_of) -> None:
        self.answer, self.texts = answer, list[str]()

    def submit(self, text: str, on_answer: OnAnswer) -> None:
        self.texts.append(text)
        on_answer(self.answer(text))

    def check_model(self) -> None: ...

    def close(self) -> None: ...


def rows_of(texts: Iterable[str]) -> list[Row]:
    return [Row(number, text) for number, text in enumerate(texts, start=1)]


def translated(engine: Engine, texts: Iterable[str], check: Callable[[], None] = lambda: None) -> Iterator[Window]:
    """Complete windows; ``check`` stands for that of the input files."""
    files = SimpleNamespace(check_unchanged=check, position=lambda: 0, is_standard_input=False)
    source = SimpleNamespace(files=files, rows=lambda first, last: rows_of(texts), state=lambda: "")
    pipeline = Pipeline(cast(Source, source), engine, OutcomeCache())
    try:
        yield from pipeline.completed(1, None)
    finally:
        pipeline.close()


def texts_of(found: Iterable[Window]) -> list[str | None]:
    return [outcome.text for window in found for _, outcome in window.pairs()]


@pytest.fixture
def _windows_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "MAX_WINDOW_ROWS", 1)


@pytest.mark.usefixtures("_windows_of_one")
def test_a_text_that_failed_is_tried_again_where_it_comes_again() -> None:
    answers = iter([EngineFailure(), result_of("a")])
    engine = Engine(lambda _: next(answers))
    assert texts_of(translated(engine, "aaa")) == [None, "A", "A"]
    assert engine.texts == ["a", "a"], "the third is known"


@pytest.mark.usefixtures("_windows_of_one")
def test_nothing_is_translated_of_an_input_that_has_changed() -> None:
    checks: Iterator[InputError | None] = iter([None, InputError("it changed")])

    def check() -> None:
        if (error := next(checks)) is not None:
            raise error

    engine = Engine()
    found = translated(engine, "abc", check)
    assert texts_of([next(found)]) == ["A"]
    with pytest.raises(InputError, match="it changed"):
        next(found)
    assert engine.texts == ["a"]


def test_the_longest_of_a_window_is_asked_for_first() -> None:
    engine = Engine()
    assert texts_of(translated(engine, ["bb", "a", "dddd", "ccc"])) == ["BB", "A", "DDDD", "CCC"]
    assert engine.texts == ["dddd", "ccc", "bb", "a"]


def sizes(rows: Iterable[Row]) -> list[int]:
    return [len(window) for window in cut_windows(rows)]


def test_a_window_ends_at_its_rows() -> None:
    assert sizes(rows_of("a" * (2 * MAX_WINDOW_ROWS + 1))) == [MAX_WINDOW_ROWS, MAX_WINDOW_ROWS, 1]
    assert sizes([]) == []


@pytest.mark.parametrize("is_raw", [False, True])
def test_a_window_ends_at_its_bytes(is_raw: bool) -> None:
    """Of the record where that is kept, else of the text."""

    def row(num_bytes: int) -> Row:
        return Row(1, "a", raw=b"x" * num_bytes) if is_raw else Row(1, "x" * num_bytes)

    quarter = MAX_WINDOW_BYTES // 4
    assert sizes([row(quarter)] * 9) == [4, 4, 1]
    assert sizes([row(quarter), row(5 * quarter), row(5 * quarter), row(1)]) == [2, 1, 1]
    assert sizes([Row(1, None)] * 9) == [9]
