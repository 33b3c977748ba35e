"""A run's vocabulary: of the right text, that of its checkpoints, and named where it is neither."""

from dataclasses import replace
from pathlib import Path

import pytest

from model import run_folder
from model.checkpoint import CheckpointError
from model.config import CorpusConfig, TrainingConfig, VocabularyConfig
from model.run_folder import RunFolder
from model.sections import TrainingConfigError
from model.train import Trainer
from model.vocabulary import learn_vocabulary


@pytest.fixture
def right(training_config: TrainingConfig) -> TrainingConfig:
    """A run that learns its vocabulary of its own text."""
    return replace(training_config, vocabulary=VocabularyConfig(size=training_config.model.vocab_size))


@pytest.fixture
def wrong(right: TrainingConfig, corpus_file: Path, tmp_path: Path) -> TrainingConfig:
    """The same run, but for its text."""
    path = tmp_path / "wrong.tsv"
    path.write_text(corpus_file.read_text(encoding="utf-8").upper(), encoding="utf-8")
    return replace(right, train=(CorpusConfig(name="digits", tsv=str(path)),))


def begun(config: TrainingConfig) -> Trainer:
    """A run that was stopped after its first checkpoint."""
    trainer = Trainer(config)
    trainer.save(trainer.folder.latest)
    trainer.folder.release()
    return trainer


def learned(config: TrainingConfig) -> bytes:
    return learn_vocabulary(config.train, config.vocabulary, config.run.seed).model


def test_a_start_that_came_to_nothing_leaves_no_vocabulary_of_its_text(
    right: TrainingConfig, wrong: TrainingConfig
) -> None:
    assert learned(wrong) != learned(right)
    Trainer(wrong).folder.release()
    path = Path(right.run.folder) / "vocabulary.spm"
    assert path.read_bytes() == learned(wrong)
    trainer = Trainer(right)
    assert trainer.tokenizer.model == path.read_bytes() == learned(right)


def test_a_damaged_vocabulary_of_such_a_start_is_in_nobodys_way(right: TrainingConfig) -> None:
    path = Path(right.run.folder) / "vocabulary.spm"
    path.parent.mkdir()
    path.write_bytes(b"")
    assert Trainer(right).tokenizer.model == path.read_bytes() == learned(right)


def test_other_processes_of_a_run_take_what_the_first_has_learned(
    right: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = RunFolder(Path(right.run.folder))
    first.take()
    vocabulary = first.vocabulary(right)
    monkeypatch.delattr(run_folder, "learn_vocabulary")
    assert RunFolder(first.path).vocabulary(right).model == vocabulary.model


def test_a_vocabulary_that_is_gone_is_that_of_the_newest_checkpoint(
    right: TrainingConfig, wrong: TrainingConfig
) -> None:
    begun(right)
    path = Path(right.run.folder) / "vocabulary.spm"
    path.unlink()
    trainer = Trainer(replace(right, train=wrong.train))
    assert trainer.tokenizer.model == path.read_bytes() == learned(right)


@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_vocabulary_that_is_not_the_checkpoints_is_refused(
    right: TrainingConfig, wrong: TrainingConfig, is_damaged: bool
) -> None:
    trainer = begun(right)
    (trainer.folder.path / "vocabulary.spm").write_bytes(b"" if is_damaged else learned(wrong))
    with pytest.raises(TrainingConfigError, match=r"vocabulary\.spm and .*latest/vocabulary\.spm differ: .* older"):
        Trainer(right)


def test_a_checkpoint_without_a_vocabulary_is_named(right: TrainingConfig) -> None:
    (begun(right).folder.latest / "vocabulary.spm").unlink()
    with pytest.raises(CheckpointError, match=r"latest/vocabulary\.spm cannot be read: No such file"):
        Trainer(right)
    with pytest.raises(CheckpointError, match=r"latest/vocabulary\.spm"):
        RunFolder(Path(right.run.folder)).check_resume(right)


def test_a_damaged_vocabulary_is_named(right: TrainingConfig) -> None:
    trainer = begun(right)
    for folder in (trainer.folder.path, trainer.folder.latest):
        (folder / "vocabulary.spm").write_bytes(b"no vocabulary")
    with pytest.raises(TrainingConfigError, match=r"run/vocabulary\.spm cannot be read"):
        Trainer(right)


def test_a_training_state_of_another_program_is_named(right: TrainingConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = begun(right)
    monkeypatch.setattr("model.checkpoint.load_training", lambda _: {"step": 3})
    with pytest.raises(CheckpointError, match=f"{trainer.folder.latest} does not fit this run: KeyError: 'optimizers'"):
        Trainer(right)
