"""Checkpoints of a training run: folders that appear whole or not at all.

Knows: what a run needs to go on exactly as if it had never stopped, and how weights are averaged.
Does not know: how training works.

A checkpoint is a folder ``step-00001000`` with model.safetensors (weights, float32), vocabulary.spm, config.json (the
model's shape, languages, corpora) and training.pt (optimizer, data position, random state, best loss: read without
unpickling code). The first three are all that export and fine-tuning need.
"""

import dataclasses
import json
import os
import pickle
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.config import ModelConfig
from model.sections import read_section
from model.transformer import Transformer
from service.runtime.folder_kind import hint
from service.runtime.tokenizer import Tokenizer


class CheckpointWriteError(Exception):
    """A checkpoint could not be written, for want of room for instance; those before it are as they were."""


class CheckpointError(ValueError):
    """A checkpoint folder is missing, incomplete or of another shape; the message names the file."""


@dataclass(frozen=True, slots=True)
class Description:
    """What a checkpoint says of itself besides its weights."""

    model: ModelConfig
    source_language: str
    target_language: str
    step: int
    corpora: tuple[str, ...] = ()


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save(
    folder: Path,
    weights: dict[str, Tensor],
    tokenizer: Tokenizer,
    description: Description,
    training: dict[str, Any] | None,
) -> None:
    """Writes a checkpoint beside its place, then renames: after a crash at any moment ``folder`` is the old or the new.

    Between two renames the old one may be called ``folder.old``: ``recover`` gives it its name back.

    Raises:
        CheckpointWriteError: there is no room for it, or the folder cannot be written.
    """
    temporary = folder.with_name(folder.name + ".partial")
    try:
        write_files(temporary, weights, tokenizer, description, training)
        old = folder.with_name(folder.name + ".old")
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        temporary.rename(folder)
        sync_folder(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch's and safetensors' own for a disk that is full
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointWriteError(f"{folder} cannot be written: {error}") from error


def write_files(
    temporary: Path,
    weights: dict[str, Tensor],
    tokenizer: Tokenizer,
    description: Description,
    training: dict[str, Any] | None,
) -> None:
    """The files of a checkpoint in ``temporary``, all of them on the disk when it returns."""
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    stored = {name: tensor.detach().float().contiguous() for name, tensor in weights.items()}
    if description.model.tie_embeddings:
        stored.pop("target_embedding.weight", None)
    save_file(stored, temporary / "model.safetensors")
    (temporary / "vocabulary.spm").write_bytes(tokenizer.model)
    (temporary / "config.json").write_text(json.dumps(dataclasses.asdict(description), indent=2) + "\n")
    if training is not None:
        torch.save(training, temporary / "training.pt")
    for file in temporary.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    sync_folder(temporary)


def recover(folder: Path) -> None:
    """Undoes a ``save`` that was interrupted between its two renames."""
    old = folder.with_name(folder.name + ".old")
    if old.exists() and not folder.exists():
        old.rename(folder)


def read_description(folder: Path) -> Description:
    """What config.json says.

    Raises:
        CheckpointError: there is none, it cannot be read, or it is damaged.
    """
    try:
        values = json.loads((folder / "config.json").read_text())
        model = read_section(ModelConfig, values.pop("model"), "model")
        return Description(model=model, **(values | {"corpora": tuple(values["corpora"])}))
    except (FileNotFoundError, NotADirectoryError) as error:
        what = hint(folder, "checkpoint")
        raise CheckpointError(f"{folder} is not a checkpoint: it has no config.json{what}") from error
    except OSError as error:
        raise CheckpointError(f"{folder / 'config.json'} cannot be read: {error.strerror}") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        what = hint(folder, "checkpoint")
        raise CheckpointError(f"{folder / 'config.json'} is damaged: {error}{what}") from error


def load_weights(folder: Path) -> dict[str, Tensor]:
    """All weights by name, float32; a tied embedding under both its names.

    Raises:
        CheckpointError: model.safetensors is missing or damaged.
    """
    try:
        weights = load_file(folder / "model.safetensors")
    except Exception as error:  # safetensors raises its own type for truncation, OSError for absence
        raise CheckpointError(f"cannot read {folder / 'model.safetensors'}: {error}") from error
    if "source_embedding.weight" in weights:
        weights.setdefault("target_embedding.weight", weights["source_embedding.weight"])
    return weights


def fill(model: Transformer, folder: Path) -> None:
    """Gives a model of the checkpoint's shape its weights.

    Raises:
        CheckpointError: they are missing, damaged, or do not have the shape that config.json says.
    """
    try:
        model.load_state_dict(load_weights(folder))
    except RuntimeError as error:
        raise CheckpointError(f"{folder} does not fit its config.json: {error}") from error


def load_model(folder: Path) -> tuple[Transformer, Tokenizer, Description]:
    """The model of a checkpoint, in evaluation mode, with its vocabulary.

    Raises:
        CheckpointError: a file is missing, damaged, or the weights do not have the shape that config.json says.
    """
    description = read_description(folder)
    model = Transformer(description.model)
    fill(model, folder)
    try:
        tokenizer = Tokenizer.from_file(folder / "vocabulary.spm")
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"cannot read {folder / 'vocabulary.spm'}: {error}") from error
    if tokenizer.vocab_size != description.model.vocab_size:
        raise CheckpointError(
            f"{folder / 'vocabulary.spm'} has {tokenizer.vocab_size} pieces, the model {description.model.vocab_size}"
        )
    return model.eval(), tokenizer, description


def load_training(folder: Path) -> dict[str, Any]:
    """What else a run needs to go on.

    Raises:
        CheckpointError: training.pt is missing or damaged.
    """
    try:
        state: dict[str, Any] = torch.load(folder / "training.pt", map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} has no training.pt: it can be exported but not resumed") from error
    except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        why = str(error).partition("\n")[0].partition(". ")[0]  # PyTorch goes on with advice to run what is in the file
        raise CheckpointError(f"{folder / 'training.pt'} is damaged: {why}") from error
    return state


def steps(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir() and not path.suffix)


def average(folders: Sequence[Path]) -> dict[str, Tensor]:
    """The mean of the weights of several checkpoints (section 6.1 of the paper averages the last 5).

    They must be of one run, or of runs that went on from one another: only then is their mean a model, and mostly a
    better one than each (Izmailov et al. 2018, arXiv:1803.05407).

    Raises:
        CheckpointError: there is none, one cannot be read, or they are not of the same model.
    """
    if not folders:
        raise CheckpointError("there is no checkpoint to average")
    total = {name: tensor.double() for name, tensor in load_weights(folders[0]).items()}
    for folder in folders[1:]:
        weights = load_weights(folder)
        if {name: w.shape for name, w in weights.items()} != {name: t.shape for name, t in total.items()}:
            raise CheckpointError(f"{folder} and {folders[0]} do not have the same weights")
        for name, tensor in weights.items():
            total[name] += tensor.double()
    return {name: (tensor / len(folders)).float() for name, tensor in total.items()}
