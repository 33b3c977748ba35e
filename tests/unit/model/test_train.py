"""The loop: it learns, it can be stopped anywhere, and it goes on as if it had not been."""

import math
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from model import checkpoint
from model.config import CorpusConfig, TrainingConfig
from model.corpus import CorpusError
from model.data import Batch
from model.loss import perplexity
from model.machine import choose_device
from model.reference_decode import greedy_search
from model.sections import TrainingConfigError
from model.train import Trainer, TrainingError


def with_run(config: TrainingConfig, **options: Any) -> TrainingConfig:
    return replace(config, run=replace(config.run, **options))


def with_optimizer(config: TrainingConfig, **options: Any) -> TrainingConfig:
    return replace(config, optimizer=replace(config.optimizer, **options))


def same_weights(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_three_steps_resume_three_steps_equals_six(
    optimizer: str, dropout: float, training_config: TrainingConfig, tmp_path: Path
) -> None:
    config = with_optimizer(training_config, name=optimizer)
    config = replace(config, model=replace(config.model, dropout=dropout))
    whole = Trainer(with_run(config, folder=str(tmp_path / "whole")))
    whole.train()

    first = Trainer(config)
    batches = iter(first.stream)
    for _ in range(3):
        first.update([next(batches), next(batches)])
    first.save(first.folder.latest)
    torch.manual_seed(99)  # what happens in between must not matter
    second = Trainer(config)
    assert second.step == 3
    second.train()

    assert second.step == whole.step == 6
    assert second.target_tokens == whole.target_tokens
    assert same_weights(second.model.state_dict(), whole.model.state_dict())


def test_signal_saves_and_the_same_command_goes_on(
    training_config: TrainingConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = Trainer.update

    def update(self: Trainer, batches: list[Batch]) -> tuple[float, float, float]:
        result = real(self, batches)
        if self.step == 2:
            signal.raise_signal(signal.SIGINT)
        return result

    monkeypatch.setattr(Trainer, "update", update)
    handler = signal.getsignal(signal.SIGINT)
    trainer = Trainer(training_config)
    trainer.train()
    assert trainer.step == 2
    assert "stopped at step 2" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is handler
    again = Trainer(training_config)
    assert again.step == 2
    again.train()
    assert again.step == 6


def test_second_signal_stops_at_once(training_config: TrainingConfig) -> None:
    trainer = Trainer(training_config)
    trainer.request_stop(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt):
        trainer.request_stop(signal.SIGINT, None)


def test_several_processes_stop_at_the_step_at_which_all_have_heard_of_it(
    training_config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(training_config)
    batches = iter(trainer.stream)
    monkeypatch.setattr(trainer.processes, "count", 2)
    monkeypatch.setattr(trainer.processes, "sums", lambda *values: [2 * value for value in values])
    trainer.update([next(batches)])
    trainer.request_stop(signal.SIGTERM, None)
    assert not trainer.is_stopped, "the other would wait for this one"
    trainer.update([next(batches)])
    assert trainer.is_stopped


def test_learns_to_spell_digits(training_config: TrainingConfig, capsys: pytest.CaptureFixture[str]) -> None:
    """Loss falls, and a sentence that is not in the corpus is translated: the encoder is used."""
    config = with_optimizer(training_config, name="muon", schedule="trapezoid", peak_learning_rate=1e-2)
    config = with_run(config, max_steps=600, batch_tokens=600, accumulate=1, validate_every=200, log_every=20)
    trainer = Trainer(config)
    trainer.train()
    out = capsys.readouterr().out
    losses = [float(line.split()[3]) for line in out.splitlines() if " loss " in line and " gradient " in line]
    assert losses[-1] < 0.5 * losses[0]
    assert "validation digits: loss" in out

    model, tokenizer, _ = checkpoint.load_model(trainer.folder.path / "best")
    sources = ["7 0 4 4 1", "9 9", "3 1 4 1 5"]
    expected = ["sept zero quatre quatre un", "neuf neuf", "trois un quatre un cinq"]
    found = [
        greedy_search(model, [*ids, tokenizer.end], tokenizer.start, tokenizer.end, 40).ids
        for ids in tokenizer.encode(sources)
    ]
    assert tokenizer.decode(found) == expected


def test_bf16_autocast_trains(training_config: TrainingConfig) -> None:
    trainer = Trainer(with_run(training_config, precision="bf16"))
    batches = iter(trainer.stream)
    loss, norm, rate = trainer.update([next(batches)])
    assert math.isfinite(loss)
    assert norm > 0
    assert rate > 0
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())


def test_accumulated_batches_equal_their_sum(training_config: TrainingConfig, tmp_path: Path) -> None:
    """Two batches in one step move the weights by the mean over all their tokens, not by the mean of their means."""
    trainer = Trainer(training_config)
    batches = iter(trainer.stream)
    pair = [next(batches), next(batches)]
    loss, _, _ = trainer.update(pair)
    fresh = Trainer(with_run(training_config, folder=str(tmp_path / "other")))
    total = sum(float(fresh.loss(batch).smoothed.detach()) for batch in pair)
    assert loss == pytest.approx(total / sum(batch.num_target_tokens for batch in pair), rel=1e-6)


def test_only_the_last_checkpoints_and_the_best_are_kept(training_config: TrainingConfig) -> None:
    trainer = Trainer(with_run(training_config, validate_every=1, keep_checkpoints=2))
    trainer.train()
    assert [folder.name for folder in checkpoint.steps(trainer.folder.path)] == ["step-00000005", "step-00000006"]
    assert (trainer.folder.path / "best" / "model.safetensors").exists()
    assert (trainer.folder.path / "tensorboard").is_dir()


def test_patience(training_config: TrainingConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    losses: Sequence[float] = [2.0, 1.0, 1.5, 1.2, 0.5, 0.4]
    trainer = Trainer(with_run(training_config, validate_every=1, patience=2))
    monkeypatch.setattr(Trainer, "validate", lambda self, _writer: losses[self.step - 1])
    trainer.train()
    assert trainer.step == 4
    assert trainer.best_loss == 1.0
    assert checkpoint.read_description(trainer.folder.path / "best").step == 2
    again = Trainer(with_run(training_config, validate_every=1, patience=2))
    again.train()
    assert again.step == 4, "patience that has run out stays so"


def test_loss_that_is_no_number_stops_the_run(training_config: TrainingConfig) -> None:
    trainer = Trainer(training_config)
    with torch.no_grad():
        trainer.model.source_embedding.weight[:] = math.nan
    with pytest.raises(TrainingError, match="step 1: loss nan"):
        trainer.train()
    assert not (trainer.folder.path / "latest").exists()


def test_what_is_no_number_is_not_saved(training_config: TrainingConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config = with_run(training_config, validate_every=2)
    for loss in (math.nan, 99.0):
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "validate", lambda self, _, loss=loss: 5.0 if self.step == 2 else loss)
            with pytest.raises(TrainingError, match="step 4: the validation loss is"):
                Trainer(config).train()
        again = Trainer(config)
        assert (again.step, again.best_loss) == (2, 5.0)
    with torch.no_grad():
        again.model.source_embedding.weight[0, 0] = math.inf
    with pytest.raises(TrainingError, match="weights are not finite; nothing was saved"):
        again.save(again.folder.latest)
    assert Trainer(config).step == 2
    assert perplexity(1e6) == math.inf


def test_tensorboard_keeps_every_point(training_config: TrainingConfig) -> None:
    config = with_run(training_config, validate_every=2)
    for last in (2, 4, 4, 6):
        Trainer(with_run(config, max_steps=last)).train()
    events = EventAccumulator(str(Path(config.run.folder) / "tensorboard"))
    events.Reload()
    for name in ("train/loss", "validation/loss_digits"):
        assert [event.step for event in events.Scalars(name)] == [2, 4, 6]


def test_folder_of_another_model_is_refused(training_config: TrainingConfig) -> None:
    trainer = Trainer(training_config)
    trainer.save(trainer.folder.path / "latest")
    other = replace(training_config, model=replace(training_config.model, feed_forward_width=128, dropout=0.3))
    with pytest.raises(TrainingConfigError, match=r"another model: feed_forward_width \(64, now 128\); give the run"):
        Trainer(other)


def test_vocabulary_of_another_size_is_refused(training_config: TrainingConfig) -> None:
    with pytest.raises(TrainingConfigError, match=r"vocabulary\.spm has 300 pieces, model\.vocab_size is 301"):
        Trainer(replace(training_config, model=replace(training_config.model, vocab_size=301)))


@pytest.mark.parametrize("part", ["train", "validation"])
def test_a_missing_file_is_told_before_anything_is_prepared(part: str, training_config: TrainingConfig) -> None:
    """The last corpus is looked for as early as the first, which may take hours."""
    corpora = (*getattr(training_config, part), CorpusConfig(name="gone", tsv="/nowhere.tsv"))
    with pytest.raises(CorpusError, match=r"corpus 'gone': there is no file /nowhere\.tsv"):
        Trainer(replace(training_config, **{part: corpora}))
    assert [path.name for path in Path(training_config.run.folder).iterdir()] == ["lock"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_device() -> None:
    assert choose_device("auto").type == "cpu"
    with pytest.raises(TrainingConfigError, match=r"run\.device is cuda, but"):
        choose_device("cuda")


def test_fine_tuning_begins_with_the_weights_of_a_checkpoint(training_config: TrainingConfig, tmp_path: Path) -> None:
    first = Trainer(training_config)
    first.train()
    tuned = Trainer(
        with_run(training_config, folder=str(tmp_path / "tuned"), initial_checkpoint=str(first.folder.best))
    )
    assert tuned.step == 0
    assert same_weights(tuned.model.state_dict(), first.model.state_dict())
    assert tuned.tokenizer.sha256 == first.tokenizer.sha256
    tuned.train()
    assert not same_weights(tuned.model.state_dict(), first.model.state_dict())
    again = Trainer(tuned.config)
    assert again.step == 6, "a run that has begun goes on from its own checkpoints"


def test_an_initial_checkpoint_that_would_be_ignored_is_refused(
    training_config: TrainingConfig, tmp_path: Path
) -> None:
    first = Trainer(training_config)
    first.train()
    best, tuned = str(first.folder.best), str(tmp_path / "tuned")
    with pytest.raises(
        TrainingConfigError, match=r"run began with random weights .* not with .*best: leave the initial"
    ):
        Trainer(with_run(training_config, initial_checkpoint=best))
    Trainer(with_run(training_config, folder=tuned, initial_checkpoint=best)).train()
    with pytest.raises(TrainingConfigError, match=r"tuned began with .*best and goes on .* not with .*latest"):
        Trainer(with_run(training_config, folder=tuned, initial_checkpoint=str(first.folder.latest)))
    same = os.path.relpath(best)
    assert (
        Trainer(with_run(training_config, folder=tuned, initial_checkpoint=same)).step == training_config.run.max_steps
    )
    assert Trainer(with_run(training_config, folder=tuned)).step == training_config.run.max_steps, "it needs none"


def test_fine_tuning_of_another_model_is_refused(training_config: TrainingConfig, tmp_path: Path) -> None:
    first = Trainer(training_config)
    first.save(first.folder.latest)
    config = with_run(training_config, folder=str(tmp_path / "tuned"), initial_checkpoint=str(first.folder.latest))
    with pytest.raises(TrainingConfigError, match=r"another model: num_heads \(2, now 4\); copy its \[model\] table"):
        Trainer(replace(config, model=replace(config.model, num_heads=4)))


def test_exploding_loss_stops_and_names_the_batch(training_config: TrainingConfig) -> None:
    trainer = Trainer(with_run(training_config, max_loss=50.0, accumulate=1))
    with torch.no_grad():
        trainer.model.source_embedding.weight *= 100
    expected = r"step 1: loss \d+\.\d+ .* have exploded \(run\.max_loss 50\); .*: chunk 0 batch 0 \(corpus 0, pair"
    with pytest.raises(TrainingError, match=expected):
        trainer.train()


def test_dropout_is_that_of_the_step_whatever_happened_before(training_config: TrainingConfig, tmp_path: Path) -> None:
    config = replace(training_config, model=replace(training_config.model, dropout=0.5))
    one, other = Trainer(config), Trainer(with_run(config, folder=str(tmp_path / "other")))
    torch.rand(100)
    batches = [next(iter(one.stream))]
    assert one.update(batches) == other.update(batches)
    first = one.update(batches)
    assert first != one.update(batches)
