"""What every search has in common. Knows candidate arrays; does not know models, rows of a cache, requests.

Dimensions here: n sentences in the search, K beams, C candidates a row, T target tokens so far.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from service.decoding.options import DecodeOptions
from service.decoding.penalties import Penalties


@lru_cache(maxsize=1024)
def first_places(count: int, width: int) -> NDArray[np.intp]:
    """(count,), not to be written to: where each row begins in a flattened array (count, width)."""
    places = np.arange(0, count * width, width)
    places.setflags(write=False)
    return places


def is_any(what: NDArray[np.bool_]) -> bool:
    """Whether any is true: a quarter of what ``what.any()`` takes, which is more than most steps' arithmetic."""
    return int(np.count_nonzero(what)) > 0


class Found(NamedTuple):
    """A finished hypothesis.

    ids: target token ids, the end token included where ``ended``. log_probability: their sum.
    score: log_probability / len(ids) ** length_penalty. repeats: it ends in a loop (repetition.py).
    """

    ids: tuple[int, ...]
    log_probability: float
    score: float
    ended: bool
    repeats: bool = False


class Advance(NamedTuple):
    """What a step decided.

    tokens (n, K): the next token of each beam. parents (n, K): which beam of the sentence it continues; None where
    every beam continues itself. done (n,): sentences whose search is over. failed (n,): sentences whose candidates were
    not numbers; they are over, too.
    """

    tokens: NDArray[np.int64]
    parents: NDArray[np.intp] | None
    done: NDArray[np.bool_]
    failed: NDArray[np.bool_]


class Search(Protocol):
    """A search over any number of sentences of one beam width, each at its own length."""

    num_beams: int
    num_candidates: int
    """Candidates of a row that a step needs, but for those that the penalties need more."""
    penalties: Penalties
    """Of the sentences in the search; applied to a step's candidates before ``advance``."""
    lengths: NDArray[np.int32]
    """(n,) tokens of each sentence so far."""
    max_lengths: NDArray[np.int32]
    """(n,) tokens each may have."""

    def __len__(self) -> int:
        """Sentences in the search."""

    @property
    def prefixes(self) -> NDArray[np.int32]:
        """(n, K, T_max) tokens of each beam, valid up to ``lengths``."""

    def admit(
        self, options: list[DecodeOptions], max_lengths: list[int], sources: Sequence[Sequence[int]] = ()
    ) -> None:
        """Adds sentences behind those already here; one with an empty source, or none, may repeat itself."""

    def advance(self, ids: NDArray[np.int64], log_probabilities: NDArray[np.float32]) -> Advance:
        """One step of every sentence. ids, log_probabilities: (n, K, C), best first, C >= num_candidates."""

    def end_loops(self, done: NDArray[np.bool_]) -> None:
        """Makes those sentences ``done`` (n,) that repeat themselves now; advance() has done it."""

    def found(self, sentence: int) -> list[Found]:
        """The finished hypotheses of a sentence whose search is over, best first."""

    def keep(self, kept: NDArray[np.intp]) -> None:
        """Forgets all sentences but the ``kept`` ones (m,), ascending; these move up."""
