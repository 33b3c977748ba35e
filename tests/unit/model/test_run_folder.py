"""The run's folder after kills, changes and mistakes."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from model import checkpoint
from model.config import TrainingConfig, VocabularyConfig
from model.plan import plan
from model.run_folder import RunFolder
from model.sections import TrainingConfigError
from model.train import Trainer
from tests.unit.model.test_train import with_optimizer, with_run


class Killed(BaseException):
    """What happens next does not."""


def test_killed_while_an_old_checkpoint_is_removed(
    training_config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_run(training_config, validate_every=1, keep_checkpoints=2)

    real = shutil.rmtree

    def remove(folder: Path, ignore_errors: bool = False) -> None:
        if folder.name in ("step-00000001", "step-00000001.old") and folder.exists():
            (folder / "config.json").unlink()
            raise Killed
        real(folder, ignore_errors)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", remove)
        with pytest.raises(Killed):
            Trainer(config).train()
    again = Trainer(config)
    assert again.step == 3
    assert not list(again.folder.path.glob("step-*.old"))
    again.train()
    assert again.step == 6


def test_killed_between_the_best_and_the_newest(
    training_config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_run(training_config, validate_every=2)
    real = Trainer.save

    def save(trainer: Trainer, folder: Path) -> None:
        if trainer.step == 4:
            raise Killed
        real(trainer, folder)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "save", save)
        with pytest.raises(Killed):
            Trainer(config).train()
    again = Trainer(config)
    assert again.step == 2
    again.folder.best.rename(again.folder.best.with_name("best.old"))  # and in the midst of a later one
    again.folder.release()
    again = Trainer(config)
    assert again.folder.best.exists()
    again.train()
    assert checkpoint.read_description(again.folder.best).step == 6, "the loss of this task falls at every step"


def test_two_runs_do_not_share_a_folder(training_config: TrainingConfig) -> None:
    Path(training_config.run.folder).mkdir()
    hold = (
        "import fcntl, sys; f = open(sys.argv[1], 'wb'); fcntl.lockf(f, fcntl.LOCK_EX); print(1, flush=True)\ninput()"
    )
    lock = f"{training_config.run.folder}/lock"
    with subprocess.Popen([sys.executable, "-c", hold, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(TrainingConfigError, match="another run is at work in"):
            Trainer(training_config)
        other.kill()
    Trainer(training_config)


def test_a_folder_that_cannot_be_made_is_named(training_config: TrainingConfig, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "inside"):
        config = with_run(training_config, folder=str(folder))
        with pytest.raises(TrainingConfigError, match=r"run\.folder .* cannot be written"):
            Trainer(config)
        with pytest.raises(TrainingConfigError, match=r"run\.folder .* cannot be written"):
            list(plan(config))


def test_a_vocabulary_is_made_anew_until_a_run_has_begun_with_it(training_config: TrainingConfig) -> None:
    unigram = replace(training_config, vocabulary=VocabularyConfig(size=300))
    bpe = replace(training_config, vocabulary=VocabularyConfig(size=300, type="bpe"))
    folder = RunFolder(Path(training_config.run.folder))
    folder.take()
    first = folder.vocabulary(unigram)
    second = folder.vocabulary(bpe)
    assert first.sha256 != second.sha256
    assert folder.vocabulary(bpe).sha256 == second.sha256
    trainer = Trainer(bpe)
    trainer.save(trainer.folder.latest)
    with pytest.raises(TrainingConfigError, match=r"made otherwise: type \(bpe, now unigram\); give the run another"):
        Trainer(unigram)
    Trainer(replace(bpe, vocabulary=replace(bpe.vocabulary, dropout=0.1)))


def test_what_would_be_ignored_is_refused(training_config: TrainingConfig) -> None:
    Trainer(training_config).train()
    with pytest.raises(TrainingConfigError, match="translates en to fr, not en to de"):
        Trainer(with_run(training_config, target_language="de"))
    with pytest.raises(TrainingConfigError, match=r"optimizer\.name was adam, is muon"):
        Trainer(with_optimizer(training_config, name="muon"))
    other = Trainer(with_optimizer(training_config, weight_decay=0.5, beta2=0.9))
    [adam] = other.optimizers.parts
    assert (adam.param_groups[0]["weight_decay"], adam.param_groups[0]["betas"]) == (0.5, (0.9, 0.9))
    assert len(adam.state) > 0


def test_what_has_changed_is_told_once(training_config: TrainingConfig, capsys: pytest.CaptureFixture[str]) -> None:
    def told(config: TrainingConfig) -> str:
        Trainer(config).train()
        return "".join(line for line in capsys.readouterr().out.splitlines() if line.startswith("changed since then"))

    assert told(with_run(training_config, max_steps=2)) == ""
    assert told(with_run(training_config, max_steps=2)) == ""
    assert (
        told(with_run(training_config, seed=7)) == "changed since then: run.max_steps (2, now 6), run.seed (1, now 7)"
    )
    [corpus] = training_config.train
    longer = with_run(training_config, max_steps=7, seed=7)
    heavier = replace(longer, train=(replace(corpus, weight=2.0), replace(corpus, name="again")))
    expected = "run.max_steps (6, now 7), train (digits, now digits again), train.digits.weight (1.0, now 2.0)"
    assert told(heavier) == f"changed since then: {expected}"
    assert told(heavier) == ""
    (Path(training_config.run.folder) / "resolved.json").write_text("[]")
    assert told(longer) == "", "nobody knows"


def test_a_run_that_has_all_its_steps_says_so(
    training_config: TrainingConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    Trainer(training_config).train()
    assert "nothing is left" not in capsys.readouterr().out
    Trainer(with_run(training_config, max_steps=3)).train()
    assert "step 6\nnothing is left to do: run.max_steps is 3; with more it goes on" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["training.pt", "model.safetensors"])
def test_a_damaged_checkpoint_is_in_the_way_until_it_is_moved(training_config: TrainingConfig, name: str) -> None:
    Trainer(with_run(training_config, validate_every=2)).train()
    newest = RunFolder(Path(training_config.run.folder)).step(6)
    (newest / name).write_bytes(b"damaged")
    with pytest.raises(
        checkpoint.CheckpointError, match=f"{name}.*; with {newest} moved away the run goes on from the"
    ):
        Trainer(training_config)
    newest.rename(newest.parent / "away")
    assert Trainer(training_config).step == 4
