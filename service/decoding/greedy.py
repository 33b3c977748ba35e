"""Greedy search: at each step the most probable token.

Knows: candidate arrays. Does not know: models, rows, requests.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.decoding.options import DecodeOptions
from service.decoding.penalties import Penalties
from service.decoding.per_sentence import PerSentence
from service.decoding.repetition import LoopWatch
from service.decoding.search import Advance, Found, first_places


class GreedySearch(PerSentence):
    """Ends a sentence at its end token, at its max_length, or where it is found to repeat itself."""

    ARRAYS = ("ids", "lengths", "max_lengths", "length_penalties", "totals")
    num_beams = 1
    num_candidates = 1

    def __init__(self, end: int, max_target_tokens: int) -> None:
        self.end = end
        self.ids: NDArray[np.int32] = np.zeros((0, max_target_tokens), np.int32)
        self.lengths: NDArray[np.int32] = np.zeros(0, np.int32)
        self.max_lengths: NDArray[np.int32] = np.zeros(0, np.int32)
        self.length_penalties: NDArray[np.float64] = np.zeros(0)
        self.totals: NDArray[np.float32] = np.zeros(0, np.float32)
        self.loops, self.penalties = LoopWatch(), Penalties(end)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def prefixes(self) -> NDArray[np.int32]:
        return self.ids[:, None]

    def admit(
        self, options: list[DecodeOptions], max_lengths: list[int], sources: Sequence[Sequence[int]] = ()
    ) -> None:
        self.loops.admit(sources or [()] * len(options))
        self.penalties.admit(options)
        count = len(options)
        ids, lengths = np.zeros((count, self.ids.shape[1]), np.int32), np.zeros(count, np.int32)
        limits, exponents = np.array(max_lengths, np.int32), np.array([o.length_penalty for o in options], float)
        self.append(ids, lengths, limits, exponents, np.zeros(count, np.float32))

    def advance(self, ids: NDArray[np.int64], log_probabilities: NDArray[np.float32]) -> Advance:
        tokens = ids[:, :, 0]
        newest = tokens[:, 0]
        self.ids.put(first_places(*self.ids.shape) + self.lengths, newest)
        self.lengths += 1
        self.totals += log_probabilities[:, 0, 0]
        failed = np.isnan(self.totals)
        done = newest == self.end
        done |= self.lengths == self.max_lengths
        done |= failed
        self.end_loops(done)
        return Advance(tokens, None, done, failed)

    def end_loops(self, done: NDArray[np.bool_]) -> None:
        for sentence in self.loops.looping(self.ids, self.lengths):
            done[sentence] = True

    def found(self, sentence: int) -> list[Found]:
        length, total = int(self.lengths[sentence]), float(self.totals[sentence])
        ids = tuple(self.ids[sentence, :length].tolist())
        score = total / length ** float(self.length_penalties[sentence])
        ended = ids[-1] == self.end
        return [Found(ids, total, score, ended, not ended and self.loops.ends_in_loop(sentence, ids))]

    def keep(self, kept: NDArray[np.intp]) -> None:
        self.loops.keep(kept)
        self.penalties.keep(kept)
        super().keep(kept)
