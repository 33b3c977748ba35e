"""The commands ``export``, ``export-transformers`` and ``derive-cuda``, and PyTorch's part of ``verify``.

Knows: arguments and messages. Does not know: how a bundle is made or checked.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from export.derive import derive_cuda
from export.graph_runner import GraphRunner, runs_with_kernels
from export.sampled_texts import sampled_texts
from export.transformers_layout import write_transformers
from export.verify import Report, VerificationError, check_searches, verify
from export.write_bundle import DEFAULT_PRECISIONS, PRECISIONS, ExportError, ExportOptions, shape_of, write_bundle
from model.checkpoint import CheckpointError, load_model
from model.corpus import CorpusError, read_lines
from service.errors import BundleError
from service.runtime import kernels
from service.runtime.bundle import MANIFEST, Bundle, Decoding, Shape
from service.runtime.piece_tokenizer import tokenizer_of
from service.runtime.tokenizer import Tokenizer

EXIT_FAILED, EXIT_BAD_BUNDLE = 1, 78
CALIBRATION_LINES = 256


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    export = commands.add_parser("export", help="make a bundle of a training checkpoint and verify it")
    export.add_argument("checkpoint", type=Path, help="a folder that dragoman train or dragoman average wrote")
    export.add_argument("bundle", type=Path, help="the bundle's folder; replaced if it is a bundle already")
    export.add_argument("--name", help="what clients call the model (default: SOURCE-TARGET)")
    export.add_argument("--model-version", default="1", help="which version of that model this is (default: 1)")
    export.add_argument(
        "--precision",
        action="append",
        choices=list(PRECISIONS),
        help=f"graphs to make; may be given several times (default: {' and '.join(DEFAULT_PRECISIONS)})",
    )
    export.add_argument("--max-source-tokens", type=int, default=256, help="longest sentence taken (default: 256)")
    export.add_argument("--max-target-tokens", type=int, default=384, help="longest translation made (default: 384)")
    export.add_argument(
        "--calibration",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="source sentences (or source TAB target; may be .gz or .bz2) to fix the int8 scales on; about "
        f"{CALIBRATION_LINES} lines in all are used; may be given several times (default: texts drawn from the "
        "vocabulary's probabilities)",
    )
    add_reading(export)
    export.add_argument("--golden", type=Path, help="file of source sentences to choose golden translations from")
    export.add_argument(
        "--card", type=Path, help="JSON file about training text, licence and scores, kept in the bundle"
    )
    export.set_defaults(run=run_export)
    layout = commands.add_parser(
        "export-transformers", help="write a checkpoint as a folder that Hugging Face Transformers loads"
    )
    layout.add_argument("checkpoint", type=Path, help="a folder that dragoman train or dragoman average wrote")
    layout.add_argument("folder", type=Path, help="what to write; replaced if this command wrote it before")
    layout.set_defaults(run=run_export_transformers)
    add_derive_command(commands)


def add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--lower-capitals",
        action="store_true",
        help="the service reads sentences in capitals in lower case and puts their translations into capitals: for a "
        "model that has seen few capitals",
    )
    parser.add_argument(
        "--plain-quotes",
        action="store_true",
        help="the service reads typographic quotes and apostrophes as plain ones: for a model that has seen few",
    )


def add_derive_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    derive = commands.add_parser("derive-cuda", help="add graphs for CUDA to a bundle, made of its int8 weights")
    derive.add_argument("bundle", type=Path, help="a bundle with cpu-int8 graphs, such as the shipped one")
    derive.add_argument("folder", type=Path, help="the bundle to write: the same with cuda-fp16 graphs beside them")
    derive.set_defaults(run=run_derive)


def complain(message: str, code: int) -> int:
    print(f"dragoman: {message}", file=sys.stderr)
    return code


def disk_error(error: OSError) -> str:
    """What the system says, in one line: shutil's errors hold all files that could not be copied."""
    if isinstance(error, shutil.Error):
        source, target, reason = error.args[0][0]
        return f"{source} cannot be copied to {target}: {reason}"
    return str(error)


def read_all_lines(path: Path) -> list[str]:
    """Lines of UTF-8, also of a .gz, .bz2 or .xz file. Raises ExportError: there are none, or they cannot be read."""
    try:
        lines = list(read_lines(str(path)))
    except CorpusError as error:
        raise ExportError(str(error)) from None
    if not lines:
        raise ExportError(f"{path} holds no line")
    return lines


def read_card(path: Path) -> dict[str, Any]:
    """Raises ExportError: the file holds no JSON object."""
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExportError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(card, dict):
        raise ExportError(f"{path} holds no JSON object")
    return card


def read_sample(paths: Sequence[Path], count: int) -> list[str]:
    """``count`` texts in all, up to twice as many, or all there are, evenly spread over each file; of a line with tabs,
    the first column. None is empty.

    Raises:
        ExportError: a file has none, or cannot be read.
    """
    chosen: list[str] = []
    for path in paths:
        columns = (line.split("\t")[0].strip() for line in read_all_lines(path))
        texts = [text for text in columns if text]
        if not texts:
            raise ExportError(f"{path} holds no text")
        chosen += texts[:: max(1, len(texts) * len(paths) // count)]
    return chosen


def texts_for_scales(given: Sequence[str], tokenizer: Tokenizer, precisions: Sequence[str]) -> tuple[str, ...]:
    """The texts to fix int8 scales on: those given, else some of the vocabulary's, which is said: it takes a while."""
    if given or "cpu-int8" not in precisions:
        return tuple(given)
    texts = sampled_texts(tokenizer.model)
    print(
        f"dragoman: no --calibration: int8 scales are fixed on {len(texts)} texts drawn from the vocabulary; "
        "with a large model that takes some minutes",
        file=sys.stderr,
    )
    return tuple(texts)


def report(bundle: Path, reports: Mapping[str, Report], num_golden_texts: int) -> None:
    """What verification measured, and which precisions nothing will be replayed of, though there were texts for it."""
    for precision, measured in reports.items():
        print(f"{precision}: {measured}")
    if not num_golden_texts:
        return
    clear = {golden["precision"] for golden in json.loads((bundle / MANIFEST).read_bytes())["golden"]}
    for precision in reports:
        if precision not in clear:
            print(f"dragoman: {precision}: no golden translations: no answer to the texts is clear", file=sys.stderr)


def run_export(arguments: argparse.Namespace) -> int:
    try:
        model, tokenizer, description = load_model(arguments.checkpoint)
        precisions = tuple(dict.fromkeys(arguments.precision or DEFAULT_PRECISIONS))
        sample = read_sample(arguments.calibration, CALIBRATION_LINES)
        options = ExportOptions(
            name=arguments.name or f"{description.source_language}-{description.target_language}",
            version=arguments.model_version,
            precisions=precisions,
            max_source_tokens=arguments.max_source_tokens,
            max_target_tokens=arguments.max_target_tokens,
            calibration_texts=texts_for_scales(sample, tokenizer, precisions),
            golden_texts=tuple(read_all_lines(arguments.golden)) if arguments.golden else (),
            card=read_card(arguments.card) if arguments.card else {},
            decoding=Decoding(
                min_length=1,  # a text is never translated by nothing
                lowers_capitals=arguments.lower_capitals,
                plain_quotes=arguments.plain_quotes,
            ),
        )
        reports = write_bundle(model, tokenizer, description, arguments.bundle, options)
    except (ExportError, VerificationError) as error:
        return complain(str(error), EXIT_FAILED)
    except CheckpointError as error:
        return complain(str(error), EXIT_BAD_BUNDLE)
    except OSError as error:
        return complain(disk_error(error), EXIT_FAILED)
    report(arguments.bundle, reports, len(options.golden_texts))
    print(f"wrote {arguments.bundle}")
    return 0


def run_export_transformers(arguments: argparse.Namespace) -> int:
    try:
        model, tokenizer, description = load_model(arguments.checkpoint)
        languages = (description.source_language, description.target_language)
        write_transformers(model, tokenizer, languages, arguments.folder)
    except SafetensorError as error:  # not an OSError where the disk is full
        return complain(f"{arguments.folder} cannot be written: {error}", EXIT_FAILED)
    except ExportError as error:
        return complain(str(error), EXIT_FAILED)
    except CheckpointError as error:
        return complain(str(error), EXIT_BAD_BUNDLE)
    except OSError as error:
        return complain(disk_error(error), EXIT_FAILED)
    print(f"wrote {arguments.folder}")
    return 0


def run_derive(arguments: argparse.Namespace) -> int:
    try:
        derive_cuda(arguments.bundle, arguments.folder)
    except ExportError as error:
        return complain(str(error), EXIT_FAILED)
    except BundleError as error:
        return complain(str(error), EXIT_BAD_BUNDLE)
    except OSError as error:
        return complain(disk_error(error), EXIT_FAILED)
    print(f"wrote {arguments.folder}")
    return 0


def differences(own: Shape, bundles: Shape) -> str:
    """Where a checkpoint's shape is not the bundle's, such as "vocab_size is 318, the bundle's 8000"; else empty."""
    pairs = ((field.name, getattr(own, field.name), getattr(bundles, field.name)) for field in fields(Shape))
    return "; ".join(f"{name} is {here}, the bundle's {there}" for name, here, there in pairs if here != there)


def compare_with_checkpoint(bundle: Bundle, checkpoint: Path, text: Path | None) -> int:
    """The part of ``verify`` that needs PyTorch: prints how far each precision's graphs are from the checkpoint, and
    whether searches over ``text``'s lines find the same tokens; returns the exit code."""
    precision = ""
    try:
        model, _, _ = load_model(checkpoint)
        manifest = bundle.manifest
        if different := differences(shape_of(model), manifest.shape):
            return complain(f"{checkpoint} is of another model: {different}", EXIT_FAILED)
        tokenizer = tokenizer_of(bundle)
        lines = read_all_lines(text) if text else []
        encoded = [[*ids, tokenizer.end] for ids in tokenizer.encode(lines) if ids]
        sources = [ids for ids in encoded if len(ids) <= manifest.max_source_tokens]
        if len(sources) < len(encoded):
            count, limit = len(encoded) - len(sources), manifest.max_source_tokens
            print(f"{count} of {len(encoded)} lines have more than {limit} tokens and are left out")
        for precision, graphs in manifest.precisions.items():
            exact = precision.endswith("fp32")
            for with_kernels in runs_with_kernels(precision):
                runner = GraphRunner(bundle.root, graphs, manifest.shape, tokenizer.start, with_kernels)
                how = f"{precision}, {kernels.active()} kernels" if with_kernels else precision
                print(f"{how}: {verify(model, runner, tokenizer.end, exact)}")
            if exact and sources:
                count, ties = check_searches(model, runner, sources, tokenizer.end, manifest.max_target_tokens)
                print(f"{precision}: {count} greedy and beam searches find PyTorch's token ids, {ties} but for a tie")
    except VerificationError as error:
        return complain(f"{precision}: {error}", EXIT_FAILED)
    except ExportError as error:
        return complain(str(error), EXIT_FAILED)
    except CheckpointError as error:
        return complain(str(error), EXIT_BAD_BUNDLE)
    except OSError as error:
        return complain(disk_error(error), EXIT_FAILED)
    return 0
