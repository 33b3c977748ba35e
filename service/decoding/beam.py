"""Beam search over candidate arrays, for any number of sentences at once.

Knows: candidate arrays. Does not know: models, rows, requests. The definition is model/reference_decode.py's:

- of the best 2K extensions, those that end and stand among the best K are finished, the best K others live on;
- the best K finished ones are kept, by score = log-probability / length ** length_penalty;
- a sentence ends when it has K finished ones and its best live one, scored at its present length, does not beat the
  worst of them (or without that, where the model says ``stop_at_beams``), or at max_length, where the best K
  extensions count as finished;
- it also ends when its best live one repeats itself (repetition.py), which is the answer only where none is finished.

2K candidates a row are enough: a row gives at most K extensions to the live ones and one that ends.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.decoding.finished import NOTHING, Finished
from service.decoding.options import DecodeOptions
from service.decoding.penalties import Penalties
from service.decoding.per_sentence import PerSentence
from service.decoding.repetition import LoopWatch
from service.decoding.search import Advance, Found, first_places, is_any


class BeamSearch(PerSentence):
    """Beam search of one width K.

    Arrays, one entry a sentence (n):
        live (n, K) float32: sums of log-probabilities of the live hypotheses, best first. In the first step all K rows
            hold the same prefix: only the first counts, the others are minus infinity.
        ids (n, K, T_max) int32: their tokens, valid up to lengths (n,).
        finished: of each sentence up to K hypotheses (finished.py).
    """

    ARRAYS = ("lengths", "max_lengths", "length_penalties", "live", "ids")

    def __init__(self, num_beams: int, end: int, max_target_tokens: int, stop_at_beams: bool = False) -> None:
        self.stop_at_beams = stop_at_beams
        self.num_beams, self.num_candidates, self.end = num_beams, 2 * num_beams, end
        self.lengths: NDArray[np.int32] = np.zeros(0, np.int32)
        self.max_lengths: NDArray[np.int32] = np.zeros(0, np.int32)
        self.length_penalties: NDArray[np.float64] = np.zeros(0)
        self.live: NDArray[np.float32] = np.zeros((0, num_beams), np.float32)
        self.ids: NDArray[np.int32] = np.zeros((0, num_beams, max_target_tokens), np.int32)
        self.finished = Finished(num_beams, max_target_tokens)
        self.loops, self.penalties = LoopWatch(), Penalties(end, num_spare=num_beams)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def prefixes(self) -> NDArray[np.int32]:
        return self.ids

    def admit(
        self, options: list[DecodeOptions], max_lengths: list[int], sources: Sequence[Sequence[int]] = ()
    ) -> None:
        self.loops.admit(sources or [()] * len(options))
        self.penalties.admit(options)
        count, beams, size = len(options), self.num_beams, self.ids.shape[2]
        live = np.full((count, beams), NOTHING, np.float32)
        live[:, 0] = 0.0
        self.finished.admit(count)
        lengths, ids = np.zeros(count, np.int32), np.zeros((count, beams, size), np.int32)
        limits, exponents = np.array(max_lengths, np.int32), np.array([o.length_penalty for o in options], float)
        self.append(lengths, limits, exponents, live, ids)

    def advance(self, ids: NDArray[np.int64], log_probabilities: NDArray[np.float32]) -> Advance:
        # A sum is cheaper than looking at every number, and is not a number where one of them is not. It may also be
        # the sum of opposite infinities; then it is worth looking.
        bad = math.isnan(np.add.reduce(log_probabilities, axis=None))
        failed = np.asarray(np.isnan(log_probabilities).any(axis=(1, 2))) if bad else np.zeros(len(self), bool)
        totals, parents, tokens = self.best_extensions(ids, log_probabilities)
        self.lengths += 1
        at_limit = self.lengths == self.max_lengths
        done = at_limit | failed
        ends = tokens == self.end
        beams = self.num_beams
        if is_any(ends) or is_any(at_limit):
            finishing = (ends | at_limit[:, None])[:, :beams] & (totals[:, :beams] > NOTHING)
            self.finish(finishing, totals, parents, tokens)
            # A stable sort by "ends" brings the best K that do not end to the front, in order.
            chosen = ends.argsort(axis=1, kind="stable")[:, :beams] + self.firsts(2 * beams)
            self.live, parents, tokens = totals.take(chosen), parents.take(chosen), tokens.take(chosen)
        else:
            self.live, parents, tokens = totals[:, :beams], parents[:, :beams], tokens[:, :beams]
        self.extend(parents, tokens)
        full = self.finished.worst() > NOTHING
        if is_any(full):
            for n in full.nonzero()[0].tolist():
                done[n] |= self.stop_at_beams or self.score(n, self.live[n, 0]) <= self.finished.scores[n, -1]
        self.end_loops(done)
        return Advance(tokens, parents, done, failed)

    def end_loops(self, done: NDArray[np.bool_]) -> None:
        for sentence in self.loops.looping(self.ids[:, 0], self.lengths):
            done[sentence] = True
            if not self.finished.count(sentence):
                best, total = self.ids[sentence, 0, : self.lengths[sentence]], float(self.live[sentence, 0])
                self.finished.insert(sentence, best, total, self.score(sentence, total))

    def score(self, sentence: int, total: float) -> float:
        """Of a hypothesis of the sentence's present length."""
        length, penalty = float(self.lengths[sentence]), float(self.length_penalties[sentence])
        return float(total) / math.pow(length, penalty)

    def firsts(self, width: int) -> NDArray[np.intp]:
        """(n, 1): where each sentence begins in a flattened array (n, width)."""
        return first_places(len(self), width)[:, None]

    def extend(self, parents: NDArray[np.intp], tokens: NDArray[np.int64]) -> None:
        """Each beam becomes its parent's ids and a token; parents, tokens (n, K)."""
        longest = max(self.lengths.tolist())
        beams, size = self.num_beams, self.ids.shape[2]
        flat = self.ids.reshape(-1, size)
        self.ids[:, :, :longest] = flat[:, :longest].take(parents + self.firsts(beams), axis=0)
        self.ids.put(first_places(self.live.size, size).reshape(-1, beams) + (self.lengths[:, None] - 1), tokens)

    def best_extensions(
        self, ids: NDArray[np.int64], log_probabilities: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.intp], NDArray[np.int64]]:
        """The best 2K extensions of each sentence, best first: totals, parents, tokens, each (n, 2K).

        Equal totals keep the order of beam, then of candidate rank.
        """
        width = self.num_candidates
        totals = (self.live[:, :, None] + log_probabilities[:, :, :width]).reshape(len(self), -1)
        order = (-totals).argsort(axis=1, kind="stable")[:, :width]
        flat = order + self.firsts(totals.shape[1])
        return totals.take(flat), order // width, ids[:, :, :width].reshape(-1).take(flat)

    def finish(
        self,
        finishing: NDArray[np.bool_],
        totals: NDArray[np.float32],
        parents: NDArray[np.intp],
        tokens: NDArray[np.int64],
    ) -> None:
        """Puts the ``finishing`` (n, K) ones of the best extensions among their sentences' finished ones."""
        places = finishing.nonzero()
        for sentence, rank in zip(*(place.tolist() for place in places), strict=True):
            total = float(totals[sentence, rank])
            before = self.ids[sentence, parents[sentence, rank], : self.lengths[sentence] - 1]
            ids = np.append(before, tokens[sentence, rank]).astype(np.int32)
            self.finished.insert(sentence, ids, total, self.score(sentence, total))

    def found(self, sentence: int) -> list[Found]:
        finished, found = self.finished, []
        for i in range(finished.count(sentence)):
            ids = tuple(finished.ids[sentence, i, : finished.lengths[sentence, i]].tolist())
            ended = ids[-1] == self.end
            repeats = not ended and self.loops.ends_in_loop(sentence, ids)
            total, score = float(finished.totals[sentence, i]), float(finished.scores[sentence, i])
            found.append(Found(ids, total, score, ended, repeats))
        return found

    def keep(self, kept: NDArray[np.intp]) -> None:
        self.loops.keep(kept)
        self.penalties.keep(kept)
        self.finished.keep(kept)
        super().keep(kept)
