"""A training run's TOML file.

Knows: its tables, and how file names in it are meant. Does not know: what an option means.
"""

import os
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model.config import CorpusConfig, ModelConfig, OptimizerConfig, RunConfig, TrainingConfig, VocabularyConfig
from model.sections import TrainingConfigError, read_section, require

VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
# Of corpora and vocabulary, relative to the TOML file; of the run, relative to where the command is given.
PATH_KEYS = ("tsv", "source", "target", "model")
RUN_PATH_KEYS = ("folder", "initial_checkpoint")


def resolve_paths(values: Any, base: Path, where: str, keys: Sequence[str] = PATH_KEYS) -> Any:
    """File names in a table are relative to ``base``; ``~`` and ``$VARIABLES`` are expanded.

    Raises:
        TrainingConfigError: a variable is not set.
    """
    if not isinstance(values, dict):
        return values  # read_section says what is wrong
    resolved = dict(values)
    for key in keys:
        name = values.get(key)
        if not isinstance(name, str) or not name:
            continue
        unset = [a or b for a, b in VARIABLE.findall(name) if (a or b) not in os.environ]
        if unset:
            raise TrainingConfigError(
                f"{where}.{key}: {name} needs the environment variable {unset[0]}, which is not set"
            )
        resolved[key] = str(base / Path(os.path.expandvars(name)).expanduser())
    return resolved


def read_tables(path: Path) -> dict[str, Any]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainingConfigError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainingConfigError(f"{path} is not valid TOML: {error}") from error
    known = ("run", "model", "vocabulary", "optimizer", "train", "validation")
    for name in tables.keys() - set(known):
        raise TrainingConfigError(f"[{name}] is unknown; known are {', '.join(known)}")
    for part in ("train", "validation"):
        require(isinstance(tables.get(part, []), list), f"[{part}] must be written [[{part}]]: one table a corpus")
    return tables


def read_training_config(path: Path) -> TrainingConfig:
    """The run that ``path`` describes.

    Raises:
        TrainingConfigError: the file is not TOML, or an option is unknown, missing, of the wrong type or out of range.
    """
    tables = read_tables(path)
    corpora = {
        part: tuple(
            read_section(CorpusConfig, resolve_paths(table, path.parent, where), where)
            for where, table in ((f"{part}[{number}]", table) for number, table in enumerate(tables.get(part, [])))
        )
        for part in ("train", "validation")
    }
    vocabulary_table = resolve_paths(tables.get("vocabulary", {}), path.parent, "vocabulary")
    vocabulary = read_section(VocabularyConfig, vocabulary_table, "vocabulary")
    model = tables.get("model", {})
    if isinstance(model, dict):
        model = {"vocab_size": vocabulary.size} | model
    return TrainingConfig(
        run=read_section(RunConfig, resolve_paths(tables.get("run", {}), Path(), "run", RUN_PATH_KEYS), "run"),
        model=read_section(ModelConfig, model, "model"),
        vocabulary=vocabulary,
        optimizer=read_section(OptimizerConfig, tables.get("optimizer", {}), "optimizer"),
        **corpora,
    )
