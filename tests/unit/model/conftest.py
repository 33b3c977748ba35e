"""A task so small that a model learns it in seconds: digits to French words."""

import random
from pathlib import Path

import pytest
import torch

from model.config import CorpusConfig, ModelConfig, OptimizerConfig, RunConfig, TrainingConfig, VocabularyConfig
from model.vocabulary import learn_vocabulary
from service.runtime.tokenizer import Tokenizer

WORDS = ["zero", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf"]
VOCAB_SIZE = 300


def spelled(digits: str) -> str:
    return " ".join(WORDS[int(digit)] for digit in digits.split())


def write_pairs(path: Path, num_pairs: int, seed: int) -> Path:
    rng = random.Random(seed)
    sources = (" ".join(rng.choices("0123456789", k=rng.randint(2, 5))) for _ in range(num_pairs))
    path.write_text("".join(f"{source}\t{spelled(source)}\n" for source in sources), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("digits") / "train.tsv", 2000, seed=1)


@pytest.fixture(scope="session")
def corpus(corpus_file: Path) -> CorpusConfig:
    return CorpusConfig(name="digits", tsv=str(corpus_file))


@pytest.fixture(scope="session")
def tokenizer(corpus: CorpusConfig) -> Tokenizer:
    return learn_vocabulary([corpus], VocabularyConfig(size=VOCAB_SIZE), seed=1)


@pytest.fixture(scope="session")
def vocabulary_file(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vocabulary") / "vocabulary.spm"
    path.write_bytes(tokenizer.model)
    return path


@pytest.fixture
def tiny_model_config() -> ModelConfig:
    return ModelConfig(
        vocab_size=VOCAB_SIZE,
        model_width=32,
        num_heads=2,
        feed_forward_width=64,
        num_encoder_layers=1,
        num_decoder_layers=1,
        dropout=0.0,
        max_positions=128,
    )


@pytest.fixture
def training_config(
    tmp_path: Path, corpus: CorpusConfig, vocabulary_file: Path, tiny_model_config: ModelConfig
) -> TrainingConfig:
    """A run on the digits in float32, to be shortened, lengthened or broken by a test."""
    return TrainingConfig(
        run=RunConfig(
            folder=str(tmp_path / "run"),
            source_language="en",
            target_language="fr",
            max_steps=6,
            batch_tokens=200,
            accumulate=2,
            device="cpu",
            precision="fp32",
            validate_every=1000,
            log_every=2,
            sample_sentences=2,
        ),
        model=tiny_model_config,
        vocabulary=VocabularyConfig(size=VOCAB_SIZE, model=str(vocabulary_file)),
        optimizer=OptimizerConfig(peak_learning_rate=5e-3, warmup_steps=20, label_smoothing=0.1),
        train=(corpus,),
        validation=(CorpusConfig(name="digits", tsv=corpus.tsv, max_pairs=40),),
    )


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # such small products gain nothing from more, and lose much on a busy machine
