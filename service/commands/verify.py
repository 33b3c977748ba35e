"""`dragoman verify`: is a bundle whole, does it say here what it said when it was made, and is it its checkpoint?

Knows: what can be asked of a bundle, and in which order. Does not know: how a model is compared with PyTorch (export).
"""

import argparse
from pathlib import Path

from service.commands.exit_codes import DONE
from service.engine.settings import EngineSettings
from service.runtime.bundle import Bundle


def add_verify_command(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds ``verify``."""
    parser = subparsers.add_parser(
        "verify",
        help="check a bundle: its files, its golden translations, its graphs against the checkpoint",
        description="Compares every file of a bundle with the manifest, and replays the golden translations of every "
        "precision that this machine can run; with --checkpoint (extra `export`) also the graphs with PyTorch. "
        "Exit code 78 where the bundle is not what it says, 1 where it is not its checkpoint.",
    )
    parser.add_argument("bundle", type=Path, help="a bundle's folder or .zip")
    parser.add_argument("--checkpoint", type=Path, metavar="FOLDER", help="the PyTorch model the bundle was made of")
    parser.add_argument(
        "--text", type=Path, metavar="FILE", help="also search for translations of this file's lines, both ways"
    )
    parser.set_defaults(run=verify, parser=parser)


def verify(options: argparse.Namespace) -> int:
    """Prints what was found and returns the exit code.

    Raises:
        BundleError: a file is not as the manifest says, or a golden translation came out otherwise.
    """
    if options.text and not options.checkpoint:
        options.parser.error("--text needs --checkpoint: its lines are translated by both")
    bundle = Bundle.open(options.bundle)
    try:
        print(f"{options.bundle}: every file is as the manifest says", flush=True)
        for precision in bundle.manifest.precisions:
            print(f"{precision}: {_replayed(bundle, options.bundle, precision)}", flush=True)
        if not options.checkpoint:
            return DONE
        from export.cli import compare_with_checkpoint  # the extra `export`

        return compare_with_checkpoint(bundle, options.checkpoint, options.text)
    finally:
        bundle.close()


def _replayed(bundle: Bundle, path: Path, precision: str) -> str:
    """What came of the golden translations of one precision, such as ``cpu-int8``."""
    from service.engine.translator import Translator  # both load ONNX Runtime
    from service.runtime.gpu import missing

    device, _, arithmetic = precision.partition("-")
    if device == "cuda" and (reasons := missing()):
        return f"not run here; missing: {', '.join(reasons)}"
    # To load it is to replay them.
    Translator.load(path, EngineSettings(device=device, precision=arithmetic)).close()
    count = sum(golden.precision == precision for golden in bundle.manifest.golden)
    return f"{count} golden translations came out as written" if count else "runs; it has no golden translations"
