"""One checkpoint in the form of each system; made once, and anew when the checkpoint is newer.

Knows: who writes which form. Does not know: systems (systems.py).
"""

import shutil
from pathlib import Path

from benchmarks.ctranslate2_model import write_ctranslate2
from benchmarks.systems import Artifacts
from export.transformers_layout import write_transformers
from export.write_bundle import ExportOptions, write_bundle
from model.checkpoint import load_model
from model.config import ModelConfig


def prepare(checkpoint: Path, work: Path) -> tuple[ModelConfig, Artifacts]:
    """Converts ``checkpoint`` into folders below ``work``.

    Raises:
        CheckpointError, ExportError, VerificationError: it cannot be read or converted. ValueError: it would be
            overwritten.
    """
    folder = work / checkpoint.resolve().name
    if folder.resolve() == checkpoint.resolve():
        raise ValueError(f"{folder} is the checkpoint itself; convert it to another place")
    artifacts = Artifacts(folder / "bundle", folder / "ctranslate2", folder / "transformers", folder / "vocabulary.spm")
    model, tokenizer, description = load_model(checkpoint)
    done = folder / "source"
    stamp = str((checkpoint / "model.safetensors").stat().st_mtime_ns)
    if done.exists() and done.read_text() == stamp:
        return model.config, artifacts
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    artifacts.vocabulary.write_bytes(tokenizer.model)
    languages = (description.source_language, description.target_language)
    options = ExportOptions(name="-".join(languages), version="benchmark")
    write_bundle(model, tokenizer, description, artifacts.bundle, options)
    write_ctranslate2(model, tokenizer, artifacts.ctranslate2)
    write_transformers(model, tokenizer, languages, artifacts.transformers)
    done.write_text(stamp)
    return model.config, artifacts
