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

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from service.decoding.options import DecodeOptions
from service.decoding.penalties import Penalties
from service.decoding.repetition import LoopWatch
from service.decoding.search import Advance, Found

NOTHING = -np.inf


@lru_cache(maxsize=1024)
def first_places(count: int, width: int) -> NDArray[np.intp]:
    """(count, 1), not to be written to: where each row begins in a flattened array (count, width)."""
    places = np.arange(0, count * width, width)[:, None]
    places.setflags(write=False)
    return places


class BeamSearch:
    """Beam search of one width K.

    Arrays, one entry a sentence (n):
        live (n, K) float32: sums of log-probabilities of the live hypotheses, best first. In the first step all K rows
            hold the same prefix: only the first counts, the others are minus infinity.
        ids (n, K, T_max) int32: their tokens, valid up to lengths (n,).
        finished_scores, finished_totals (n, K), finished_ids (n, K, T_max), finished_lengths (n, K): best first; minus
            infinity where there is none yet.
    """

    def __init__(self, num_beams: int, end: int, max_target_tokens: int, stop_at_beams: bool = False) -> None:
        self.stop_at_beams = stop_at_beams
        self.num_beams, self.num_candidates, self.end = num_beams, 2 * num_beams, end
        beams = num_beams
        self.lengths: NDArray[np.int32] = np.zeros(0, np.int32)
        self.max_lengths: NDArray[np.int32] = np.zeros(0, np.int32)
        self.length_penalties: NDArray[np.float64] = np.zeros(0)
        self.live: NDArray[np.float32] = np.zeros((0, beams), np.float32)
        self.ids: NDArray[np.int32] = np.zeros((0, beams, max_target_tokens), np.int32)
        self.finished_scores: NDArray[np.float64] = np.zeros((0, beams))
        self.finished_totals: NDArray[np.float32] = np.zeros((0, beams), np.float32)
        self.finished_ids: NDArray[np.int32] = np.zeros((0, beams, max_target_tokens), np.int32)
        self.finished_lengths: NDArray[np.int32] = np.zeros((0, beams), np.int32)
        self.loops, self.penalties = LoopWatch(), Penalties(end)

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
        new = {
            "lengths": np.zeros(count, np.int32),
            "max_lengths": np.array(max_lengths, np.int32),
            "length_penalties": np.array([o.length_penalty for o in options], float),
            "live": live,
            "ids": np.zeros((count, beams, size), np.int32),
            "finished_scores": np.full((count, beams), NOTHING),
            "finished_totals": np.full((count, beams), NOTHING, np.float32),
            "finished_ids": np.zeros((count, beams, size), np.int32),
            "finished_lengths": np.zeros((count, beams), np.int32),
        }
        for name, values in new.items():
            setattr(self, name, np.concatenate([getattr(self, name), values]))

    def advance(self, ids: NDArray[np.int64], log_probabilities: NDArray[np.float32]) -> Advance:
        # A sum is cheaper than looking at every number, and is not a number where one of them is not. It may also be
        # the sum of opposite infinities; then it is worth looking.
        bad = np.isnan(log_probabilities.sum())
        failed = np.asarray(np.isnan(log_probabilities).any(axis=(1, 2))) if bad else np.zeros(len(self), bool)
        totals, parents, tokens = self.best_extensions(ids, log_probabilities)
        self.lengths += 1
        at_limit = self.lengths == self.max_lengths
        ends = tokens == self.end
        beams = self.num_beams
        finishing = (ends | at_limit[:, None])[:, :beams]
        if finishing.any():
            finishing &= totals[:, :beams] > NOTHING
            self.finish(np.flatnonzero(finishing.any(axis=1)), finishing, totals, parents, tokens)
        if ends.any():
            # A stable sort by "ends" brings the best K that do not end to the front, in order.
            chosen = ends.argsort(axis=1, kind="stable")[:, :beams] + self.firsts(2 * beams)
            self.live, parents, tokens = totals.take(chosen), parents.take(chosen), tokens.take(chosen)
        else:
            self.live, parents, tokens = totals[:, :beams], parents[:, :beams], tokens[:, :beams]
        self.extend(parents, tokens)
        best_live = self.live[:, 0] / self.lengths**self.length_penalties
        full = self.finished_scores[:, -1] > NOTHING
        beaten = full if self.stop_at_beams else full & (best_live <= self.finished_scores[:, -1])
        looping = self.loops.looping(self.ids[:, 0], self.lengths)
        if looping.any():
            self.finish_loops(np.flatnonzero(looping & (self.finished_scores[:, 0] == NOTHING)))
        return Advance(tokens, parents, beaten | at_limit | failed | looping, failed)

    def firsts(self, width: int) -> NDArray[np.intp]:
        """(n, 1): where each sentence begins in a flattened array (n, width)."""
        return first_places(len(self), width)

    def extend(self, parents: NDArray[np.intp], tokens: NDArray[np.int64]) -> None:
        """Each beam becomes its parent's ids and a token; parents, tokens (n, K)."""
        longest = int(self.lengths.max())
        beams, size = self.num_beams, self.ids.shape[2]
        flat = self.ids.reshape(-1, size)
        self.ids[:, :, :longest] = flat[:, :longest].take(parents + self.firsts(beams), axis=0)
        last = self.lengths[:, None] - 1 + np.arange(0, beams * size, size) + self.firsts(beams * size)
        flat.reshape(-1)[last] = tokens

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
        sentences: NDArray[np.intp],
        finishing: NDArray[np.bool_],
        totals: NDArray[np.float32],
        parents: NDArray[np.intp],
        tokens: NDArray[np.int64],
    ) -> None:
        """Merges the finishing extensions of ``sentences`` (those that have any) into their K best finished ones."""
        if not len(sentences):
            return
        beams = self.num_beams
        lengths = self.lengths[sentences]
        norms = lengths.astype(float) ** self.length_penalties[sentences]
        new_totals = np.where(finishing, totals[:, :beams], NOTHING)[sentences].astype(np.float32)
        scores = np.concatenate([self.finished_scores[sentences], new_totals / norms[:, None]], axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :beams]
        new_ids = self.ids[sentences[:, None], parents[sentences, :beams]]  # (m, K, T_max), a copy
        new_ids[np.arange(len(sentences)), :, lengths - 1] = tokens[sentences, :beams]
        rows = np.arange(len(sentences))[:, None]
        self.finished_ids[sentences] = np.concatenate([self.finished_ids[sentences], new_ids], axis=1)[rows, best]
        all_totals = np.concatenate([self.finished_totals[sentences], new_totals], axis=1)
        self.finished_totals[sentences] = all_totals[rows, best]
        all_lengths = np.concatenate([self.finished_lengths[sentences], np.repeat(lengths[:, None], beams, 1)], axis=1)
        self.finished_lengths[sentences] = all_lengths[rows, best]
        self.finished_scores[sentences] = scores[rows, best]

    def finish_loops(self, sentences: NDArray[np.intp]) -> None:
        """Makes the best live hypothesis of each of ``sentences`` its only finished one."""
        lengths = self.lengths[sentences]
        self.finished_ids[sentences, 0] = self.ids[sentences, 0]
        self.finished_lengths[sentences, 0] = lengths
        self.finished_totals[sentences, 0] = self.live[sentences, 0]
        self.finished_scores[sentences, 0] = self.live[sentences, 0] / lengths ** self.length_penalties[sentences]

    def found(self, sentence: int) -> list[Found]:
        results = []
        for beam in range(self.num_beams):
            score = float(self.finished_scores[sentence, beam])
            if score > NOTHING:
                length = int(self.finished_lengths[sentence, beam])
                ids = tuple(self.finished_ids[sentence, beam, :length].tolist())
                ended = ids[-1] == self.end
                repeats = not ended and self.loops.ends_in_loop(sentence, ids)
                results.append(Found(ids, float(self.finished_totals[sentence, beam]), score, ended, repeats))
        return results

    def keep(self, which: NDArray[np.bool_]) -> None:
        self.loops.keep(which)
        self.penalties.keep(which)
        names = ("lengths", "max_lengths", "length_penalties", "live", "ids")
        finished = ("finished_scores", "finished_totals", "finished_ids", "finished_lengths")
        for name in (*names, *finished):
            setattr(self, name, getattr(self, name)[which])
