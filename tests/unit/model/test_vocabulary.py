"""The joint vocabulary: special tokens, no text lost, the same every time."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from model.config import CorpusConfig, VocabularyConfig
from model.corpus import CorpusError
from model.sections import TrainingConfigError
from model.vocabulary import learn, learn_vocabulary, sample_sentences
from service.runtime.tokenizer import Tokenizer


def test_special_tokens(tokenizer: Tokenizer) -> None:
    assert (tokenizer.pad, tokenizer.end, tokenizer.start, tokenizer.unknown) == (1, 2, 2, 3)
    assert tokenizer.vocab_size == 300


@pytest.mark.parametrize("text", ["un deux", "Ünïcode", "日本", "😀", "completely other words"])
def test_any_text_can_be_spelled(text: str, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode([text])
    assert tokenizer.unknown not in ids[0]
    assert tokenizer.decode(ids) == [text]


def test_learned_twice_is_the_same(corpus: CorpusConfig, tokenizer: Tokenizer) -> None:
    assert learn_vocabulary([corpus], VocabularyConfig(size=300), seed=1).sha256 == tokenizer.sha256


def test_sample_is_random_and_of_both_sides(corpus: CorpusConfig) -> None:
    sample = list(sample_sentences([corpus], 100, seed=1))
    assert len(sample) == 100
    assert sum(line[0].isdigit() for line in sample) == 50
    assert sample == list(sample_sentences([corpus], 100, seed=1))
    assert sample != list(sample_sentences([corpus], 100, seed=2))


@pytest.mark.parametrize("text", ["", "\t\n \t \n"])
def test_no_text_to_learn_from(text: str, corpus: CorpusConfig, tmp_path: Path) -> None:
    """It is the text that is missing, not the size that is wrong; also where another corpus has some."""
    (tmp_path / "blank.tsv").write_text(text)
    blank = CorpusConfig(name="blank", tsv=str(tmp_path / "blank.tsv"))
    for corpora in ([blank], [corpus, blank]):
        with pytest.raises(CorpusError, match=r"corpus 'blank': no pair is fit for training: no text in .*blank\.tsv"):
            learn_vocabulary(corpora, VocabularyConfig(size=300), seed=1)


def test_what_ends_the_sampling_is_no_matter_of_size(corpus: CorpusConfig, tmp_path: Path) -> None:
    """Also behind sentences that SentencePiece has taken already."""
    missing = CorpusConfig(name="missing", tsv=str(tmp_path / "missing.tsv"))
    with pytest.raises(CorpusError, match=r"^corpus 'missing': there is no file .*missing\.tsv$"):
        learn_vocabulary([corpus, missing], VocabularyConfig(size=300), seed=1)

    def interrupted() -> Iterator[str]:
        yield "one"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(interrupted(), VocabularyConfig(size=300))


def test_existing_model(vocabulary_file: Path, tokenizer: Tokenizer, corpus: CorpusConfig) -> None:
    config = VocabularyConfig(model=str(vocabulary_file))
    assert learn_vocabulary([corpus], config, seed=1).sha256 == tokenizer.sha256


@pytest.mark.parametrize("content", [None, b"", b"nothing of the kind"])
def test_existing_model_that_is_none(content: bytes | None, corpus: CorpusConfig, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "v.spm").write_bytes(content)
    with pytest.raises(TrainingConfigError, match=r"vocabulary\.model: .*v\.spm is no usable vocabulary"):
        learn_vocabulary([corpus], VocabularyConfig(model=str(tmp_path / "v.spm")), seed=1)
