"""What a model demands of every search: tokens that never come, tokens that must come.

Knows: candidate arrays. Does not know: models, rows, requests. The definitions are those of Transformers' ``generate``
for ``forced_bos_token_id``, ``forced_eos_token_id`` and ``bad_words_ids``: a token that must come costs nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class DecodingRules:
    """Rules of one model.

    Attributes:
        end: the end token. banned: tokens that never stand in a translation, though they have a probability.
        force_end: the last token that a sentence may have is the end token.
        stop_at_beams: beam search ends with K finished hypotheses, even if a live one could still beat them.
    """

    end: int
    banned: tuple[int, ...] = ()
    force_end: bool = False
    stop_at_beams: bool = False

    def apply(
        self,
        ids: NDArray[np.int64],
        log_probabilities: NDArray[np.float32],
        lengths: NDArray[np.int32],
        max_lengths: NDArray[np.int32],
        first: Sequence[tuple[int, ...]],
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Candidates (n, K, C) made of (n, K, C + len(banned)); changes its input.

        Args:
            lengths, max_lengths: (n,) tokens of each sentence so far, and at most.
            first: of each sentence, the tokens its translation must begin with.
        """
        if self.banned:
            ids, log_probabilities = self.without_banned(ids, log_probabilities)
        at_limit = lengths + 1 == max_lengths if self.force_end else np.zeros(len(lengths), bool)
        beginning = lengths < np.fromiter(map(len, first), np.int32, len(first))
        for n in np.flatnonzero(at_limit | beginning).tolist():
            only(self.end if at_limit[n] else first[n][lengths[n]], ids[n], log_probabilities[n])
        return ids, log_probabilities

    def num_unruled(
        self, lengths: NDArray[np.int32], max_lengths: NDArray[np.int32], first: Sequence[tuple[int, ...]]
    ) -> int:
        """In how many steps from now on no token must come; arguments as apply()."""
        if any(len(tokens) > length for tokens, length in zip(first, lengths.tolist(), strict=True) if tokens):
            return 0
        return int((max_lengths - lengths).min()) - self.force_end

    def without_banned(
        self, ids: NDArray[np.int64], log_probabilities: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The best of the others, in their order."""
        kept = ids.shape[-1] - len(self.banned)
        order = np.argsort(np.isin(ids, self.banned), axis=-1, kind="stable")[..., :kept]
        return np.take_along_axis(ids, order, -1), np.take_along_axis(log_probabilities, order, -1)


def only(token: int, ids: NDArray[np.int64], log_probabilities: NDArray[np.float32]) -> None:
    """Makes ``token`` the one possible continuation of each beam (K, C); what was not a number stays none."""
    failed = np.isnan(log_probabilities).any(axis=-1)
    ids[:, 0] = token
    log_probabilities[...] = -np.inf
    log_probabilities[:, 0] = np.where(failed, np.nan, 0.0)
