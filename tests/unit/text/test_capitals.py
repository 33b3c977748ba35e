"""Sentences in capitals: which they are, what is read instead, and that every character keeps its place."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.text.capitals import is_in_capitals, lowered, raised

LANGUAGES = st.sampled_from(["en", "fr", "de", "tr", "el", "ja", ""])


@pytest.mark.parametrize("text", ["WHERE IS IT?", "HELLO!", "2 DOGS, 3 CATS", "ÇA VA MAL", "ДВЕРЬ ОТКРЫТА", "I AM OK"])
def test_these_are_in_capitals(text: str) -> None:
    assert is_in_capitals(text)


@pytest.mark.parametrize(
    "text", ["NATO", "EU, UN", "F-16", "I AM", "Hello", "HELLO you", "日本", "42", "", "Ⓐ Ⓑ", "A1 B2"]
)
def test_these_are_not(text: str) -> None:
    assert not is_in_capitals(text)


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("WHERE IS THE STATION?", "en", "Where is the station?"),
        ("TOM AND I, I'M SURE", "en", "Tom and I, I'm sure"),
        ("¿DÓNDE ESTÁ?", "es", "¿Dónde está?"),
        ("“HELP ME”", "en", "“Help me”"),
        ("KIŞIN ISINDI, İYİ", "tr", "Kışın ısındı, iyi"),
        ("Ο ΔΡΟΜΟΣ", "el", "Ο δρομος"),
    ],
)
def test_what_is_read(text: str, language: str, expected: str) -> None:
    assert lowered(text, language) == expected


def test_what_is_written() -> None:
    assert raised("où est la gare ? l'été, œuvre", "fr") == "OÙ EST LA GARE ? L'ÉTÉ, ŒUVRE"
    assert raised("straße ﬁx", "de") == "STRAẞE ﬁX"
    assert raised("istanbul ılık", "tr") == "İSTANBUL ILIK"


@given(st.text(), LANGUAGES)
@example("İ HAVE A DOG", "en")
@example("ŉ ǰ ΐ ß", "de")
def test_every_character_keeps_its_place(text: str, language: str) -> None:
    assert len(raised(text, language)) == len(text)
    if text.isupper():
        small = lowered(text, language)
        assert len(small) == len(text)
        assert [a for a, b in zip(text, small, strict=True) if a != b and not a.isupper() and a not in "Iİ"] == []
