"""One checkpoint in the form of each system; made once, and anew when the checkpoint or what converts it is another.

Knows: who writes which form. Does not know: systems (systems.py).
"""

import argparse
import hashlib
import importlib.metadata
import shutil
from pathlib import Path
from typing import NamedTuple

from benchmarks import random_model, texts
from benchmarks.ctranslate2_model import Vocabulary, write_ctranslate2
from benchmarks.systems import Artifacts
from export.cli import CALIBRATION_LINES, read_sample
from export.huggingface.importer import read_checkpoint
from export.transformers_layout import write_transformers
from export.write_bundle import ExportOptions, write_bundle
from model.checkpoint import Description, load_model
from model.config import ModelConfig
from model.transformer import Transformer
from service.runtime.bundle import Decoding
from service.runtime.tokenizer import Tokenizer

# Calibration translates its text first, and a random model never ends; of random words few are as good as many.
NUM_RANDOM_LINES = 16


def add_options(arguments: argparse.ArgumentParser) -> None:
    """Which model, and where its forms are kept."""
    arguments.add_argument(
        "checkpoint", type=Path, help="of dragoman train or benchmarks.random_model, or an OPUS-MT folder"
    )
    arguments.add_argument("--bundle", type=Path, help="Dragoman's form of it, as exported (default: made here)")
    arguments.add_argument("--forced", type=int, default=0, metavar="N", help="random weights: N tokens in, N out")
    arguments.add_argument("--work", type=Path, default=Path("build/benchmarks"), help="where models are converted to")


def calibration_texts(config: ModelConfig, forced: int) -> list[str]:
    """Sentences like those to be measured, and none of them: of the training corpora, or random words."""
    if forced:
        return random_model.texts(NUM_RANDOM_LINES, forced, config.vocab_size, seed=99)
    folder = texts.root("en-fr") / "en-fr"
    return read_sample([folder / "tatoeba.train.tsv.gz", folder / "europarl.en.bz2"], CALIBRATION_LINES)


class Loaded(NamedTuple):
    """A checkpoint; ``transformers``: its folder in that library's layout, None where there is none yet."""

    model: Transformer
    tokenizer: Tokenizer
    description: Description
    decoding: Decoding
    transformers: Path | None


def load_checkpoint(path: Path) -> Loaded:
    """A checkpoint of ours, or a folder in Hugging Face's layout.

    Raises:
        CheckpointError, ImportRefused: it cannot be read. ValueError: its requests would have to choose a language.
    """
    if not (path / "vocab.json").exists():
        return Loaded(*load_model(path), Decoding(), None)
    read = read_checkpoint(path, [], [])
    if any(read.has_choice):
        raise ValueError(f"{path} has several languages; what is compared here has one pair")
    description = Description(read.model.config, read.sources[0].code, read.targets[0].code, step=0)
    return Loaded(read.model, read.tokenizer, description, read.decoding, path)


def converters() -> str:
    """A digest of the code that writes the forms: what another version wrote says nothing of this one."""
    root = Path(__file__).parents[1]
    files = [file for package in ("export", "model") for file in sorted((root / package).rglob("*.py"))]
    digest = hashlib.sha256(importlib.metadata.version("ctranslate2").encode())
    for file in (*files, root / "benchmarks" / "ctranslate2_model.py"):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def prepare(given: argparse.Namespace) -> tuple[ModelConfig, Artifacts]:
    """Converts the checkpoint into folders below ``given.work``; only its bundle where that is given.

    Raises:
        CheckpointError, ImportRefused, ExportError, VerificationError: it cannot be read or converted. ValueError: it
            would be overwritten, or has several languages.
    """
    checkpoint: Path = given.checkpoint
    folder: Path = given.work / checkpoint.resolve().name
    if folder.resolve() == checkpoint.resolve():
        raise ValueError(f"{folder} is the checkpoint itself; convert it to another place")
    model, tokenizer, description, decoding, transformers = load_checkpoint(checkpoint)
    vocabulary = folder / ("vocabulary" if transformers else "vocabulary.spm")
    theirs = transformers or folder / "transformers"
    artifacts = Artifacts(folder / "bundle", folder / "ctranslate2", theirs, vocabulary)
    chosen = artifacts._replace(bundle=given.bundle) if given.bundle else artifacts
    done = folder / "source"
    newest = max(file.stat().st_mtime_ns for file in checkpoint.iterdir())
    stamp = f"{checkpoint.resolve()} {newest} {given.bundle} {given.forced} {converters()}"
    if done.exists() and done.read_text() == stamp:
        return model.config, chosen
    shutil.rmtree(folder, ignore_errors=True)
    (vocabulary if transformers else folder).mkdir(parents=True)
    for name, content in tokenizer.files().items():
        (vocabulary / name if transformers else vocabulary).write_bytes(content)
    languages = (description.source_language, description.target_language)
    if not given.bundle:
        calibration = tuple(calibration_texts(model.config, given.forced))
        options = ExportOptions("-".join(languages), "benchmark", calibration_texts=calibration, decoding=decoding)
        write_bundle(model, tokenizer, description, artifacts.bundle, options)
    write_ctranslate2(model, Vocabulary.of(tokenizer), artifacts.ctranslate2)
    if not transformers:
        write_transformers(model, tokenizer, languages, artifacts.transformers)
    done.write_text(stamp)
    return model.config, chosen
