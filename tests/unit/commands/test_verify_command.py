"""`dragoman verify`: real bundles, with golden translations and without, whole, altered, and beside a checkpoint."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.checkpoint import Description, save
from model.transformer import Transformer
from service.cli import main
from service.model_store import SHIPPED_BUNDLE
from service.runtime.bundle import MANIFEST, SEAL, seal_of
from service.runtime.gpu import missing
from service.runtime.tokenizer import Tokenizer
from tests.conftest import VOCAB_SIZE, random_model, sentences

LINES = "the red house\nwait for rain\n"


@pytest.fixture
def golden_bundle(random_transformer: Transformer, make_bundle: Callable[..., Path], tmp_path: Path) -> Path:
    return make_bundle(random_transformer, tmp_path / "bundle", golden_texts=tuple(sentences(40)))


@pytest.fixture
def make_checkpoint(nonsense_tokenizer: Tokenizer, tmp_path: Path) -> Callable[[Transformer], Path]:
    def make(model: Transformer) -> Path:
        description = Description(model.config, "en", "fr", 0)
        save(tmp_path / "checkpoint", model.state_dict(), nonsense_tokenizer, description, None)
        return tmp_path / "checkpoint"

    return make


def test_golden_translations_are_replayed(golden_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(golden_bundle)]) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first == f"{golden_bundle}: every file is as the manifest says"
    manifest = json.loads((golden_bundle / MANIFEST).read_text())
    count = {name: sum(golden["precision"] == name for golden in manifest["golden"]) for name in manifest["precisions"]}
    assert all(count.values())
    assert others == [f"{name}: {number} golden translations came out as written" for name, number in count.items()]


def test_a_bundle_without_them_is_run_all_the_same(nonsense_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(nonsense_bundle)]) == 0
    assert "cpu-fp32: runs; it has no golden translations" in capsys.readouterr().out


def test_a_bundle_that_says_something_else_is_refused(golden_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = json.loads((golden_bundle / MANIFEST).read_text())
    [*_, last] = (golden for golden in manifest["golden"] if golden["precision"] == "cpu-int8")
    last["ids"][0] += 1
    text = json.dumps(manifest)
    (golden_bundle / MANIFEST).write_text(text)
    (golden_bundle / SEAL).write_bytes(seal_of(text.encode()))
    assert main(["verify", str(golden_bundle)]) == 78
    assert f"golden translation {last['source']!r}" in capsys.readouterr().err


def test_what_only_a_gpu_can_run_is_said(
    random_transformer: Transformer,
    make_bundle: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = make_bundle(random_transformer, tmp_path / "cuda", precisions=("cuda-fp16",))
    if not missing():
        pytest.skip("there is a GPU, which runs them")
    assert main(["verify", str(bundle)]) == 0
    assert "cuda-fp16: not run here; missing: " in capsys.readouterr().out


def test_beside_its_checkpoint_and_beside_another(
    random_transformer: Transformer,
    nonsense_bundle: Path,
    make_checkpoint: Callable[[Transformer], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = tmp_path / "lines.txt"
    text.write_text(LINES)
    with pytest.raises(SystemExit, match="2"):
        main(["verify", str(nonsense_bundle), "--text", str(text)])
    assert "--text needs --checkpoint" in capsys.readouterr().err
    checkpoint = make_checkpoint(random_transformer)
    assert main(["verify", str(nonsense_bundle), "--checkpoint", str(checkpoint), "--text", str(text)]) == 0
    assert "cpu-fp32: 4 greedy and beam searches find PyTorch's token ids" in capsys.readouterr().out

    other = Transformer(replace(random_transformer.config))
    other.load_state_dict(random_transformer.state_dict())
    with torch.no_grad():
        other.target_embedding.weight.mul_(1.5)
    checkpoint.rename(tmp_path / "its own")
    assert main(["verify", str(nonsense_bundle), "--checkpoint", str(make_checkpoint(other.eval()))]) == 1
    assert "cpu-int8: decoder steps: the mean difference from PyTorch is" in capsys.readouterr().err


def test_a_checkpoint_of_another_shape_is_another_model(
    make_checkpoint: Callable[[Transformer], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Also of another vocabulary, with which there would be nothing to compare."""
    checkpoint = make_checkpoint(random_model())
    assert main(["verify", str(SHIPPED_BUNDLE), "--checkpoint", str(checkpoint)]) == 1
    told = capsys.readouterr().err
    assert f"{checkpoint} is of another model: vocab_size is {VOCAB_SIZE}, the bundle's 8000; model_width is 32" in told


def test_lines_longer_than_the_model_takes_are_left_out(
    random_transformer: Transformer,
    nonsense_bundle: Path,
    make_checkpoint: Callable[[Transformer], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = tmp_path / "lines.txt"
    text.write_text(LINES + " ".join(["mill"] * 200) + "\n\n")
    checkpoint = make_checkpoint(random_transformer)
    assert main(["verify", str(nonsense_bundle), "--checkpoint", str(checkpoint), "--text", str(text)]) == 0
    printed = capsys.readouterr().out
    assert "1 of 3 lines have more than 64 tokens and are left out\n" in printed
    assert "cpu-fp32: 4 greedy and beam searches find PyTorch's token ids" in printed
