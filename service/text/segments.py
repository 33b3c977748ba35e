"""The stretches of HTML that are translated as one text each, with the tags inside them.

Knows: which tags stand within a sentence and which between two. Does not know: how tags look (markup.py), where they
go in a translation (placement.py).
"""

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from service.text.markup import PREFORMATTED, Kind, Piece, pieces

# Deeper nesting within a sentence is no writing; tags beyond it keep their place, but not their pairs.
MAX_DEPTH: Final = 32
SPACES: Final = " \t\r\n\f"  # of HTML; all others are characters like others
# Where a word may be divided at the end of a line. A model takes such a word for others.
SOFT_HYPHEN: Final = "\xad"
# Notes: without letters they are no part of the sentence.
RAISED: Final = frozenset(["sub", "sup"])
_SPACES = re.compile(rf"[{SPACES}]+")
_BLANK_LINES = re.compile(r"(\n[^\S\n]*+\n\s*+)")
_LINE_ENDS = re.compile(r"((?:\r?\n)+)")


@dataclass(slots=True)
class Tag:
    """An element within a sentence, or something that stands there alone.

    Attributes:
        start, end: which characters of the segment's text it is around; the same for what stands alone.
        opening, closing: its tags, as they stand in the text. inside: the tags between them.
        leans_left: alone, it belongs to the word before it ("word<sup>1</sup>"), else to the one after it.
        has_space_before, has_space_after: whether a space parted it from its neighbours.
    """

    start: int
    end: int
    opening: str
    closing: str = ""
    inside: "list[Tag]" = field(default_factory=list)
    leans_left: bool = False
    has_space_before: bool = False
    has_space_after: bool = False


@dataclass(frozen=True, slots=True)
class Segment:
    """A paragraph, a cell, a line: ``raw`` is how it stands in the HTML, ``text`` what a reader sees of it.

    Example: ``"Click <b>here</b> now"`` has the text ``"Click here now"`` and one tag, around characters 6 to 10.
    """

    raw: str
    text: str
    tags: tuple[Tag, ...]


def segments(markup: str) -> Iterator[str | Segment]:
    """The text in order: what stays as it is, as strings, and segments; their ``raw`` and the strings add up to it."""
    line: list[Piece] = []
    num_preformatted = 0
    for piece in pieces(markup):
        if piece.name in PREFORMATTED and piece.kind is Kind.BREAK:
            num_preformatted += -1 if piece.raw.startswith("</") else 1
        if piece.kind is Kind.BREAK:
            yield from _segment(line, num_preformatted > 0 or piece.name in PREFORMATTED)
            yield piece.raw
            line = []
        elif piece.kind is Kind.TEXT:
            ends = _LINE_ENDS if num_preformatted > 0 else _BLANK_LINES
            first, *others = ends.split(piece.raw)
            line.append(Piece(Kind.TEXT, first))
            for between, text in zip(others[::2], others[1::2], strict=True):
                yield from _segment(line, num_preformatted > 0)
                yield between
                line = [Piece(Kind.TEXT, text)]
        else:
            line.append(piece)
    yield from _segment(line, num_preformatted > 0)


def _segment(line: Sequence[Piece], keeps_spaces: bool) -> Iterator[str | Segment]:
    """What stands before the text of a line, its text, what stands after it."""
    found = [part for piece in line for part in _parted(piece)]
    partners = _partners(found)
    first, last = 0, len(found)
    after = list[str]()
    while first < last:
        if (width := _width_of_layout(found, partners, first, 1)) and first + width <= last:
            yield "".join(piece.raw for piece in found[first : first + width])
            first += width
        elif (width := _width_of_layout(found, partners, last - 1, -1)) and last - width >= first:
            after += [piece.raw for piece in reversed(found[last - width : last])]
            last -= width
        elif partners.get(first) == last - 1:
            yield found[first].raw
            after.append(found[last - 1].raw)
            first, last = first + 1, last - 1
        else:
            raw = "".join(piece.raw for piece in found[first:last])
            yield Segment(raw, *_Reader(found, partners, keeps_spaces).read(first, last))
            break
    yield "".join(reversed(after))


def _parted(piece: Piece) -> Iterator[Piece]:
    """A text without the spaces around it, and these."""
    text = piece.raw.strip(SPACES)
    if piece.kind is not Kind.TEXT or len(text) == len(piece.raw) or not text:
        parts = [piece.raw]
    else:
        start = piece.raw.index(text)
        parts = [piece.raw[:start], text, piece.raw[start + len(text) :]]
    yield from (Piece(piece.kind, part, piece.name) for part in parts if part)


def _width_of_layout(found: Sequence[Piece], partners: Mapping[int, int], place: int, step: int) -> int:
    """How many pieces from ``place`` on, in the direction of ``step``, belong to no word."""
    piece = found[place]
    if piece.kind is Kind.TEXT:
        return int(not piece.raw.strip(SPACES))
    if place not in partners:
        return 1
    return 2 if partners[place] == place + step else 0


def _partners(found: Sequence[Piece]) -> dict[int, int]:
    """Where the other tag of an element is, for the tags of those that begin and end here, and do not cross others."""
    partners = dict[int, int]()
    stack = list[int]()
    for place, piece in enumerate(found):
        if piece.kind is Kind.OPEN and len(stack) < MAX_DEPTH:
            stack.append(place)
        elif piece.kind is Kind.CLOSE:
            depth = next((d for d in reversed(range(len(stack))) if found[stack[d]].name == piece.name), None)
            if depth is not None:
                partners[place], partners[stack[depth]] = stack[depth], place
                del stack[depth:]
    return partners


class _Reader:
    """Makes text and tags of a line's pieces."""

    def __init__(self, found: Sequence[Piece], partners: Mapping[int, int], keeps_spaces: bool) -> None:
        self.found, self.partners, self.keeps_spaces = found, partners, keeps_spaces
        self.texts, self.length, self.last = list[str](), 0, ""
        self.tags, self.open = list[Tag](), list[Tag]()
        self.waiting = list[Tag]()

    def read(self, first: int, last: int) -> tuple[str, tuple[Tag, ...]]:
        """Text and tags of the pieces from ``first`` to before ``last``."""
        place = first
        while place < last:
            piece = self.found[place]
            partner = self.partners.get(place, -1)
            if piece.kind is Kind.TEXT:
                self.add_text(html.unescape(piece.raw).replace(SOFT_HYPHEN, ""))
            elif partner > place and piece.name in RAISED and not self.has_letters(place, partner):
                note = self.add_tag("".join(each.raw for each in self.found[place : partner + 1]))
                note.leans_left, place = not note.has_space_before, partner
            elif partner > place:
                self.open.append(self.add_tag(piece.raw))
            elif partner >= first:
                self.close(piece.raw)
            else:
                self.add_tag(piece.raw).leans_left = piece.kind is Kind.CLOSE
            place += 1
        text = "".join(self.texts)
        return text if self.keeps_spaces else text.rstrip(" "), tuple(self.tags)

    def has_letters(self, place: int, partner: int) -> bool:
        inner = self.found[place + 1 : partner]
        return any(letter.isalpha() for piece in inner if piece.kind is Kind.TEXT for letter in piece.raw)

    def add_text(self, text: str) -> None:
        if not self.keeps_spaces:
            text = _SPACES.sub(" ", text)
        for tag in self.waiting:
            tag.has_space_after = text[:1].isspace()
            tag.leans_left = tag.leans_left or (tag.has_space_after and not tag.has_space_before)
        self.waiting.clear()
        if self.last.isspace() and not self.keeps_spaces:
            text = text.removeprefix(" ")
        if text:
            self.texts.append(text)
            self.length, self.last = self.length + len(text), text[-1]

    def add_tag(self, raw: str) -> Tag:
        tag = Tag(self.length, self.length, raw, has_space_before=self.last.isspace())
        (self.open[-1].inside if self.open else self.tags).append(tag)
        self.waiting.append(tag)
        return tag

    def close(self, raw: str) -> None:
        tag = self.open.pop()
        tag.end, tag.closing = self.length, raw
