"""`dragoman evaluate`: BLEU and chrF of what is served. Knows: sacreBLEU. Does not know: how a line is translated."""

import argparse
import gzip
import json
import sys
import time
from pathlib import Path
from typing import BinaryIO, cast

from service.commands.exit_codes import DONE
from service.commands.translate import (
    add_decode_flags,
    add_model_flags,
    language_code,
    open_lines,
    read_decode_options,
    read_lines,
)
from service.errors import DragomanError, InputError


def add_evaluate_command(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds ``evaluate``."""
    parser = subparsers.add_parser(
        "evaluate",
        help="sacreBLEU and chrF of a model, through the engine that serves",
        description="Translates a file line by line and compares with a reference: sacreBLEU (Post 2018) and chrF "
        "(Popovic 2015), with their signatures.",
    )
    parser.add_argument(
        "--source", type=Path, required=True, metavar="FILE", help="text to translate, a sentence a line; may be .gz"
    )
    parser.add_argument("--reference", type=Path, required=True, metavar="FILE", help="its translation, line for line")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to write the translations")
    parser.add_argument(
        "--from", type=language_code, dest="source_language", metavar="CODE", help="language of the text (for --target)"
    )
    parser.add_argument("--to", type=language_code, metavar="CODE", help="language to translate to (for --target)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_decode_flags(parser)
    add_model_flags(parser)
    parser.set_defaults(run=evaluate, parser=parser)


def evaluate(options: argparse.Namespace) -> int:
    """Runs the command.

    Raises:
        DragomanError: a file cannot be read, the two differ in length, or a line cannot be translated.
    """
    from model.evaluate import score  # the extra `train`

    sources, references = _read(options.source), _read(options.reference)
    if len(sources) != len(references) or not sources:
        raise InputError(
            f"{options.source} has {len(sources)} lines and {options.reference} {len(references)}; "
            "they must have the same number, at least 1"
        )
    decode_options = read_decode_options(options)
    with open_lines(options, options.source_language, options.to) as lines:
        started = time.monotonic()
        hypotheses, num_tokens = [], 0
        for answer in lines.translate(sources, decode_options):
            if isinstance(answer, DragomanError):
                raise answer
            hypotheses.append(answer.text)
            num_tokens += answer.num_target_tokens
        duration_s = time.monotonic() - started
    if options.output:
        options.output.write_text("".join(f"{line}\n" for line in hypotheses), encoding="utf-8")
    scores = score(hypotheses, references)
    found = {
        "bleu": round(scores.bleu, 2),
        "bleu_signature": scores.bleu_signature,
        "chrf": round(scores.chrf, 2),
        "chrf_signature": scores.chrf_signature,
        "num_lines": len(sources),
        "num_beams": decode_options.num_beams,
        "seconds": round(duration_s, 2),
        "target_tokens_per_s": round(num_tokens / duration_s, 1),
    }
    text = json.dumps(found) if options.json else "\n".join(f"{key}: {value}" for key, value in found.items())
    sys.stdout.write(text + "\n")
    return DONE


def _read(file: Path) -> list[str]:
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            return list(read_lines(cast(BinaryIO, stream)))
    except (OSError, EOFError) as error:
        raise InputError(f"cannot read {file}: {error}") from None
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
