"""Checkpoints appear whole or not at all, and say clearly what is wrong with them."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from model import checkpoint
from model.checkpoint import CheckpointError, CheckpointWriteError, Description
from model.config import ModelConfig
from model.transformer import Transformer
from service.runtime.tokenizer import Tokenizer
from tests.unit.disk_events import happening


@pytest.fixture
def model(tiny_model_config: ModelConfig) -> Transformer:
    return Transformer(tiny_model_config)


def save(folder: Path, model: Transformer, tokenizer: Tokenizer, step: int = 1) -> None:
    description = Description(model.config, "en", "fr", step, ("digits",))
    checkpoint.save(folder, model.state_dict(), tokenizer, description, {"step": step})


def test_round_trip(model: Transformer, tokenizer: Tokenizer, tmp_path: Path) -> None:
    save(tmp_path / "c", model, tokenizer, step=7)
    loaded, vocabulary, description = checkpoint.load_model(tmp_path / "c")
    assert description == Description(model.config, "en", "fr", 7, ("digits",))
    assert vocabulary.model == tokenizer.model
    assert not loaded.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert checkpoint.load_training(tmp_path / "c") == {"step": 7}


def test_no_embedding_is_stored_twice(model: Transformer, tokenizer: Tokenizer, tmp_path: Path) -> None:
    save(tmp_path / "c", model, tokenizer)
    num_parameters = sum(p.numel() for p in model.parameters())
    assert (tmp_path / "c" / "model.safetensors").stat().st_size < 4 * num_parameters + 10_000


@pytest.mark.parametrize("crash_at", range(1, 5))
def test_crash_at_any_rename_leaves_a_whole_checkpoint(
    crash_at: int, model: Transformer, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dies at the crash_at-th system call that matters of the second save; what is there afterwards is old or new."""
    folder = tmp_path / "latest"
    save(folder, model, tokenizer, step=1)
    calls = 0

    def dying(real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == crash_at:
                raise SystemError("power failure")
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dying(Path.rename))
        patch.setattr(checkpoint, "save_file", dying(checkpoint.save_file))
        patch.setattr(checkpoint, "sync_folder", dying(checkpoint.sync_folder))
        with pytest.raises(SystemError):
            save(folder, model, tokenizer, step=2)
    checkpoint.recover(folder)
    assert checkpoint.load_model(folder)[2].step in (1, 2)
    assert checkpoint.load_training(folder)["step"] == checkpoint.load_model(folder)[2].step
    save(folder, model, tokenizer, step=3)  # and the remains are in nobody's way
    assert checkpoint.load_model(folder)[2].step == 3
    assert [path.name for path in tmp_path.iterdir()] == ["latest"]


def test_all_files_are_on_disk_before_the_folder_gets_its_name(
    model: Transformer, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        events = happening(patch, tmp_path)
        save(tmp_path / "c", model, tokenizer)
    named = events.index(("rename", "c.partial"))
    files = {path.name for path in (tmp_path / "c").iterdir()}
    assert {name for what, name in events[:named] if what == "fsync"} == files | {"c.partial"}
    assert ("fsync", tmp_path.name) in events[named:]


NO_ROOM = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("where", "name", "error"),
    [
        (torch, "save", RuntimeError("[enforce fail at inline_container.cc:659] . unexpected pos 64 vs 0")),
        (checkpoint, "save_file", SafetensorError("I/O error: No space left on device (os error 28)")),
        (os, "fsync", NO_ROOM),
        (Path, "write_bytes", NO_ROOM),
        (Path, "rename", NO_ROOM),
    ],
)
def test_a_full_disk_leaves_the_old_checkpoint_and_no_remains(
    where: Any,
    name: str,
    error: Exception,
    model: Transformer,
    tokenizer: Tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    save(tmp_path / "latest", model, tokenizer, step=1)
    for folder in (tmp_path / "latest", tmp_path / "step-00000002"):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, fail)
            with pytest.raises(CheckpointWriteError, match=f"{folder} cannot be written: "):
                save(folder, model, tokenizer, step=2)
    assert [path.name for path in tmp_path.iterdir()] == ["latest"]
    assert checkpoint.load_model(tmp_path / "latest")[2].step == 1
    assert checkpoint.load_training(tmp_path / "latest") == {"step": 1}


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocabulary.spm"])
@pytest.mark.parametrize("damage", ["absent", "empty", "truncated", "a folder"])
def test_damaged_file_is_named(
    name: str, damage: str, model: Transformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    folder = tmp_path / "c"
    save(folder, model, tokenizer)
    content = (folder / name).read_bytes()
    os.remove(folder / name)
    if damage == "a folder":
        (folder / name).mkdir()
    elif damage != "absent":
        (folder / name).write_bytes(content[: len(content) // 2] if damage == "truncated" else b"")
    with pytest.raises(CheckpointError, match=name):
        checkpoint.load_model(folder)


@pytest.mark.parametrize("content", [None, b"", b"no pickle", b"PK\x03\x04 cut off"])
def test_damaged_training_state(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "training.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"training\.pt"):
        checkpoint.load_training(tmp_path)


@pytest.mark.parametrize("values", [[], {}, {"model": {}}, {"model": {"vocab_size": "300"}}, {"model": 3}])
def test_config_of_another_form(values: object, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"config\.json is damaged"):
        checkpoint.read_description(tmp_path)


def test_weights_of_another_shape(model: Transformer, tokenizer: Tokenizer, tmp_path: Path) -> None:
    save(tmp_path / "c", model, tokenizer)
    values = json.loads((tmp_path / "c" / "config.json").read_text())
    values["model"]["feed_forward_width"] = 128
    (tmp_path / "c" / "config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="does not fit its config"):
        checkpoint.load_model(tmp_path / "c")


def test_average(model: Transformer, tokenizer: Tokenizer, tmp_path: Path) -> None:
    for step in (1, 2, 6):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(step)
        save(tmp_path / f"step-{step:08d}", model, tokenizer, step)
    (tmp_path / "step-00000009.partial").mkdir()
    folders = checkpoint.steps(tmp_path)
    assert [folder.name for folder in folders] == ["step-00000001", "step-00000002", "step-00000006"]
    weights = checkpoint.average(folders)
    assert weights.keys() == model.state_dict().keys()
    assert all(bool((tensor == 3).all()) for tensor in weights.values())


def test_average_of_nothing_and_of_strangers(model: Transformer, tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint to average"):
        checkpoint.average([])
    save(tmp_path / "a", model, tokenizer)
    bigger = ModelConfig(vocab_size=300, model_width=32, num_heads=2, num_encoder_layers=2, num_decoder_layers=1)
    save(tmp_path / "b", Transformer(bigger), tokenizer)
    with pytest.raises(CheckpointError, match="do not have the same weights"):
        checkpoint.average([tmp_path / "a", tmp_path / "b"])
