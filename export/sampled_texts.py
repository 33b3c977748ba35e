"""Texts drawn from a vocabulary's own probabilities: to fix int8 scales on, where nobody gives any text.

Knows: SentencePiece's models. Does not know: what texts are for.

A vocabulary learned by the unigram model (Kudo 2018, arXiv:1804.10959) holds the logarithm of each piece's
probability; one learned by byte-pair encoding holds their order, and words follow Zipf's law. Drawn one by one, pieces
make no sense, but have the frequencies of text, and that is what the ends of activations depend on.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sentencepiece import sentencepiece_model_pb2

spm: Any = sentencepiece_model_pb2  # its messages are made at run time, out of mypy's sight
SPACE = "\u2581"
NUM_TEXTS = 128
MIN_PIECES, MAX_PIECES = 4, 24


def probabilities(proto: Any) -> NDArray[np.float64]:
    """Of each piece; 0 for those that stand for no text."""
    is_text = np.array([piece.type == spm.ModelProto.SentencePiece.NORMAL for piece in proto.pieces])
    if proto.trainer_spec.model_type == spm.TrainerSpec.UNIGRAM:
        scores = np.array([piece.score for piece in proto.pieces])
        weights = np.exp(scores - scores[is_text].max(initial=0.0))
    else:
        weights = 1.0 / (1 + np.arange(len(is_text)))
    weights = np.where(is_text, weights, 0.0)
    return np.asarray(weights / max(weights.sum(), np.finfo(float).tiny))


def sampled_texts(model: bytes, count: int = NUM_TEXTS, seed: int = 1) -> list[str]:
    """``count`` texts of MIN_PIECES to MAX_PIECES pieces of a SentencePiece model; the same for the same arguments.

    None where the model has no piece that stands for text.
    """
    proto = spm.ModelProto.FromString(model)
    weights = probabilities(proto)
    if not weights.any():
        return []
    rng = np.random.default_rng(seed)
    texts = []
    for length in rng.integers(MIN_PIECES, MAX_PIECES + 1, count).tolist():
        pieces = [proto.pieces[i].piece for i in rng.choice(len(weights), length, p=weights).tolist()]
        texts.append("".join(pieces).replace(SPACE, " ").strip())
    return texts
