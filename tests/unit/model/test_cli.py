"""`dragoman train` and `dragoman average`: what they print and their exit codes."""

import argparse
import io
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError
from sentencepiece import sentencepiece_model_pb2

from model import checkpoint
from model.cli import add_average_command, add_train_command
from model.config import TrainingConfig
from model.train import Trainer, TrainingError

RECIPE = """
[run]
folder = "{folder}"
source_language = "en"
target_language = "fr"
max_steps = 4
batch_tokens = 200
validate_every = 2
device = "cpu"
sample_sentences = 0

[model]
model_width = 32
num_heads = 2
feed_forward_width = 64
num_encoder_layers = 1
num_decoder_layers = 1
max_positions = 128

[vocabulary]
size = 300

[[train]]
name = "digits"
tsv = "{corpus}"

[[validation]]
name = "digits"
tsv = "{corpus}"
max_pairs = 20
"""


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    add_train_command(commands)
    add_average_command(commands)
    options = parser.parse_args(words)
    code: int = options.run(options)
    return code


@pytest.fixture
def recipe(tmp_path: Path, corpus_file: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(folder=tmp_path / "run", corpus=corpus_file))
    return path


def test_train_and_average(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", str(recipe)) == 0
    assert run("average", str(tmp_path / "run"), str(tmp_path / "mean"), "--last", "2") == 0
    assert "mean of step-00000002, step-00000004" in capsys.readouterr().out
    model, _, description = checkpoint.load_model(tmp_path / "mean")
    assert description.step == 4
    expected = checkpoint.average(checkpoint.steps(tmp_path / "run"))
    assert all(bool((tensor == expected[name]).all()) for name, tensor in model.state_dict().items())


def test_average_of_two_runs(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "run", tmp_path / "other"
    assert run("train", str(recipe)) == 0
    last = first / "step-00000004"
    assert run("train", str(recipe), "--folder", str(second), "--initial-checkpoint", str(last)) == 0
    assert run("average", str(first), str(second), str(tmp_path / "mean"), "--last", "1") == 0
    assert f"mean of {last}, {second / 'step-00000004'}" in capsys.readouterr().out
    expected = checkpoint.average([last, second / "step-00000004"])
    model, _, _ = checkpoint.load_model(tmp_path / "mean")
    assert all(bool((tensor == expected[name]).all()) for name, tensor in model.state_dict().items())
    vocabulary = second / "step-00000004" / "vocabulary.spm"
    changed = sentencepiece_model_pb2.ModelProto.FromString(vocabulary.read_bytes())
    changed.pieces[-1].piece += "x"
    vocabulary.write_bytes(changed.SerializeToString())
    assert run("average", str(first), str(second), str(tmp_path / "no"), "--last", "1") == 78
    assert "do not have the same vocabulary" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_folder_option(recipe: Path, tmp_path: Path) -> None:
    assert run("train", str(recipe), "--folder", str(tmp_path / "other")) == 0
    assert (tmp_path / "other" / "best").is_dir()
    assert not (tmp_path / "run").exists()


def test_other_steps_and_other_weights(recipe: Path, tmp_path: Path) -> None:
    first, tuned = tmp_path / "first", tmp_path / "tuned"
    assert run("train", str(recipe), "--folder", str(first)) == 0
    words = ("--folder", str(tuned), "--initial-checkpoint", str(first / "best"), "--max-steps", "2")
    assert run("train", str(recipe), *words) == 0
    assert checkpoint.read_description(tuned / "best").step == 2
    assert (tuned / "vocabulary.spm").read_bytes() == (first / "vocabulary.spm").read_bytes()
    assert run("train", str(recipe), "--max-steps", "0") == 78


def test_dry_run(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", str(recipe), "--dry-run") == 0
    out = capsys.readouterr().out
    assert "languages   en to fr" in out
    assert "parameters  31,104" in out
    assert "train       digits: 2,000 pairs before cleaning, weight 1" in out
    assert "steps       4 of at most 200 tokens a side" in out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_mistake_is_one_line_and_exit_code_78(dry: list[str], recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.write_text(recipe.read_text().replace("model_width", "model_widht"))
    assert run("train", str(recipe), *dry) == 78
    error = "dragoman train: model.model_widht is unknown; did you mean 'model_width'?\n"
    assert capsys.readouterr().err == error


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_missing_corpus(dry: list[str], recipe: Path, corpus_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.write_text(recipe.read_text().replace(str(corpus_file), "/nowhere.tsv"))
    assert run("train", str(recipe), *dry) == 78
    assert capsys.readouterr().err == "dragoman train: corpus 'digits': there is no file /nowhere.tsv\n"


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_vocabulary_too_large_for_the_text(dry: list[str], recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.write_text(recipe.read_text().replace("size = 300", "size = 5000"))
    assert run("train", str(recipe), *dry) == 78
    assert "vocabulary.size (5000) does not fit the text" in capsys.readouterr().err


def test_a_terminal_without_a_letter_ends_no_run(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "held-out.tsv").write_text("1 \u00e9 2\tun deux\n", encoding="utf-8")
    text = recipe.read_text().replace("sample_sentences = 0", "sample_sentences = 1")
    start, _ = text.split("[[validation]]")
    recipe.write_text(f'{start}[[validation]]\nname = "held-out"\ntsv = "held-out.tsv"\n')
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        assert run("train", str(recipe)) == 0
    terminal.seek(0)
    assert "1 \\xe9 2" in terminal.read()


@pytest.mark.parametrize(("error", "code"), [(TrainingError("step 3: loss nan"), 1), (KeyboardInterrupt(), 130)])
def test_other_exit_codes(error: BaseException, code: int, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_self: Trainer) -> None:
        raise error

    monkeypatch.setattr(Trainer, "train", fail)
    assert run("train", str(recipe)) == code


def test_a_disk_that_is_full_ends_the_run(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise SafetensorError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", fail)
        assert run("train", str(recipe)) == 1
    best = tmp_path / "run" / "best"
    assert f"dragoman train: {best} cannot be written: No space left on device\n" in capsys.readouterr().err
    assert not list((tmp_path / "run").glob("*.partial"))
    assert run("train", str(recipe)) == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_has_not_succeeded(
    number: signal.Signals, code: int, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "judge", lambda *_: signal.raise_signal(number))
        assert run("train", str(recipe)) == code
    assert checkpoint.read_description(tmp_path / "run" / "latest").step == 2
    assert run("train", str(recipe)) == 0


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_what_a_run_begins_with_is_checked(
    dry: list[str], recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", str(recipe), "--initial-checkpoint", "/nowhere", *dry) == 78
    assert "/nowhere is not a checkpoint" in capsys.readouterr().err
    recipe.write_text(recipe.read_text().replace("[vocabulary]", "[vocabulary]\nmodel = '/nowhere.spm'"))
    assert run("train", str(recipe), "--folder", str(tmp_path / "other"), *dry) == 78
    assert "/nowhere.spm is no usable vocabulary" in capsys.readouterr().err


def test_a_mean_that_cannot_be_written(training_config: TrainingConfig, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = Trainer(training_config)
    trainer.save(trainer.folder.step(1))
    assert run("average", str(trainer.folder.path), "/proc/nowhere", "--last", "1") == 1
    assert "/proc/nowhere cannot be written" in capsys.readouterr().err


def test_average_of_too_few(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("average", str(tmp_path), str(tmp_path / "out"), "--last", "3") == 78
    assert capsys.readouterr().err == f"dragoman average: --last 3: {tmp_path} has 0 checkpoints\n"
    assert run("average", str(tmp_path), str(tmp_path / "out"), "--last", "0") == 78
    assert run("average", str(tmp_path / "nowhere"), str(tmp_path / "out")) == 78
    assert f"there is no folder {tmp_path / 'nowhere'}\n" in capsys.readouterr().err


def test_average_of_a_checkpoint(training_config: TrainingConfig, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = Trainer(training_config)
    trainer.save(trainer.folder.best)
    assert run("average", str(trainer.folder.best), str(trainer.folder.path / "out")) == 78
    assert "best has 0 checkpoints; it is a checkpoint of `dragoman train`" in capsys.readouterr().err


def test_average_overwrites_nothing(training_config: TrainingConfig, tmp_path: Path) -> None:
    trainer = Trainer(training_config)
    trainer.save(trainer.folder.path / "step-00000001")
    (tmp_path / "out").mkdir()
    assert run("average", str(trainer.folder.path), str(tmp_path / "out"), "--last", "1") == 78
    assert list((tmp_path / "out").iterdir()) == []


def test_commands_are_known_without_torch() -> None:
    program = "import sys, model.cli; sys.exit('torch' in sys.modules or 'sacrebleu' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
