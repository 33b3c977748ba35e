"""What a model is given to read, and what is written for it: as the bundle asks, every character in its place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.text.capitals import is_in_capitals
from service.text.reading import Reading

ENGLISH_FRENCH = Reading(True, False, "en-US", "fr")
QUOTES = Reading(plain_quotes=True)


@given(st.text(), st.text())
def test_nothing_is_touched_unless_the_bundle_asks(source: str, translation: str) -> None:
    off = Reading()
    assert (off.read(source), off.written(source, translation)) == (source, translation)
    assert off.read_target(source, translation) == translation
    if not is_in_capitals(source):
        assert ENGLISH_FRENCH.read(source) == source
        assert ENGLISH_FRENCH.written(source, translation) == translation
        assert ENGLISH_FRENCH.read_target(source, translation) == translation


@given(st.text(), st.text(), st.booleans(), st.booleans())
def test_every_character_keeps_its_place(source: str, translation: str, lowers: bool, plain: bool) -> None:
    reading = Reading(lowers, plain, "en", "de")
    assert len(reading.read(source)) == len(source)
    assert len(reading.read_target(source, translation)) == len(translation)
    assert len(reading.written(source, translation)) == len(translation)


def test_capitals_of_an_english_sentence() -> None:
    assert ENGLISH_FRENCH.read("WHAT DO I DO?") == "What do I do?"
    assert ENGLISH_FRENCH.written("WHAT DO I DO?", "Que fais-je ?") == "QUE FAIS-JE ?"


def test_a_given_translation_is_read_as_it_was_made() -> None:
    assert ENGLISH_FRENCH.read_target("OPEN THE DOOR!", "OUVREZ LA PORTE !") == "Ouvrez la porte !"
    assert ENGLISH_FRENCH.read_target("OPEN THE DOOR!", "Ouvrez la porte !") == "Ouvrez la porte !"
    assert ENGLISH_FRENCH.read_target("Open the door!", "OUVREZ LA PORTE !") == "OUVREZ LA PORTE !"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\u201cDon\u2019t,\u201d she said.", '"Don\'t," she said.'),
        ("\u201eNein\u201c, \u201aja\u2018", "\"Nein\", 'ja'"),
        ("« Non », 5\u2032 3\u2033", "« Non », 5\u2032 3\u2033"),
    ],
)
def test_plain_quotes(text: str, expected: str) -> None:
    assert QUOTES.read(text) == QUOTES.read_target("", text) == expected
    assert QUOTES.written(text, text) == text


def test_both() -> None:
    assert Reading(True, True, "en", "fr").read("I CAN\u2019T SEE!") == "I can't see!"
