"""Sentences in capitals: which they are, and how they look in lower case and back.

Knows: letters. Does not know: why somebody asks. Every character keeps its place.
"""

import re

TURKIC = ("tr", "az")
TURKIC_LOWER = str.maketrans({"I": "\u0131", "\u0130": "i"})
TURKIC_UPPER = str.maketrans({"i": "\u0130", "\u0131": "I"})
SHARP_S = str.maketrans({"\u00df": "\u1e9e"})
ALWAYS_LARGE = {"en": re.compile(r"\bI\b")}
WORD = re.compile(r"[^\W\d_]+")
MIN_LETTERS = 5
"""What has fewer may be abbreviations: NATO, or EU, UN."""


def is_in_capitals(text: str) -> bool:
    """Whether a sentence is written in capitals throughout and is more than an abbreviation."""
    if not text.isupper():
        return False
    words = (word for word in WORD.findall(text) if word.isupper())
    return sum(map(len, words)) >= MIN_LETTERS


def lowered(text: str, language: str) -> str:
    """A sentence in capitals as it would begin and go on without them; as long as it was."""
    small = (text.translate(TURKIC_LOWER) if language in TURKIC else text).lower()
    if len(small) != len(text):
        small = "".join(letter.lower() if len(letter.lower()) == 1 else letter for letter in text)
    first = next(place for place, letter in enumerate(text) if letter.isupper())
    large = [match.start() for match in ALWAYS_LARGE[language].finditer(text)] if language in ALWAYS_LARGE else []
    letters = list(small)
    for place in (first, *large):
        letters[place] = text[place]
    return "".join(letters)


def raised(text: str, language: str) -> str:
    """A text in capitals; as long as it was."""
    text = (text.translate(TURKIC_UPPER) if language in TURKIC else text).translate(SHARP_S)
    large = text.upper()
    if len(large) == len(text):
        return large
    return "".join(letter.upper() if len(letter.upper()) == 1 else letter for letter in text)
