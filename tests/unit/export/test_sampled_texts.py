"""Texts drawn from a vocabulary have its frequencies, and none of its special pieces."""

from collections import Counter

import numpy as np
import pytest
from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2

from export.sampled_texts import MAX_PIECES, MIN_PIECES, sampled_texts
from service.runtime.tokenizer import Tokenizer


def vocabulary(model_type: int, scores: dict[str, float]) -> bytes:
    """A vocabulary of words with the scores given, and special pieces beside them."""
    spm = sentencepiece_model_pb2
    proto = spm.ModelProto()
    proto.trainer_spec.model_type = model_type
    special = {"<unk>": 2, "<s>": 3, "</s>": 3, "<0x41>": 6, ">>fra<<": 4}
    for piece, kind in special.items():
        proto.pieces.add(piece=piece, score=0.0, type=kind)
    for word, score in scores.items():
        proto.pieces.add(piece=f"\u2581{word}", score=score, type=1)
    return proto.SerializeToString()


@pytest.mark.parametrize("model_type", [1, 2], ids=["unigram", "bpe"])
def test_words_come_as_often_as_the_vocabulary_says(model_type: int) -> None:
    scores = {"often": np.log(0.6), "now": np.log(0.3), "seldom": np.log(0.1)}
    if model_type == 2:  # places in an order: 1 / rank, from the sixth piece on
        scores = {"often": -1.0, "now": -2.0, "seldom": -3.0}
    texts = sampled_texts(vocabulary(model_type, scores), 2000)
    words = Counter(word for text in texts for word in text.split())
    assert set(words) == {"often", "now", "seldom"}, "nothing special among them"
    total = sum(words.values())
    wanted = {"often": 0.6, "now": 0.3, "seldom": 0.1}
    if model_type == 2:
        ranks = np.array([1 / 6, 1 / 7, 1 / 8])
        wanted = dict(zip(wanted, ranks / ranks.sum(), strict=True))
    assert all(abs(words[word] / total - share) < 0.02 for word, share in wanted.items())
    lengths = [len(text.split()) for text in texts]
    assert (min(lengths), max(lengths)) == (MIN_PIECES, MAX_PIECES)


def test_the_same_arguments_give_the_same_texts(nonsense_tokenizer: Tokenizer) -> None:
    model = nonsense_tokenizer.model
    assert sampled_texts(model, 5) == sampled_texts(model, 5) != sampled_texts(model, 5, seed=2)
    ids = SentencePieceProcessor(model_proto=model).encode(sampled_texts(model, 20))
    assert all(ids)


def test_a_vocabulary_without_text_gives_none() -> None:
    assert sampled_texts(vocabulary(1, {}), 3) == []
