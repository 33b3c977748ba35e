"""The hypotheses that beam searches have finished: of each sentence up to K, best first.

Knows: ids, scores and their order. Does not know: candidates, when a search is over.
"""

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

from service.decoding.per_sentence import PerSentence

NOTHING = -np.inf


class Finished(PerSentence):
    """Arrays, one entry a sentence (n); a search in C (service/runtime/kernels/search.c) writes to the same.

    scores (n, K) float64: minus infinity where there are fewer, so that the last one is what a live hypothesis must
    beat. totals (n, K) float32: their log-probabilities. lengths (n, K) int32, and ids (n, K, T_max) int32, valid up to
    those.
    """

    ARRAYS = ("scores", "totals", "lengths", "ids")

    def __init__(self, num_beams: int, max_target_tokens: int) -> None:
        self.scores: NDArray[np.float64] = np.zeros((0, num_beams))
        self.totals: NDArray[np.float32] = np.zeros((0, num_beams), np.float32)
        self.lengths: NDArray[np.int32] = np.zeros((0, num_beams), np.int32)
        self.ids: NDArray[np.int32] = np.zeros((0, num_beams, max_target_tokens), np.int32)

    def admit(self, count: int) -> None:
        """Adds sentences that have none."""
        beams, longest = self.ids.shape[1:]
        scores, totals = np.full((count, beams), NOTHING), np.zeros((count, beams), np.float32)
        lengths, ids = np.zeros((count, beams), np.int32), np.zeros((count, beams, longest), np.int32)
        self.append(scores, totals, lengths, ids)

    def count(self, sentence: int) -> int:
        """How many a sentence has."""
        return int(np.count_nonzero(self.scores[sentence] > NOTHING))

    def worst(self) -> NDArray[np.float64]:
        """(n,): the score of the last of K; minus infinity where there are fewer."""
        return self.scores[:, -1]

    def insert(self, sentence: int, ids: NDArray[np.int32], total: float, score: float) -> None:
        """Puts a hypothesis behind those that are as good: what finished first comes first."""
        place = bisect_right(self.scores[sentence].tolist(), -score, key=lambda other: -other)
        if place >= self.scores.shape[1]:
            return
        for array in (self.scores, self.totals, self.lengths, self.ids):
            array[sentence, place + 1 :] = array[sentence, place:-1].copy()
        self.scores[sentence, place], self.totals[sentence, place] = score, total
        self.lengths[sentence, place] = len(ids)
        self.ids[sentence, place, : len(ids)] = ids
