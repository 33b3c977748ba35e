"""Where the tags of a sentence go in its translation.

Knows: which part of the source each part of the translation looked at. Does not know: how that was found, HTML's rules.

An element goes around the words that were made of its words: of all stretches of the translation, the one with the most
words that looked into the element, less those that looked elsewhere. Elements stay inside those that they were inside
and do not cross; none is lost or doubled: one that no word looked into stands empty where its neighbours are.
"""

import html
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from service.text.segments import Segment, Tag
from service.text.sentences import UNSPACED

# A look of less says little: articles and prepositions often look at the word they go with. Of words in a tag that are
# the same in the translation, so many had the tag around them and nothing else (greedy; Tatoeba, Europarl, news; of
# 105, 335 and 332): 77, 215 and 204 without a bound, 85, 254 and 243 with 0.4, 89, 270 and 256 with 0.5, 87, 269 and
# 260 with 0.6.
SURE: Final = 0.5
# A word; a punctuation mark, but for apostrophes; one letter of the scripts that put no spaces between words.
_UNIT = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+|[^\w\s'’]")


@dataclass(frozen=True, slots=True)
class Look:
    """A part of the translation looked at a part of the source: where both begin and end, and how much it did so."""

    source_start: int
    source_end: int
    target_start: int
    target_end: int
    weight: float


def escaped(text: str) -> str:
    """A text without tags as HTML."""
    return html.escape(text, quote=False)


def place_tags(segment: Segment, translation: str, looks: Sequence[Look]) -> str:
    """The translation as HTML, with the segment's tags; ``looks`` are in characters of both."""
    return _Placement(segment.text, translation, looks).between(segment.tags)


class _Placement:
    """One translation and its tags.

    Attributes:
        units: where words and marks of the translation begin and end.
        looks: how much each unit looked at which character of the source; (0.0, -1): at nothing like it.
        order: (character of the source, unit) of those that looked at something, ascending.
    """

    def __init__(self, source: str, translation: str, looks: Sequence[Look]) -> None:
        self.translation = translation
        self.units = [match.span() for match in _UNIT.finditer(translation)]
        self.looks = self.heaviest(source, looks)
        self.order = sorted((place, unit) for unit, (_, place) in enumerate(self.looks) if place >= 0)

    def heaviest(self, source: str, looks: Sequence[Look]) -> list[tuple[float, int]]:
        """The heaviest look of each unit; marks that look at words, and words that look at marks, say nothing."""
        best: list[tuple[float, int]] = [(0.0, -1)] * len(self.units)
        ends = [end for _, end in self.units]
        for look in looks:
            unit = bisect_left(ends, look.target_start + 1)
            while unit < len(self.units) and self.units[unit][0] < look.target_end:
                seen = source[look.source_start : look.source_end]
                at = next((place for place, letter in enumerate(seen) if not letter.isspace()), 0)
                is_like = self.is_word(unit) == seen[at : at + 1].isalnum()
                if is_like and look.weight > best[unit][0]:
                    best[unit] = look.weight, look.source_start + at
                unit += 1
        return best

    def between(self, tags: Sequence[Tag]) -> str:
        """The whole translation, with these tags."""
        count = len(self.units)
        first, last = (self.units[0][0], self.units[-1][1]) if count else (0, 0)
        return "".join([self.shown(0, first), self.region(tags, 0, count), self.shown(last, len(self.translation))])

    def shown(self, start: int, end: int) -> str:
        return escaped(self.translation[start:end])

    def region(self, tags: Sequence[Tag], low: int, high: int) -> str:
        """Units ``low`` to before ``high`` with what is between them, and these tags, of which none goes further."""
        if low == high:
            return "".join(map(_raw, tags))
        around = self.stretches(tags, low, high)
        before, behind = self.lone_places(tags, around, low, high)
        begins = {start: (tag, end) for tag, (start, end) in zip(tags, around, strict=True) if end > start}
        parts, unit = list[str](), low
        while unit < high:
            parts += [_parted(tag, is_before=True) for tag in before.get(unit, ())]
            if unit in begins:
                tag, end = begins[unit]
                parts += [tag.opening, self.region(tag.inside, unit, end), tag.closing]
            else:
                end = unit + 1
                parts.append(self.shown(*self.units[unit]))
            parts += [_parted(tag, is_before=False) for tag in behind.get(end - 1, ())]
            if end < high:
                parts.append(self.shown(self.units[end - 1][1], self.units[end][0]))
            unit = end
        return "".join(parts)

    def stretches(self, tags: Sequence[Tag], low: int, high: int) -> list[tuple[int, int]]:
        """The units that each element goes around, (0, 0) where there are none; they do not overlap."""
        found = [(0, 0)] * len(tags)
        taken = set[int]()
        by_size = sorted(range(len(tags)), key=lambda number: tags[number].start - tags[number].end)
        for number in by_size:
            own = [unit for unit in self.members(tags[number]) if low <= unit < high and unit not in taken]
            if own:
                found[number] = self.best_stretch(own, taken)
                taken.update(range(*found[number]))
        return found

    def members(self, tag: Tag) -> list[int]:
        """Units that surely looked into an element, ascending; where there are none, the one that did so most."""
        first, last = (bisect_left(self.order, (place, -1)) for place in (tag.start, tag.end))
        found = [unit for _, unit in self.order[first:last]]
        sure = sorted(unit for unit in found if self.is_sure(unit) or not self.is_word(unit))
        return sure or sorted(found, key=lambda unit: -self.looks[unit][0])[:1]

    def best_stretch(self, own: Sequence[int], taken: set[int]) -> tuple[int, int]:
        """Of all stretches without a unit that is taken, that with the most of ``own``, less words of others."""
        best = best_score = score = 0
        start = best_start = own[0]
        previous = own[0]
        for unit in own:
            between = range(previous + 1, unit)
            cost = sum(self.is_sure(other) and self.is_word(other) for other in between)
            if cost >= score or any(other in taken for other in between):
                score, start = 0, unit
            else:
                score -= cost
            score, previous = score + 1, unit
            if score > best_score:
                best_score, best_start, best = score, start, unit
        return best_start, best + 1

    def is_sure(self, unit: int) -> bool:
        return self.looks[unit][0] >= SURE

    def is_word(self, unit: int) -> bool:
        return self.translation[self.units[unit][0]].isalnum()

    def lone_places(
        self, tags: Sequence[Tag], around: Sequence[tuple[int, int]], low: int, high: int
    ) -> tuple[dict[int, list[Tag]], dict[int, list[Tag]]]:
        """What stands before, and what behind, each unit: all that goes around none."""
        before, behind = dict[int, list[Tag]](), dict[int, list[Tag]]()
        within = {unit: number for number, (start, end) in enumerate(around) for unit in range(start, end)}
        last, unit, is_before = -1, low, True
        for number, tag in enumerate(tags):
            if around[number][1]:
                last = -1
                continue
            if tag.start != last:  # else it stays behind the one before it
                unit, is_before = self.neighbour(tag, low, high)
                if unit in within:
                    other = within[unit]
                    is_before = number < other
                    unit = around[other][0] if is_before else around[other][1] - 1
            last = tag.end
            (before if is_before else behind).setdefault(unit, []).append(tag)
        return before, behind

    def neighbour(self, tag: Tag, low: int, high: int) -> tuple[int, bool]:
        """The unit beside which something stands that is alone, and whether before it."""
        place = bisect_left(self.order, (tag.start, -1))
        after = [(unit, True) for _, unit in self.order[place : place + 1]]
        first = bisect_left(self.order, (self.order[place - 1][0], -1)) if place else 0
        of_last = [unit for _, unit in self.order[first:place] if low <= unit < high]
        ahead = [(of_last[-1], False)] if of_last else []
        wanted = [*ahead, *after] if tag.leans_left else [*after, *ahead]
        return next(((unit, is_before) for unit, is_before in wanted if low <= unit < high), (low, True))


def _raw(tag: Tag) -> str:
    """The tags of an element around no word."""
    return "".join([tag.opening, *map(_raw, tag.inside), tag.closing])


def _parted(tag: Tag, is_before: bool) -> str:
    """The same beside a unit, with the space towards it where there was one on both sides."""
    is_parted = tag.has_space_before and tag.has_space_after
    if not is_parted:
        return _raw(tag)
    return f"{_raw(tag)} " if is_before else f" {_raw(tag)}"
