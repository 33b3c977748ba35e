"""What a request may forbid or discourage: repeated n-grams, repeated tokens, an early end.

Knows: candidate arrays and the tokens before them. Does not know: models, rows, requests. The definitions are those of
Transformers' ``generate`` for ``no_repeat_ngram_size``, ``min_new_tokens`` and, in beam search, ``repetition_penalty``
(CTRL, Keskar et al. 2019, equation 1, on log-probabilities), over the translation's own tokens:

- a token that stands in the translation already has its log-probability multiplied by the repetition penalty;
- a token that would complete an n-gram which the translation has already is impossible;
- the end token is impossible before min_length tokens.

No array as wide as the vocabulary is needed. All three only ever lower a number, and of a row at most U numbers, U
being the different tokens of its translation and the end token. So the best C after them are among the best C + U
before: whoever searches asks the graph for that many candidates, and gets the same as with all of them. The end token
alone is one number of a row: a search that has more candidates than can go on has room for it already, and once the
sentences are past their minimum nothing is left to do. So a model may ask for a minimum in every request at no cost.

Dimensions: n sentences, K beams, C candidates, T tokens of the longest translation so far.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.decoding.options import DecodeOptions
from service.decoding.per_sentence import PerSentence

CANDIDATE_STEP = 16  # so that the number of candidates, and with it memory, does not change with every token


class Penalties(PerSentence):
    """The penalties of the sentences of one search.

    Args:
        num_spare: candidates of a row that the search asks for beyond those that can go on.
    """

    ARRAYS = ("ngram_sizes", "repetition", "min_lengths")

    def __init__(self, end: int, num_spare: int = 0) -> None:
        self.end, self.num_spare = end, num_spare
        self.ngram_sizes: NDArray[np.int32] = np.zeros(0, np.int32)
        self.repetition: NDArray[np.float32] = np.zeros(0, np.float32)
        self.min_lengths: NDArray[np.int32] = np.zeros(0, np.int32)
        self.some_repeat = False  # whether any sentence here has a penalty for what is there already
        self.steps_to_end = 0  # so many steps, at most, until every sentence here may end

    def admit(self, options: Sequence[DecodeOptions]) -> None:
        """Adds sentences behind those already here."""
        sizes = np.array([o.no_repeat_ngram_size for o in options], np.int32)
        repetition = np.array([o.repetition_penalty for o in options], np.float32)
        self.append(sizes, repetition, np.array([o.min_length for o in options], np.int32))
        self.some_repeat |= any(o.no_repeat_ngram_size > 0 or o.repetition_penalty != 1 for o in options)
        self.steps_to_end = max(self.steps_to_end, *(o.min_length for o in options), 0)

    @property
    def some(self) -> bool:
        """Whether apply() may have something to do in this step."""
        return self.some_repeat or self.steps_to_end > 0

    def keep(self, kept: NDArray[np.intp]) -> None:
        super().keep(kept)
        self.steps_to_end = min(self.steps_to_end, int(self.min_lengths.max(initial=0))) if self.steps_to_end else 0
        self.some_repeat = self.some_repeat and bool(self.of_repeats().any())

    def of_repeats(self) -> NDArray[np.bool_]:
        """Which sentences have a penalty for n-grams or tokens that are there already, (n,)."""
        return np.asarray((self.ngram_sizes > 0) | (self.repetition != 1))

    def num_more(self, lengths: NDArray[np.int32]) -> int:
        """How many candidates a row needs beyond those of its search; lengths (n,): tokens so far."""
        if self.some_repeat:
            most = int(lengths[self.of_repeats()].max()) + 1
            return -(-most // CANDIDATE_STEP) * CANDIDATE_STEP
        return 1 if self.steps_to_end > 0 and not self.num_spare else 0

    def pass_steps(self, count: int) -> None:
        """So many steps were done; apply() counts its own."""
        self.steps_to_end = max(self.steps_to_end - count, 0)

    def apply(
        self,
        ids: NDArray[np.int64],
        log_probabilities: NDArray[np.float32],
        prefixes: NDArray[np.int32],
        lengths: NDArray[np.int32],
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Candidates (n, K, C) after the penalties, best first again; changes its input. Once a step.

        Args:
            prefixes: (n, K, T_max), each beam's tokens, valid up to lengths (n,).
        """
        if not self.some:
            return ids, log_probabilities
        self.pass_steps(1)
        if not self.some_repeat and not (ids[lengths < self.min_lengths] == self.end).any():
            return ids, log_probabilities  # as for most sentences: no end is at hand
        chosen = np.flatnonzero(self.of_repeats() | (lengths < self.min_lengths))
        candidates, values, so_far = ids[chosen], log_probabilities[chosen], lengths[chosen]
        longest = int(so_far.max())
        places = np.arange(longest)
        # What stands past a translation's end is no token: -1.
        tokens = np.where(places < so_far[:, None, None], prefixes[chosen, :, :longest], -1)
        repeated = (candidates[..., None] == tokens[:, :, None, :]).any(axis=-1)
        values = np.where(repeated, values * self.repetition[chosen, None, None], values)
        banned = (candidates == self.end) & (so_far < self.min_lengths[chosen])[:, None, None]
        sizes = self.ngram_sizes[chosen]
        for size in np.unique(sizes[sizes > 0]).tolist():
            some = np.flatnonzero((sizes == size) & (so_far >= size))
            if len(some):
                banned[some] |= completes_ngram(candidates[some], tokens[some], so_far[some], size)
        values = np.where(banned & ~np.isnan(values), -np.inf, values)
        order = np.argsort(-values, axis=-1, kind="stable")
        ids[chosen] = np.take_along_axis(candidates, order, -1)
        log_probabilities[chosen] = np.take_along_axis(values, order, -1)
        return ids, log_probabilities


def completes_ngram(
    candidates: NDArray[np.int64], tokens: NDArray[np.int32], lengths: NDArray[np.int32], size: int
) -> NDArray[np.bool_]:
    """Whether each candidate (m, K, C) would complete an n-gram of ``size`` tokens that is in its translation.

    Args:
        tokens: (m, K, T), -1 past a translation's end. lengths: (m,), each at least ``size``.
    """
    ends = tokens[:, :, size - 1 :]  # (m, K, T - size + 1): the last token of each n-gram
    same = ends >= 0
    for i in range(size - 1):
        # The newest size - 1 tokens, one after the other, beside the tokens at the same place of each n-gram.
        place = np.broadcast_to((lengths - (size - 1) + i)[:, None, None], (*tokens.shape[:2], 1))
        same = same & (tokens[:, :, i : i + ends.shape[2]] == np.take_along_axis(tokens, place, -1))
    followers = np.where(same, ends, -1)
    return np.asarray((candidates[..., None] == followers[:, :, None, :]).any(axis=-1))
