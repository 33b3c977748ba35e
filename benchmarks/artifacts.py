"""One checkpoint in the form of each system; made once, and anew when the checkpoint is newer.

Knows: who writes which form. Does not know: systems (systems.py).
"""

import argparse
import shutil
from pathlib import Path

from benchmarks import random_model, texts
from benchmarks.ctranslate2_model import Vocabulary, write_ctranslate2
from benchmarks.systems import Artifacts
from export.cli import CALIBRATION_LINES, read_sample
from export.transformers_layout import write_transformers
from export.write_bundle import ExportOptions, write_bundle
from model.checkpoint import load_model
from model.config import ModelConfig

# Calibration translates its text first, and a random model never ends; of random words few are as good as many.
NUM_RANDOM_LINES = 16


def add_options(arguments: argparse.ArgumentParser) -> None:
    """Which model, and where its forms are kept."""
    arguments.add_argument("checkpoint", type=Path, help="of dragoman train or of benchmarks.random_model")
    arguments.add_argument("--bundle", type=Path, help="Dragoman's form of it, as exported (default: made here)")
    arguments.add_argument("--forced", type=int, default=0, metavar="N", help="random weights: N tokens in, N out")
    arguments.add_argument("--work", type=Path, default=Path("build/benchmarks"), help="where models are converted to")


def calibration_texts(config: ModelConfig, forced: int) -> list[str]:
    """Sentences like those to be measured, and none of them: of the training corpora, or random words."""
    if forced:
        return random_model.texts(NUM_RANDOM_LINES, forced, config.vocab_size, seed=99)
    folder = texts.root("en-fr") / "en-fr"
    return read_sample([folder / "tatoeba.train.tsv.gz", folder / "europarl.en.bz2"], CALIBRATION_LINES)


def prepare(given: argparse.Namespace) -> tuple[ModelConfig, Artifacts]:
    """Converts the checkpoint into folders below ``given.work``; only its bundle where that is given.

    Raises:
        CheckpointError, ExportError, VerificationError: it cannot be read or converted. ValueError: it would be
            overwritten.
    """
    checkpoint: Path = given.checkpoint
    folder: Path = given.work / checkpoint.resolve().name
    if folder.resolve() == checkpoint.resolve():
        raise ValueError(f"{folder} is the checkpoint itself; convert it to another place")
    artifacts = Artifacts(folder / "bundle", folder / "ctranslate2", folder / "transformers", folder / "vocabulary.spm")
    chosen = artifacts._replace(bundle=given.bundle) if given.bundle else artifacts
    model, tokenizer, description = load_model(checkpoint)
    done = folder / "source"
    stamp = f"{(checkpoint / 'model.safetensors').stat().st_mtime_ns} {given.bundle}"
    if done.exists() and done.read_text() == stamp:
        return model.config, chosen
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    artifacts.vocabulary.write_bytes(tokenizer.model)
    languages = (description.source_language, description.target_language)
    if not given.bundle:
        calibration = tuple(calibration_texts(model.config, given.forced))
        options = ExportOptions(name="-".join(languages), version="benchmark", calibration_texts=calibration)
        write_bundle(model, tokenizer, description, artifacts.bundle, options)
    write_ctranslate2(model, Vocabulary.of(tokenizer), artifacts.ctranslate2)
    write_transformers(model, tokenizer, languages, artifacts.transformers)
    done.write_text(stamp)
    return model.config, chosen
