"""Words cut in other ways: the text stays, the tokens do not."""

import numpy as np
import pytest

from model.config import CorpusConfig, VocabularyConfig
from model.data import BatchStream, SpecialTokens
from model.sections import TrainingConfigError
from model.subword_dropout import WHOLE, SubwordDropout, halves_of, merge_table
from model.vocabulary import learn, learn_vocabulary
from service.runtime.tokenizer import Tokenizer

SENTENCES = [
    f"{subject} {verb} {thing} {number} times ."
    for subject in ("the woman", "a neighbour", "nobody")
    for verb in ("watched", "watches", "watching")
    for thing in ("birds", "a bird", "the birdhouse")
    for number in (2, 3)
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return learn(iter(SENTENCES), VocabularyConfig(size=330, type="bpe", normalization="identity"))


def sequences(tokenizer: Tokenizer) -> list[np.ndarray]:
    return [np.asarray(ids, np.uint16) for ids in tokenizer.encode(SENTENCES)]


def test_a_piece_falls_into_what_was_merged_last() -> None:
    pieces = {"a": 0, "b": 1, "c": 2, "ab": 3, "bc": 4, "abc": 5}
    assert halves_of(pieces, "abc", [0, 0, 0, -1, -2, -3]) == (3, 2)  # ab comes first
    assert halves_of(pieces, "abc", [0, 0, 0, -2, -1, -3]) == (0, 4)
    assert halves_of({"a": 0, "abc": 1}, "abc", [0, -1]) == (WHOLE, WHOLE)


def test_the_table_joins_again_to_the_piece(tokenizer: Tokenizer) -> None:
    processor = tokenizer.processor
    table = merge_table(processor)
    merged = [number for number in range(tokenizer.vocab_size) if table[number, 0] != WHOLE]
    assert merged, "nothing can fall apart"
    for number in merged:
        left, right = (processor.id_to_piece(int(half)) for half in table[number])
        assert left + right == processor.id_to_piece(number)
    assert all(table[special, 0] == WHOLE for special in (tokenizer.pad, tokenizer.end, tokenizer.unknown))


@pytest.mark.parametrize("probability", [0.1, 0.9])
def test_the_text_stays(tokenizer: Tokenizer, probability: float) -> None:
    dropout = SubwordDropout(tokenizer.processor, probability, 1000)
    given = sequences(tokenizer)
    cut = dropout(given, np.random.default_rng(1))
    assert tokenizer.decode([list(map(int, ids)) for ids in cut]) == SENTENCES
    assert sum(map(len, cut)) > sum(map(len, given))


def test_the_share_that_falls_is_the_probability(tokenizer: Tokenizer) -> None:
    dropout = SubwordDropout(tokenizer.processor, 0.2, 10**6)
    piece = max(range(tokenizer.vocab_size), key=lambda number: len(tokenizer.processor.id_to_piece(number)))
    dropout.halves[dropout.halves[piece]] = WHOLE  # the parts stay, so that each fall is one token more
    (cut,) = dropout([np.full(10_000, piece)], np.random.default_rng(1))
    assert len(cut) - 10_000 == pytest.approx(2_000, abs=200)


def test_too_long_stays_as_it_is(tokenizer: Tokenizer) -> None:
    given = sequences(tokenizer)
    cut = SubwordDropout(tokenizer.processor, 0.9, max(map(len, given)))(given, np.random.default_rng(1))
    assert max(map(len, cut)) == max(map(len, given))
    assert tokenizer.decode([list(map(int, ids)) for ids in cut]) == SENTENCES


def test_a_stream_that_goes_on_cuts_as_it_would_have(tokenizer: Tokenizer) -> None:
    class Store:
        def __init__(self) -> None:
            self.ids = sequences(tokenizer)
            self.lengths = np.array([[len(ids), len(ids)] for ids in self.ids])

        def __len__(self) -> int:
            return len(self.ids)

        def source(self, pair: int) -> np.ndarray:
            return self.ids[pair]

        target = source

    def stream(probability: float = 0.3) -> BatchStream:
        special = SpecialTokens(tokenizer.pad, tokenizer.start, tokenizer.end)
        dropout = SubwordDropout(tokenizer.processor, probability, 100)
        return BatchStream([Store()], [1.0], special, 400, 5, subword_dropout=dropout)  # type: ignore[list-item]

    one = stream()
    batches = iter(one)
    for _ in range(7):
        next(batches)
    position, expected = one.position(), next(batches)
    other = stream()
    other.seek(position)
    again = next(iter(other))
    assert again.source.equal(expected.source)
    assert again.target_out.equal(expected.target_out)
    plain = stream(0.0)
    plain.seek(position)
    assert not next(iter(plain)).source.equal(expected.source)


def test_it_is_for_bpe(corpus: CorpusConfig) -> None:
    with pytest.raises(TrainingConfigError, match="bpe"):
        VocabularyConfig(type="unigram", dropout=0.1)
    unigram = learn_vocabulary([corpus], VocabularyConfig(size=300), seed=1)
    with pytest.raises(TrainingConfigError, match="needs a BPE vocabulary"):
        SubwordDropout(unigram.processor, 0.1, 100)
