"""HTML to the sentences that are translated, and their translations back between its tags.

Knows: which parts of HTML are text. Does not know: how a text is divided into sentences (splitter.py), the model.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, chain

from service.text.placement import Look, escaped, place_tags
from service.text.segments import Segment, segments
from service.text.splitter import SplitText, Tokens


class HtmlText:
    """A text in HTML, divided as SplitText is; what has no sentence stays as it stands there.

    Attributes:
        sentences, tokens, was_cut: as SplitText's, without tags and with characters instead of entities.
        needs_looks: whether tags stand within its sentences, so that join() needs to know where they belong.
    """

    def __init__(self, markup: str, split: Callable[[str], SplitText]) -> None:
        self._parts: list[str | tuple[Segment, SplitText]] = []
        for part in segments(markup):
            if isinstance(part, Segment) and (divided := split(part.text)).sentences:
                self._parts.append((part, divided))
            else:
                self._parts.append(part.raw if isinstance(part, Segment) else part)
        self._segments = [part for part in self._parts if not isinstance(part, str)]
        self.sentences = tuple(chain.from_iterable(divided.sentences for _, divided in self._segments))
        self.tokens: tuple[Tokens, ...] = tuple(chain.from_iterable(divided.tokens for _, divided in self._segments))
        self.was_cut = any(divided.was_cut for _, divided in self._segments)
        self.needs_looks = any(segment.tags for segment, _ in self._segments)

    def join(self, translations: Sequence[str], looks: Sequence[Look] | None = None) -> str:
        """The translated HTML.

        Args:
            looks: what each part of the translation looked at, in ascending order of the target, by the characters that
                starts() counts; None: nobody knows yet, and tags within sentences are left out.

        Raises:
            ValueError: not as many translations as there are sentences.
        """
        if len(translations) != len(self.sentences):
            raise ValueError(f"{len(translations)} translations for {len(self.sentences)} sentences")
        texts = [divided.join(own) for divided, own in self._own(translations)]
        placed = map(escaped, texts) if looks is None else self._placed(translations, texts, looks)
        return "".join(part if isinstance(part, str) else next(placed) for part in self._parts)

    def _placed(self, translations: Sequence[str], texts: Sequence[str], looks: Sequence[Look]) -> Iterator[str]:
        """Each segment's translation with its tags."""
        sources = accumulate((len(segment.text) for segment, _ in self._segments), initial=0)
        targets = list(accumulate(map(len, texts), initial=0))
        found = zip(
            self._segments, texts, self._own(translations), sources, targets, _by_segment(looks, targets), strict=False
        )
        for (segment, _), text, (divided, own), source, target, own_looks in found:
            if segment.tags:
                of_sentences = (_moved(look, source, target) for look in own_looks)
                yield place_tags(segment, text, [*of_sentences, *_looks_of_gaps(divided, own)])
            else:
                yield escaped(text)

    def starts(self, translations: Sequence[str]) -> list[tuple[int, int]]:
        """Where each sentence begins in the text without its tags, and its translation in the joined text without them;
        only segments count, one right after the other."""
        found = list[tuple[int, int]]()
        source = target = 0
        for (segment, divided), own in zip(self._segments, (own for _, own in self._own(translations)), strict=True):
            found += [(source + first, target + second) for first, second in divided.starts(own)]
            source, target = source + len(segment.text), target + len(divided.join(own))
        return found

    def _own(self, translations: Sequence[str]) -> Iterator[tuple[SplitText, Sequence[str]]]:
        """Each segment's translations."""
        done = 0
        for _, divided in self._segments:
            yield divided, translations[done : done + len(divided.sentences)]
            done += len(divided.sentences)


def _by_segment(looks: Sequence[Look], starts: Sequence[int]) -> list[list[Look]]:
    """The looks of each segment, whose texts begin at ``starts``."""
    found: list[list[Look]] = [[] for _ in starts]
    number = 0
    for look in looks:
        while number + 1 < len(starts) and starts[number + 1] <= look.target_start:
            number += 1
        found[number].append(look)
    return found


def _looks_of_gaps(divided: SplitText, translations: Sequence[str]) -> Iterator[Look]:
    """What stands between sentences comes back as it was: each of its characters looks at itself."""
    places = divided.starts(translations)
    ends = [
        (source + len(sentence), target + len(translation))
        for (source, target), sentence, translation in zip(places, divided.sentences, translations, strict=True)
    ]
    for gap, (source, target) in zip(divided.gaps, [(0, 0), *ends], strict=True):
        for place, character in enumerate(gap):
            if not character.isspace():
                yield Look(source + place, source + place + 1, target + place, target + place + 1, 1.0)


def _moved(look: Look, source: int, target: int) -> Look:
    """In the characters of a segment."""
    return Look(
        look.source_start - source,
        look.source_end - source,
        look.target_start - target,
        look.target_end - target,
        look.weight,
    )
