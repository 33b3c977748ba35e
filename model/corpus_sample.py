"""What a corpus looks like before it is prepared: how many pairs are fit, and how long they are.

Knows: fair samples, stores that are there already. Does not know: what is done with the numbers.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.checkpoint import load_model
from model.config import CorpusConfig, TrainingConfig, VocabularyConfig
from model.corpus import CorpusError, fit_pairs, sample_pairs
from model.data import PAIRS_PER_CHUNK
from model.run_folder import RunFolder, fitting, read_vocabulary, refuse_other_model
from model.sections import TrainingConfigError
from model.token_store import TokenStore, fingerprint, read_report
from model.vocabulary import learn, learn_vocabulary
from service.runtime.tokenizer import VOCABULARY, Tokenizer

VOCABULARY_PAIRS = 20_000
"""Of each sample, to learn a vocabulary from where the run has none yet."""


@dataclass(frozen=True, slots=True)
class CorpusText:
    """Pairs of a corpus, drawn so that each has the same chance; all of them where ``is_whole``."""

    pairs: list[tuple[str, str]]
    num_pairs: int

    @property
    def is_whole(self) -> bool:
        return len(self.pairs) == self.num_pairs


@dataclass(frozen=True, slots=True)
class CorpusLengths:
    """What batches are cut by: looks like a TokenStore without its tokens.

    Attributes:
        lengths: (n, 2) tokens of source and target, end tokens not counted, of the fit pairs of a sample.
        num_fit: fit pairs of the whole corpus; an estimate where not all were seen. A sample hides duplicates.
        is_whole: the lengths are those of all pairs that the run will have.
    """

    lengths: NDArray[np.int32]
    num_fit: int
    is_whole: bool

    def __len__(self) -> int:
        return len(self.lengths)


def read_text(corpus: CorpusConfig, seed: int) -> CorpusText:
    """Raises CorpusError: it cannot be read, or holds no text."""
    return CorpusText(*sample_pairs(corpus, PAIRS_PER_CHUNK, random.Random(f"{seed} {corpus.name} lengths")))


def own_vocabulary(config: TrainingConfig) -> Tokenizer | None:
    """The vocabulary that the run has already, gets with its initial weights, or is told to use.

    Raises:
        CheckpointError, TrainingConfigError: there is none, or it has another size than the model's.
    """
    run, path = config.run, Path(config.run.folder) / VOCABULARY
    if path.is_file() and RunFolder(path.parent).newest() is not None:  # else it is made anew
        return fitting(read_vocabulary(path), path, config.model)
    if run.initial_checkpoint is not None:
        folder = Path(run.initial_checkpoint)
        refuse_other_model(folder, config.model, "copy its [model] table")
        return fitting(load_model(folder)[1], folder / VOCABULARY, config.model)
    if config.vocabulary.model is not None:
        found = learn_vocabulary(config.train, config.vocabulary, run.seed)
        return fitting(found, Path(config.vocabulary.model), config.model)
    return None


def learn_from(texts: Sequence[CorpusText], config: VocabularyConfig) -> Tokenizer:
    """A vocabulary like the one that the run will learn; a smaller one where the samples are too little for it.

    Raises:
        TrainingConfigError: the whole text is too little for so many pieces.
    """
    sentences = [side for text in texts for pair in text.pairs[:VOCABULARY_PAIRS] for side in pair]
    is_all = all(len(text.pairs[:VOCABULARY_PAIRS]) == text.num_pairs for text in texts)
    while True:
        try:
            return learn(iter(sentences), config)
        except TrainingConfigError:
            if is_all or config.size < 1000:
                raise
            config = replace(config, size=config.size // 2)


def measure_lengths(corpus: CorpusConfig, text: CorpusText, tokenizer: Tokenizer) -> CorpusLengths:
    """Cleans and tokenizes a sample.

    Raises:
        CorpusError: none of its pairs is fit.
    """
    counts: Counter[str] = Counter()
    limited = replace(corpus, max_pairs=None) if not text.is_whole else corpus
    lengths = [(len(source), len(target)) for source, target in fit_pairs(text.pairs, limited, tokenizer, counts)]
    share = len(lengths) / max(1, counts["read"])
    num_fit = len(lengths) if text.is_whole else round(share * text.num_pairs)
    chosen = np.asarray(lengths[: corpus.max_pairs], np.int32).reshape(-1, 2)
    if not len(chosen):
        raise CorpusError(f"corpus {corpus.name!r}: no pair is fit for training: {dict(counts)}")
    return CorpusLengths(chosen, min(num_fit, corpus.max_pairs or num_fit), text.is_whole)


def prepared_lengths(corpus: CorpusConfig, tokenizer: Tokenizer, folder: Path) -> CorpusLengths | None:
    """Those of the store that an earlier run has left in ``folder``, if it is still right."""
    if read_report(folder, fingerprint(corpus, tokenizer)) is None:
        return None
    lengths = TokenStore(folder).lengths
    return CorpusLengths(lengths, len(lengths), is_whole=True)
