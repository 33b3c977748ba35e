"""A run's folder: its lock, its vocabulary, its checkpoints, and what may not change when the run goes on.

Knows: which files there are, and in which order they come and go, so that a kill at any moment loses nothing.
Does not know: training.
"""

import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
from io import BufferedWriter
from pathlib import Path
from typing import Any

from model import checkpoint
from model.config import ModelConfig, RunConfig, TrainingConfig
from model.sections import TrainingConfigError
from model.vocabulary import learn_vocabulary
from service.runtime.tokenizer import VOCABULARY, Tokenizer

ORIGIN, RESOLVED = "vocabulary.json", "resolved.json"
_INITIAL = "initial_checkpoint"


class RunFolder:
    """The folder ``path``; where several processes share a run, the first of them takes it.

    Attributes:
        latest: the checkpoint of a run that was stopped. best: that of the lowest validation loss.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.latest, self.best = path, path / "latest", path / "best"
        self._lock: BufferedWriter | None = None

    def check(self) -> None:
        """Raises TrainingConfigError where take() could not make it; makes nothing."""
        parent = next(path for path in (self.path, *self.path.absolute().parents) if path.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise TrainingConfigError(
                f"run.folder {self.path} cannot be written: {parent} is no folder we may write in"
            )

    def take(self) -> None:
        """Makes it, and puts right what a kill has left.

        Raises:
            TrainingConfigError: it cannot be made, or another run has it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / "lock").open("wb")
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise TrainingConfigError(f"another run is at work in {self.path}") from None
        except OSError as error:
            raise TrainingConfigError(f"run.folder {self.path} cannot be written: {error.strerror}") from None
        for folder in (self.latest, self.best):
            checkpoint.recover(folder)
        for pattern in ("step-*.old", "step-*.partial"):
            for left in self.path.glob(pattern):
                shutil.rmtree(left, ignore_errors=True)

    def release(self) -> None:
        """Lets others have it; may be called again."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __del__(self) -> None:
        self.release()

    def newest(self) -> Path | None:
        """The checkpoint to go on from."""
        found = [*checkpoint.steps(self.path), *self.path.glob(self.latest.name)]
        return max(found, key=lambda folder: checkpoint.read_description(folder).step, default=None)

    def step(self, number: int) -> Path:
        """The checkpoint of a validated step."""
        return self.path / f"step-{number:08d}"

    def keep(self, count: int) -> None:
        """Removes all validated checkpoints but the last ``count``; each is out of the way before it is taken apart."""
        for folder in checkpoint.steps(self.path)[:-count]:
            old = folder.with_name(folder.name + ".old")
            folder.rename(old)
            shutil.rmtree(old)

    def vocabulary(self, config: TrainingConfig) -> Tokenizer:
        """The run's vocabulary, learned (or taken from the initial checkpoint) once and kept.

        Raises:
            TrainingConfigError: it is not what the configuration asks for, and the run has begun with it.
            CorpusError, CheckpointError: what it is to be made of cannot be read.
        """
        path, newest = self.path / VOCABULARY, self.newest()
        if newest is None and self._lock is not None:
            path.unlink(missing_ok=True)  # of a start that came to nothing, perhaps because its text was the wrong one
        elif newest is not None:
            self.check_vocabulary(config, newest)
            if not path.exists():
                write_whole(path, vocabulary_of(newest))
        if not path.exists():
            origin = origin_of(config)
            first = config.run.initial_checkpoint
            tokenizer = (
                checkpoint.load_model(Path(first))[1]
                if first is not None
                else learn_vocabulary(config.train, config.vocabulary, config.run.seed)
            )
            write_whole(self.path / ORIGIN, (json.dumps(origin, indent=2) + "\n").encode())
            write_whole(path, tokenizer.model)
        return fitting(read_vocabulary(path), path, config.model)

    def check_vocabulary(self, config: TrainingConfig, newest: Path) -> None:
        """Raises TrainingConfigError where it is not what the configuration asks for, or not that of ``newest``."""
        path, was, origin = self.path / VOCABULARY, self._origin(), origin_of(config)
        if was is not None and config.run.initial_checkpoint is not None:
            refuse_other_beginning(self.path, was.get(_INITIAL), config.run.initial_checkpoint)
        if path.exists() and was is not None and was != origin and _INITIAL not in was | origin:
            raise TrainingConfigError(f"{path} was made otherwise: {differences(was, origin)}; {_ADVICE}")
        if path.exists() and path.read_bytes() != vocabulary_of(newest):
            raise TrainingConfigError(
                f"{path} and {newest / VOCABULARY} differ: one was replaced or is damaged; older checkpoints have the "
                "right one, to be copied over it"
            )

    def check_resume(self, config: TrainingConfig) -> Path | None:
        """The checkpoint that the run would go on from.

        Raises:
            TrainingConfigError: it is of another model, of other languages or with another vocabulary.
            CheckpointError: it is damaged.
        """
        newest = self.newest()
        if newest is not None:
            refuse_other_model(newest, config.model)
            refuse_other_languages(newest, config.run)
            self.check_vocabulary(config, newest)
        return newest

    def note(self, config: TrainingConfig) -> str:
        """Writes down every option; returns those that were others when the run was last at work."""
        path, resolved = self.path / RESOLVED, json.dumps(dataclasses.asdict(config), indent=2) + "\n"
        now = by_name(json.loads(resolved))
        try:
            was = by_name(json.loads(path.read_text()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none, or damaged
            was = now
        write_whole(path, resolved.encode())
        shared = [name for name in now if name in was or name.count(".") < 2]  # of a new corpus its name is enough
        return differences({name: was.get(name) for name in shared}, {name: now[name] for name in shared})

    def _origin(self) -> dict[str, Any] | None:
        """What origin_of() said when the vocabulary was made; None where nothing says it."""
        try:
            found = json.loads((self.path / ORIGIN).read_text())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None


_ADVICE = "give the run another folder"


def origin_of(config: TrainingConfig) -> dict[str, Any]:
    """What the run's vocabulary is to be made of; sampling while training (dropout) is no part of it."""
    if config.run.initial_checkpoint is not None:
        return {_INITIAL: config.run.initial_checkpoint}
    options = dataclasses.asdict(config.vocabulary)
    del options["dropout"]
    if config.vocabulary.model is None:
        return options
    path = Path(config.vocabulary.model)
    return {"model": f"sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}" if path.is_file() else f"no file {path}"}


def vocabulary_of(folder: Path) -> bytes:
    """The vocabulary's file of a checkpoint. Raises CheckpointError where it cannot be read."""
    try:
        return (folder / VOCABULARY).read_bytes()
    except OSError as error:
        raise checkpoint.CheckpointError(f"{folder / VOCABULARY} cannot be read: {error.strerror}") from None


def read_vocabulary(path: Path) -> Tokenizer:
    """Raises TrainingConfigError where it cannot be read."""
    try:
        return Tokenizer.from_file(path)
    except (OSError, RuntimeError, ValueError) as error:
        raise TrainingConfigError(f"{path} cannot be read: {error}") from None


def fitting(tokenizer: Tokenizer, path: Path, model: ModelConfig) -> Tokenizer:
    """The vocabulary itself. Raises TrainingConfigError where it has another size than the model's."""
    if tokenizer.vocab_size != model.vocab_size:
        raise TrainingConfigError(
            f"{path} has {tokenizer.vocab_size} pieces, model.vocab_size is {model.vocab_size}; with [vocabulary] "
            f"model or an initial checkpoint set it to {tokenizer.vocab_size}"
        )
    return tokenizer


def refuse_other_model(folder: Path, model: ModelConfig, advice: str = _ADVICE) -> None:
    """Raises TrainingConfigError where a checkpoint's weights are of another shape than ``model``."""
    there = checkpoint.read_description(folder).model
    was, now = ({**dataclasses.asdict(shape), "dropout": 0} for shape in (there, model))
    if was != now:
        raise TrainingConfigError(f"{folder} was trained with another model: {differences(was, now)}; {advice}")


def refuse_other_languages(folder: Path, run: RunConfig) -> None:
    """Raises TrainingConfigError where a checkpoint is of other languages than the run."""
    there = checkpoint.read_description(folder)
    was, now = (f"{side.source_language} to {side.target_language}" for side in (there, run))
    if was != now:
        raise TrainingConfigError(f"{folder} translates {was}, not {now}; {_ADVICE}")


def refuse_other_beginning(folder: Path, was: str | None, now: str) -> None:
    """Raises TrainingConfigError where a run that goes on began with another initial checkpoint, or with none."""
    if was is None or Path(was).resolve() != Path(now).resolve():
        raise TrainingConfigError(
            f"{folder} began with {was or 'random weights'} and goes on from its own checkpoints, not with {now}: "
            f"leave the initial checkpoint out to go on, or {_ADVICE}"
        )


def by_name(resolved: dict[str, Any]) -> dict[str, Any]:
    """The options of a run as "run.seed" and "train.tatoeba.weight", and "train" for the names of its corpora."""
    found: dict[str, Any] = {}
    for section, values in resolved.items():
        if isinstance(values, list):
            found[section] = " ".join(corpus["name"] for corpus in values)
            values = {f"{corpus['name']}.{option}": value for corpus in values for option, value in corpus.items()}
        found |= {f"{section}.{option}": value for option, value in values.items()}
    return found


def differences(was: dict[str, Any], now: dict[str, Any]) -> str:
    """What changed, option by option: "size (8000, now 9000)"."""
    names = [name for name in was | now if was.get(name) != now.get(name)]
    return ", ".join(f"{name} ({was.get(name)}, now {now.get(name)})" for name in names)


def write_whole(path: Path, content: bytes) -> None:
    """The file is there with all its content or not at all, also after a power cut."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    checkpoint.sync_folder(path.parent)
