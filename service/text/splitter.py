"""A text to the sentences that are translated, and their translations back into the text's layout.

Knows: what of a text is translated and what is layout. Does not know: how tokens are made (it asks), the model.

What is layout, and comes back as it was: line breaks, tabs, indentation, every space around a sentence, bullets and
quotation marks of mail (``- ``, ``> ``) at the start of a line, zero-width and control characters around a sentence,
and every piece without a letter or a digit (``---``, ``!!!``, an emoji alone): a model knows nothing to say about it,
and would invent something.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import itemgetter
from typing import Protocol

from service.text.cuts import cut_long
from service.text.sentences import UNSPACED, Span, sentence_spans, trim

UNSPACED_LETTER = re.compile(f"[{UNSPACED}]")
KOREAN_LETTER = re.compile(r"[\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]")
Tokens = Sequence[int]
"""Ids of a sentence's tokens, without start and end."""


class DividedText(Protocol):
    """A text as its sentences: what SplitText explains, and HtmlText has as well."""

    @property
    def sentences(self) -> tuple[str, ...]: ...
    @property
    def tokens(self) -> tuple[Tokens, ...]: ...
    @property
    def was_cut(self) -> bool: ...
    @property
    def needs_looks(self) -> bool:
        """Whether join() needs to know which part of the source each part of a translation looked at."""

    def join(self, translations: Sequence[str]) -> str: ...
    def starts(self, translations: Sequence[str]) -> list[tuple[int, int]]: ...


@dataclass(frozen=True, slots=True)
class SplitText:
    """A text in pieces: ``gaps[0] sentences[0] gaps[1] sentences[1] ... gaps[-1]`` is the text, always.

    Attributes:
        sentences: what is translated; no whitespace around them, never empty, none above the splitter's max_tokens.
        gaps: the text before, between and after them; one more than there are sentences.
        was_cut: at least one sentence was longer than max_tokens and was cut at the best place inside it.
        tokens: of each sentence, as they were counted.

    Example: ``"  Hi there. Bye.\\n"`` has sentences ``("Hi there.", "Bye.")`` and gaps ``("  ", " ", "\\n")``.
    """

    sentences: tuple[str, ...]
    gaps: tuple[str, ...]
    was_cut: bool
    tokens: tuple[Tokens, ...] = ()

    @property
    def needs_looks(self) -> bool:
        """Never: all translations go between gaps."""
        return False

    def join(self, translations: Sequence[str]) -> str:
        """The translated text: the gaps, with translations in the places of the sentences.

        Where two sentences touch, as Chinese and Japanese ones do, their translations get a space between them unless
        the second begins with a wide character that is not Korean, which is written with spaces. And where one space
        parts them and both translations are wide there, it goes: Chinese and Japanese have none between sentences.

        Raises:
            ValueError: not as many translations as there are sentences.
        """
        return "".join(self.pieces(translations))

    def pieces(self, translations: Sequence[str]) -> list[str]:
        """What join() joins: a gap, a translation, a gap and so on."""
        if len(translations) != len(self.sentences):
            raise ValueError(f"{len(translations)} translations for {len(self.sentences)} sentences")
        pieces = [self.gaps[0]]
        for number, translation in enumerate(translations):
            following = translations[number + 1] if number + 1 < len(translations) else None
            pieces += [translation, self.gap(number, translation, following)]
        return pieces

    def gap(self, number: int, translation: str, following: str | None) -> str:
        """What stands behind a translation, before the ``following`` one."""
        gap = self.gaps[number + 1]
        if following is None or gap not in ("", " "):
            return gap
        if gap and is_written_without_spaces(translation[-1:]) and is_written_without_spaces(following[:1]):
            return ""
        return " " if not gap and self.needs_space(number, following) else gap

    def starts(self, translations: Sequence[str]) -> list[tuple[int, int]]:
        """Where each sentence begins in the text, and its translation in the joined text."""
        originals = [piece for pair in zip(self.gaps, (*self.sentences, ""), strict=True) for piece in pair]
        places = [list(accumulate(map(len, pieces)))[0::2] for pieces in (originals, self.pieces(translations))]
        return list(zip(*places, strict=False))[: len(translations)]

    def needs_space(self, number: int, following: str) -> bool:
        """After punctuation, or a letter of a script without spaces, and before a script that writes spaces; not inside
        a word that had to be cut."""
        last = self.sentences[number][-1]
        ends_inside_word = last.isalnum() and not UNSPACED_LETTER.match(last)
        return not ends_inside_word and not is_written_without_spaces(following[:1])


def is_written_without_spaces(character: str) -> bool:
    """Whether it is a letter or mark of Chinese or Japanese; no character is none, and emoji are wide in any text."""
    is_wide = unicodedata.east_asian_width(character or " ") in ("W", "F")
    return is_wide and not KOREAN_LETTER.match(character) and unicodedata.category(character) != "So"


class TextSplitter:
    """Splits texts of one language for a model that takes at most ``max_tokens`` at once.

    Args:
        language: BCP-47 code; a language without rules of its own is split by those of English.
        max_tokens: of a sentence, the end token not counted; >= 1.
        encode: tokens of each of many strings. It is called with many strings at a time.
    """

    def __init__(self, language: str, max_tokens: int, encode: Callable[[Sequence[str]], Sequence[Tokens]]) -> None:
        if max_tokens < 1:
            raise ValueError(f"max_tokens ({max_tokens}) must be >= 1")
        self.language = language.replace("_", "-").split("-")[0].lower()
        self.max_tokens = max_tokens
        self.encode = encode

    def split(self, text: str) -> SplitText:
        """The sentences of ``text``; a text without letters and digits has none and is one gap."""
        fitting, was_cut = self.fit(text, sentence_spans(text, self.language))
        gaps, end = [], 0
        for (start, stop), _ in fitting:
            gaps.append(text[end:start])
            end = stop
        sentences = tuple(text[start:stop] for (start, stop), _ in fitting)
        return SplitText(sentences, (*gaps, text[end:]), was_cut, tuple(tokens for _, tokens in fitting))

    def fit(self, text: str, spans: list[Span]) -> tuple[list[tuple[Span, Tokens]], bool]:
        """Cuts what is too long until nothing is; True where something was cut.

        Each round asks once for the tokens of all pieces it made. A piece of n times max_tokens becomes about n pieces
        in one round, so there are few rounds, and time is linear in the text.
        """
        fitting: list[tuple[Span, Tokens]] = []
        was_cut = False
        while spans:
            encoded = self.encode([text[start:stop] for start, stop in spans])
            too_long = []
            for span, tokens in zip(spans, encoded, strict=True):
                if len(tokens) > self.max_tokens:
                    too_long.append((span, len(tokens)))
                elif tokens:  # the vocabulary may normalise a piece away altogether: layout, then
                    fitting.append((span, tokens))
            was_cut |= bool(too_long)
            parts = [part for span, count in too_long for part in cut_long(text, span, count, self.max_tokens)]
            spans = [trimmed for trimmed in (trim(text, part) for part in parts) if trimmed is not None]
        return sorted(fitting, key=itemgetter(0)), was_cut
