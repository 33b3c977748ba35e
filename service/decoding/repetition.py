"""Finds translations that have begun to say the same thing again and again.

Knows: token ids. Does not know: models, rows, requests, what a search does with a loop.

A loop is a run of at least MIN_LOOP_TOKENS tokens at the end of a translation that is one n-gram of up to MAX_PERIOD
tokens repeated, at least MIN_REPEATS times, and that is more than SOURCE_FACTOR times as long as the longest such run
anywhere in the source (there, twice is enough). So "no no no" survives, and so does a refrain that the source has.

It is looked for when a translation has grown by another CHECK_EVERY tokens: by the sentence's own length, so that what
it is batched with changes nothing. Most steps cost next to nothing: a loop's newest token stands among the MAX_PERIOD
before it, and only where it does is there more to look at.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MIN_LOOP_TOKENS = 16
MIN_REPEATS = 4
MAX_PERIOD = 16
SOURCE_FACTOR = 2
CHECK_EVERY = 8
NEWEST = np.arange(1, MAX_PERIOD + 2)


class LoopWatch:
    """Watches the sentences of a search. Those admitted with an empty source are never found to loop."""

    def __init__(self) -> None:
        self.sources: list[Sequence[int]] = []

    def admit(self, sources: Sequence[Sequence[int]]) -> None:
        """Adds sentences without a token behind those already here."""
        self.sources += sources

    def keep(self, kept: NDArray[np.intp]) -> None:
        """Forgets all sentences but the ``kept`` ones (m,), ascending."""
        self.sources = [self.sources[sentence] for sentence in kept.tolist()]

    def looping(self, ids: NDArray[np.int32], lengths: NDArray[np.int32]) -> list[int]:
        """Which sentences loop now; called once a step. ids: (n, T_max), valid up to lengths (n,)."""
        grown = enumerate(lengths.tolist())
        due = [i for i, length in grown if length % CHECK_EVERY == 0 and length >= MIN_LOOP_TOKENS]
        if not due:
            return []
        # (m, MAX_PERIOD + 1), the newest first. The place before the first token is the last one, which is harmless.
        recent = ids[np.array(due)[:, None], lengths[due, None] - NEWEST]
        comes_back = (recent[:, 1:] == recent[:, :1]).any(axis=1)
        due = [i for i, some in zip(due, comes_back.tolist(), strict=True) if some]
        if not due:
            return []
        runs = loop_tokens(ids[due], lengths[due]).tolist()
        return [i for i, run in zip(due, runs, strict=True) if run and self.is_too_long(i, run)]

    def ends_in_loop(self, sentence: int, ids: Sequence[int]) -> bool:
        """Whether a translation of any length ends in a loop."""
        tokens = np.array([ids], np.int32)
        return self.is_too_long(sentence, int(loop_tokens(tokens, np.array([len(ids)], np.int32))[0]))

    def is_too_long(self, sentence: int, run: int) -> bool:
        source = self.sources[sentence]
        return bool(len(source)) and run > SOURCE_FACTOR * longest_run(source)


def loop_tokens(ids: NDArray[np.int32], lengths: NDArray[np.int32]) -> NDArray[np.intp]:
    """Tokens of the loop that each translation ends in, whatever its source; 0 where it ends in none.

    Args:
        ids: (n, T_max), valid up to lengths (n,).
    """
    places = lengths[:, None] - 1 - np.arange(int(lengths.max(initial=0)) + 1)  # from the newest back
    tokens = np.where(places >= 0, np.take_along_axis(ids, np.maximum(places, 0), axis=1), -1)
    longest = np.zeros(len(lengths), np.intp)
    for period in range(1, min(MAX_PERIOD, tokens.shape[1] - 1) + 1):
        # Before its first token a translation has -1, which differs from every token: there is always a difference.
        run = (tokens[:, :-period] != tokens[:, period:]).argmax(axis=1) + period
        longest = np.maximum(longest, np.where(run >= max(MIN_LOOP_TOKENS, MIN_REPEATS * period), run, 0))
    return longest


def longest_run(ids: Sequence[int]) -> int:
    """Tokens of the longest run in ``ids`` that is one n-gram at least twice; 0 where there is none."""
    longest = 0
    for period in range(1, MAX_PERIOD + 1):
        same = 0
        for token, earlier in zip(ids[period:], ids, strict=False):
            same = same + 1 if token == earlier else 0
            if same >= period:
                longest = max(longest, same + period)
    return longest
