"""A client that measures nothing says so: a call that failed, or a text of it, ends it with the error."""

import argparse
from types import TracebackType
from typing import Any

import pytest

from benchmarks import overhead, texts
from service.client import ServiceError


class Caller:
    """Answers with what ``answers`` holds for a text, or raises it."""

    answers: dict[str, Any] = {}  # noqa: RUF012
    asked: list[str] = []  # noqa: RUF012

    def __init__(self, address: str) -> None:
        self.address = address

    def __enter__(self) -> "Caller":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def translate(self, sentences: list[str], **_: Any) -> list[Any]:
        self.asked.extend(sentences)
        answer = self.answers.get(sentences[0], "a translation")
        if isinstance(answer, OSError):
            raise answer
        return [answer]


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    sentences = [f"sentence {number}" for number in range(20)]
    monkeypatch.setattr(Caller, "asked", [])
    monkeypatch.setattr(Caller, "answers", {})
    monkeypatch.setattr(overhead, "Client", Caller)
    monkeypatch.setattr(texts, "choose", lambda *_: texts.Pairs(sentences, sentences))
    return argparse.Namespace(ask="an address", texts="mixed", count=20, beams=[1], clients=[4])


def test_every_sentence_is_asked_once(given: argparse.Namespace) -> None:
    assert overhead.ask(given) == 0
    assert sorted(Caller.asked) == sorted(texts.choose("mixed", 20, 1).sources)


@pytest.mark.parametrize("error", [OSError("no connection"), ServiceError("INTERNAL", "a text failed")])
def test_one_failure_among_many_is_an_error(given: argparse.Namespace, error: Exception) -> None:
    Caller.answers["sentence 7"] = error
    with pytest.raises(type(error)):
        overhead.ask(given)
