"""Learns the joint SentencePiece vocabulary of a run from its training text.

Knows: which sentences are sampled and how. Does not know: what the pieces are used for.
"""

import io
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from sentencepiece import SentencePieceTrainer

from model.config import CorpusConfig, VocabularyConfig
from model.corpus import sample_pairs
from model.sections import TrainingConfigError
from service.runtime.tokenizer import Tokenizer

# fairseq's order; the engine and the importers read ids from the model file and do not rely on it.
START_ID, PAD_ID, END_ID, UNKNOWN_ID = 0, 1, 2, 3


def sample_sentences(corpora: Sequence[CorpusConfig], max_sentences: int, seed: int) -> Iterator[str]:
    """Both sides of an equal number of random pairs of each corpus (reservoir sampling, one pass)."""
    share = max(1, max_sentences // (2 * len(corpora)))
    for corpus in corpora:
        chosen, _ = sample_pairs(corpus, share, random.Random(f"{seed} {corpus.name}"))
        for source, target in chosen:
            yield source
            yield target


def learn_vocabulary(corpora: Sequence[CorpusConfig], config: VocabularyConfig, seed: int) -> Tokenizer:
    """The vocabulary of ``config``: learned, or read from its ``model`` file.

    Raises:
        TrainingConfigError: the ``model`` file is none, or the text is too little for so many pieces.
        CorpusError: the text cannot be read, or there is none.
    """
    if config.model is not None:
        try:
            return Tokenizer.from_file(Path(config.model))
        except (OSError, RuntimeError, ValueError) as error:
            raise TrainingConfigError(f"vocabulary.model: {config.model} is no usable vocabulary: {error}") from error
    return learn(sample_sentences(corpora, config.max_sentences, seed), config)


def watched(sentences: Iterator[str], failures: list[BaseException]) -> Iterator[str]:
    """``sentences``; what they raise goes into ``failures``, too: SentencePiece makes a RuntimeError of it."""
    try:
        yield from sentences
    except BaseException as error:
        failures.append(error)
        raise


def learn(sentences: Iterator[str], config: VocabularyConfig) -> Tokenizer:
    """The vocabulary of ``sentences``. Any character can be spelled (byte fallback): none is lost to the unknown token.

    Raises:
        TrainingConfigError: the text is too little for so many pieces. What ``sentences`` raises.
    """
    model, failures = io.BytesIO(), list[BaseException]()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=watched(sentences, failures),
            model_writer=model,
            vocab_size=config.size,
            model_type=config.type,
            character_coverage=config.character_coverage,
            normalization_rule_name=config.normalization,
            byte_fallback=True,
            bos_id=START_ID,
            pad_id=PAD_ID,
            eos_id=END_ID,
            unk_id=UNKNOWN_ID,
            max_sentence_length=100_000,
            minloglevel=1,
        )
    except RuntimeError as error:
        if failures:
            raise failures[0] from None
        raise TrainingConfigError(f"vocabulary.size ({config.size}) does not fit the text: {error}") from error
    return Tokenizer(model.getvalue())
