"""A checkpoint with the weights of a bundle's int8 graphs, so that a bundle can be compared without its training.

The shipped model is in the repository, its checkpoint is not: five hours of training make another one. What others
translate with it (peers.py, load.py) are the numbers that the bundle itself computes with; and it can be trained on.
"""

import argparse
import sys
from pathlib import Path

import torch

from export.derive import SOURCE, pytorch_model
from model.checkpoint import Description, save
from model.transformer import Transformer
from service.errors import BundleError
from service.model_store import SHIPPED_BUNDLE
from service.runtime.bundle import Bundle
from service.runtime.piece_tokenizer import tokenizer_of


def write_checkpoint(source: Path, folder: Path) -> None:
    """Writes ``folder``, as `dragoman train` writes a checkpoint.

    Raises:
        BundleError: ``source`` is no whole bundle, or has no int8 graphs. ValueError: it has several languages, or
            is an imported model, whose tokenizer or positions are none of ours; or ``folder`` exists.
    """
    if folder.exists():
        raise ValueError(f"{folder} exists; choose another place or remove it")
    bundle = Bundle.open(source)
    try:
        manifest = bundle.manifest
        if not (manifest.source_language and manifest.target_language):
            raise ValueError(f"{source} has several languages; what is compared here has one pair")
        model = pytorch_model(bundle, SOURCE)
        has_our_positions = torch.allclose(model.positions, Transformer(model.config).positions)
        if len(manifest.vocabulary_files) > 1 or not has_our_positions:
            raise ValueError(f"{source} is an imported model: give the benchmarks the folder that it was imported from")
        description = Description(model.config, manifest.source_language, manifest.target_language, 0)
        save(folder, model.state_dict(), tokenizer_of(bundle), description, None)
    finally:
        bundle.close()


def main() -> int:
    arguments = argparse.ArgumentParser(
        prog="python -m benchmarks.bundle_checkpoint",
        description="Writes a checkpoint with the weights of a bundle's int8 graphs.",
    )
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--bundle", type=Path, default=SHIPPED_BUNDLE)
    given = arguments.parse_args()
    try:
        write_checkpoint(given.bundle, given.folder)
    except (BundleError, ValueError, OSError) as error:
        sys.exit(str(error))
    print(f"wrote {given.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
