"""Other ways to cut the same words: while training, some merges of a BPE vocabulary are undone at random.

A model that has seen a word cut in several ways learns how it is spelled, and does better on rare words of small
corpora: BPE-dropout (Provilkov et al. 2020, arXiv:1910.13267). There, merges are left out while text is cut; here a
corpus is already token ids, and a piece falls back into the two pieces that made it, each of which may fall in turn.

Knows: what each piece was merged from. Does not know: text, batches. Words are cut in one way when translating.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2

from model.sections import TrainingConfigError

WHOLE = -1


def halves_of(pieces: dict[str, int], piece: str, scores: Sequence[float]) -> tuple[int, int]:
    """Ids of the two pieces whose merge completes ``piece``, or (WHOLE, WHOLE) where nothing does.

    Args:
        pieces: ids by piece. scores: by id; of two merges that are possible, the one of higher score comes first.
    """
    symbols = list(piece)
    while len(symbols) > 2:
        merged = [left + right for left, right in zip(symbols, symbols[1:], strict=False)]
        possible = [place for place, symbol in enumerate(merged) if symbol in pieces and symbol != piece]
        if not possible:
            return WHOLE, WHOLE
        first = max(possible, key=lambda place: scores[pieces[merged[place]]])
        symbols[first : first + 2] = [merged[first]]
    left, right = (pieces.get(symbol, WHOLE) for symbol in symbols)
    return (left, right) if min(left, right) >= 0 else (WHOLE, WHOLE)


def merge_table(processor: SentencePieceProcessor) -> NDArray[np.int64]:
    """(V, 2): the two pieces each piece falls into; WHOLE for characters, bytes and special tokens."""
    size = processor.get_piece_size()
    scores = [processor.get_score(number) for number in range(size)]
    special = (processor.is_control, processor.is_unknown, processor.is_byte, processor.is_unused)
    plain = [number for number in range(size) if not any(is_special(number) for is_special in special)]
    pieces = {processor.id_to_piece(number): number for number in plain}
    table = np.full((size, 2), WHOLE, np.int64)
    for piece, number in pieces.items():
        if len(piece) > 1:
            table[number] = halves_of(pieces, piece, scores)
    return table


def is_bpe(processor: SentencePieceProcessor) -> bool:
    """Whether its pieces were made by merging: of others, what a piece was merged from has no meaning."""
    model: Any = sentencepiece_model_pb2.ModelProto.FromString(  # type: ignore[attr-defined]
        processor.serialized_model_proto()
    )
    return bool(model.trainer_spec.model_type == model.trainer_spec.BPE)


class SubwordDropout:
    """Undoes merges at random.

    Args:
        processor: a BPE vocabulary.
        probability: of each piece to fall apart, and of its parts.
        max_tokens: a sequence that would become longer stays as it is.

    Raises:
        TrainingConfigError: the vocabulary is not BPE.
    """

    def __init__(self, processor: SentencePieceProcessor, probability: float, max_tokens: int) -> None:
        if not is_bpe(processor):
            raise TrainingConfigError("vocabulary.dropout needs a BPE vocabulary; that of this run is none")
        self.halves = merge_table(processor)
        self.probability, self.max_tokens = probability, max_tokens

    def __call__(
        self, sequences: Sequence[NDArray[np.generic]], random: np.random.Generator
    ) -> list[NDArray[np.generic]]:
        """The token ids of each sequence, some of them as two or more."""
        ids = np.concatenate(sequences).astype(np.int64)
        owners = np.repeat(np.arange(len(sequences)), [len(sequence) for sequence in sequences])
        may_fall = np.ones(len(ids), bool)
        while True:
            falls = may_fall & (self.halves[ids, 0] != WHOLE) & (random.random(len(ids)) < self.probability)
            if not falls.any():
                break
            sizes = 1 + falls
            firsts = np.cumsum(sizes)[falls] - 2
            left, right = self.halves[ids[falls]].T
            ids, owners, may_fall = np.repeat(ids, sizes), np.repeat(owners, sizes), np.repeat(falls, sizes)
            ids[firsts], ids[firsts + 1] = left, right
        cut = np.split(ids, np.searchsorted(owners, np.arange(1, len(sequences))))
        return [
            new if len(new) <= self.max_tokens else np.asarray(old) for new, old in zip(cut, sequences, strict=True)
        ]
