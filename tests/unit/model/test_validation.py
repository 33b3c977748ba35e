"""What a validation prints and keeps."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from model.config import TrainingConfig
from model.train import Trainer
from tests.unit.model.test_train import with_run


@pytest.mark.parametrize("num_sentences", [0, 2])
def test_bleu_is_told_of_what_was_translated_only(
    num_sentences: int, training_config: TrainingConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    config = with_run(training_config, max_steps=1, sample_sentences=num_sentences)
    Trainer(config).train()
    [line] = (line for line in capsys.readouterr().out.splitlines() if "validation digits: loss" in line)
    events = EventAccumulator(str(Path(config.run.folder) / "tensorboard"))
    events.Reload()
    assert "validation/perplexity_digits" in events.Tags()["scalars"]
    is_told = num_sentences > 0
    assert (" BLEU " in line, "validation/bleu_digits" in events.Tags()["scalars"]) == (is_told, is_told)
