"""The Multi30k evaluation: a line is one sentence, both sides search alike, and a difference would be seen."""

import gzip
import json
import sys
from pathlib import Path

import pytest

from benchmarks import multi30k
from benchmarks.multi30k import Found
from model import checkpoint
from model.checkpoint import Description
from model.transformer import Transformer
from service.runtime.tokenizer import Tokenizer
from tests.conftest import random_model, sentences


@pytest.fixture
def run(tmp_path: Path, nonsense_tokenizer: Tokenizer, random_transformer: Transformer) -> Path:
    """A run with two checkpoints: random weights, and the same but for a feed-forward layer."""
    folder = tmp_path / "run"
    other = random_model()
    other.decoder[0].feed_forward.inner.weight.data.mul_(1.1)  # type: ignore[union-attr,operator]
    for step, model in ((1, random_transformer), (2, other)):
        description = Description(model.config, "en", "de", step)
        checkpoint.save(folder / f"step-{step:08d}", model.state_dict(), nonsense_tokenizer, description, None)
    return folder


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nonsense where the captions would be; the first line looks like two sentences."""
    folder = tmp_path / "data" / "multi30k-en-de"
    folder.mkdir(parents=True)
    for part in (multi30k.TEST, multi30k.VALIDATION):
        texts = ["the mill turns . the house stands .", *sentences(5)]
        for side in ("en", "de"):
            with gzip.open(folder / f"{part}.lc.norm.tok.{side}.gz", "wt") as file:
                file.writelines(f"{text}\n" for text in texts)
    monkeypatch.setenv("DRAGOMAN_DATA", str(tmp_path / "data"))
    return folder


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["multi30k.py", *words])
    return multi30k.main()


def test_a_run_is_averaged_exported_tuned_and_scored(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.json"
    words = [str(run), "--last", "2", "--tune", "--work", str(tmp_path / "work"), "--out", str(out)]
    assert call(monkeypatch, *words) == 0
    found = json.loads(out.read_text())
    [row] = found["rows"]
    assert row["checkpoints"] == ["step-00000001", "step-00000002"]
    assert (row["num_sentences"], row["num_equal"]) == (6, 6)
    assert row["bleu_pytorch"] == row["bleu_graphs"] == found["mean_bleu"]
    assert "tok:none" in row["signature"]
    on_validation = {float(penalty): bleu for penalty, bleu in row["validation_bleu"].items()}
    assert set(on_validation) == set(multi30k.LENGTH_PENALTIES)
    assert on_validation[row["length_penalty"]] == max(on_validation.values())


def test_graphs_of_another_model_are_noticed(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export_another(folder: Path, bundle: Path) -> None:
        kept_export(run / "step-00000001", bundle)

    kept_export = multi30k.export
    monkeypatch.setattr(multi30k, "export", export_another)
    checkpoints = [str(run / "step-00000002"), "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out.json")]
    assert call(monkeypatch, *checkpoints) == 1


def test_fewer_checkpoints_than_asked_for_are_refused(
    run: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        call(monkeypatch, str(run), "--last", "3")
    assert "run has 2 checkpoints" in capsys.readouterr().err


def test_only_equal_scores_are_ties() -> None:
    right = [Found([5, 2], -1.0), Found([6, 2], -1.0), Found([7, 2], -1.0)]
    found = [Found([5, 2], -1.0), Found([8, 2], -1.00001), Found([9, 2], -1.1)]
    assert multi30k.compare(right, found) == (1, 1)
