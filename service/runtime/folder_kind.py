"""What a folder seems to hold, for the message to whoever gave one kind where another is wanted.

Knows: the files by which bundles, checkpoints, runs and folders of Hugging Face Transformers differ. Does not know:
whether they are whole.
"""

import json
from pathlib import Path

HINTS = {
    "bundle": "it is a bundle, made of a checkpoint: `dragoman serve --bundle` and `dragoman verify` take it",
    "checkpoint": "it is a checkpoint of `dragoman train`: `dragoman export` makes a bundle of it",
    "run": "it is the folder of a run of `dragoman train`: the folders best and step-* in it are checkpoints",
    "huggingface": "it is a folder of Hugging Face Transformers: `dragoman import-marian` makes a bundle of it",
}


def kind_of(folder: Path) -> str:
    """One of the keys of HINTS, or nothing where it could be anything. Raises nothing."""
    if (folder / "manifest.json").is_file():
        return "bundle"
    if (folder / "resolved.json").is_file():
        return "run"
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return ""
    if not isinstance(config, dict):
        return ""
    if isinstance(config.get("model"), dict):
        return "checkpoint"
    return "huggingface" if "model_type" in config or "architectures" in config else ""


def hint(folder: Path, wanted: str) -> str:
    """What ``folder`` seems to be instead of a ``wanted`` one, to be put behind a message; empty where nobody knows."""
    kind = kind_of(folder)
    return f"; {HINTS[kind]}" if kind not in ("", wanted) else ""
