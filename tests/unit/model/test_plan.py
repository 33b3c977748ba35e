"""What a dry run says comes true."""

import re
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from model.checkpoint import CheckpointError
from model.config import CorpusConfig, OptimizerConfig, TrainingConfig, VocabularyConfig
from model.corpus import CorpusError
from model.corpus_sample import measure_lengths, read_text
from model.data import BatchStream, SpecialTokens
from model.plan import plan
from model.sections import TrainingConfigError
from model.token_store import prepare
from model.train import Trainer
from service.runtime.tokenizer import Tokenizer
from tests.unit.model.conftest import write_pairs
from tests.unit.model.test_train import with_run


def number(pattern: str, lines: list[str]) -> float:
    [found] = [match[1] for line in lines if (match := re.search(pattern, line))]
    return float(found.replace(",", ""))


def begun(config: TrainingConfig, step: int = 3) -> Trainer:
    """A run that was stopped at ``step``."""
    trainer = Trainer(config)
    trainer.step = step
    trainer.save(trainer.folder.latest)
    trainer.folder.release()
    return trainer


def test_a_small_corpus_is_counted_exactly(
    training_config: TrainingConfig, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    lines = list(plan(training_config))
    store = prepare(training_config.train[0], tokenizer, tmp_path / "store")
    special = SpecialTokens(tokenizer.pad, tokenizer.start, tokenizer.end)
    stream = BatchStream([store], [1.0], special, training_config.run.batch_tokens, training_config.run.seed)
    num_batches = len(stream.batches_of_chunk(0))
    epoch = list(islice(stream, num_batches))
    assert number(r"digits: ([\d,]+) pairs fit.*counted", lines) == len(store)
    assert number(r"an epoch is ([\d,]+) steps", lines) == round(num_batches / training_config.run.accumulate)
    target_tokens = sum(batch.num_target_tokens for batch in epoch)
    assert number(r"and ([\d,]+) target tokens on average", lines) == round(target_tokens / num_batches)
    text = target_tokens + sum(int(batch.source_lengths.sum()) for batch in epoch)
    padded = sum(batch.source.numel() + batch.target_in.numel() for batch in epoch)
    assert number(r"; (\d+)% of their tokens", lines) == round(100 * text / padded)
    assert not (tmp_path / "run").exists()


def test_a_sample_of_a_large_corpus_is_fair(
    training_config: TrainingConfig, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sorted by length, as files often are: the first pairs would mislead."""
    path = write_pairs(tmp_path / "sorted.tsv", 3000, seed=5)
    path.write_text("".join(sorted(path.read_text().splitlines(keepends=True), key=len)))
    corpus = CorpusConfig(name="sorted", tsv=str(path), drop_duplicates=False)
    store = prepare(corpus, tokenizer, tmp_path / "store")
    monkeypatch.setattr("model.corpus_sample.PAIRS_PER_CHUNK", 500)
    found = measure_lengths(corpus, read_text(corpus, seed=1), tokenizer)
    assert len(found) == 500
    assert not found.is_whole
    assert found.num_fit == len(store) == 3000
    assert found.lengths.mean() == pytest.approx(store.lengths.mean(), rel=0.05)
    lines = list(plan(replace(training_config, train=(corpus,))))
    assert any(re.search(r"sorted: 3,000 pairs fit.*\+- \d\.\d%, from 500 of them", line) for line in lines)


def test_validation_text_is_cleaned_too(training_config: TrainingConfig, tmp_path: Path) -> None:
    (tmp_path / "empty.tsv").write_text("\t\n")
    held_out = CorpusConfig(name="empty", tsv=str(tmp_path / "empty.tsv"))
    with pytest.raises(CorpusError, match="'empty': no pair is fit"):
        list(plan(replace(training_config, validation=(held_out,))))


def test_a_run_that_has_begun_is_counted_from_its_store(training_config: TrainingConfig, tokenizer: Tokenizer) -> None:
    folder = Path(training_config.run.folder)
    store = prepare(training_config.train[0], tokenizer, folder / "data" / "train-digits")
    begun(training_config)
    lines = list(plan(training_config))
    assert number(r"digits: ([\d,]+) pairs fit.*counted", lines) == len(store)
    assert not any(line.startswith("vocabulary") for line in lines)


def test_it_says_where_the_run_would_go_on(training_config: TrainingConfig) -> None:
    assert not any(line.startswith("resumes") for line in plan(training_config))
    latest = begun(training_config).folder.latest
    assert f"resumes     from {latest} at step 3" in list(plan(training_config))


def test_what_a_run_would_refuse_is_refused(training_config: TrainingConfig) -> None:
    trainer = begun(training_config)
    model = replace(training_config.model, feed_forward_width=128)
    for config, message in (
        (replace(training_config, model=model), r"another model: feed_forward_width \(64, now 128\)"),
        (with_run(training_config, target_language="de"), "translates en to fr, not en to de"),
        (replace(training_config, vocabulary=VocabularyConfig(size=300)), r"vocabulary\.spm was made otherwise"),
        (replace(training_config, optimizer=OptimizerConfig(name="muon")), r"optimizer\.name was adam, is muon"),
    ):
        with pytest.raises(TrainingConfigError, match=message):
            list(plan(config))
    for name in ("model.safetensors", "training.pt"):
        (trainer.folder.latest / name).write_bytes(b"PK")
        with pytest.raises(CheckpointError, match=re.escape(name)):
            list(plan(training_config))


def test_what_a_start_that_came_to_nothing_has_learned_is_not_counted_with(training_config: TrainingConfig) -> None:
    folder = Path(training_config.run.folder)
    folder.mkdir()
    (folder / "vocabulary.spm").write_bytes(b"")
    lines = list(plan(replace(training_config, vocabulary=VocabularyConfig(size=300))))
    assert any(line.startswith("vocabulary  none yet") for line in lines)
