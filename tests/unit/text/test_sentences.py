"""Where sentences end: what the library says, and what becomes of what it cannot read."""

import pytest

from service.text import sentences
from service.text.sentences import sentence_spans


def found(text: str, language: str = "en") -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text, language)]


@pytest.mark.parametrize("space", ["\xa0", "\u202f", "\u3000", "\u2009", "\u1680"])
@pytest.mark.parametrize("language", ["en", "fr", "ru", "pt", "ja"])
def test_spaces_of_several_bytes_before_a_full_stop(space: str, language: str) -> None:
    """The library (1.0.32) panicked on them after a capital letter."""
    assert found(f"Plan B{space}. 1 + K{space}. Ok!", language)[-1].endswith("Ok!")
    assert "".join(found(f"Plan B{space}.", language)) == f"Plan B{space}."


class PanicException(BaseException):
    """As pyo3's, which is no Exception."""


@pytest.mark.parametrize("error", [PanicException("a slice"), UnicodeEncodeError("utf-8", "a", 0, 1, "surrogate")])
def test_line_that_the_library_cannot_read_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(language: str, text: str) -> list[str]:
        raise error

    monkeypatch.setattr(sentences.sentencex, "segment", fail)
    assert found("One. Two.\nThree.") == ["One. Two.", "Three."]


def test_pieces_that_do_not_add_up_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentences.sentencex, "segment", lambda language, text: ["One. ", "Tw"])
    assert found("One. Two.") == ["One. Two."]


def test_an_interrupt_is_no_panic(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(language: str, text: str) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(sentences.sentencex, "segment", interrupt)
    with pytest.raises(KeyboardInterrupt):
        found("One. Two.")
