"""`dragoman evaluate`: BLEU and chrF of what is served. Knows: sacreBLEU. Does not know: how a line is translated."""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.commands.exit_codes import DONE
from service.commands.translate import (
    add_decode_flags,
    add_model_flags,
    language_code,
    open_lines,
    read_decode_options,
)
from service.errors import DragomanError, InputError, OutputError


def add_evaluate_command(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds ``evaluate``."""
    parser = subparsers.add_parser(
        "evaluate",
        help="sacreBLEU and chrF of a model, through the engine that serves",
        description="Translates a file line by line and compares with a reference: sacreBLEU (Post 2018) and chrF "
        "(Popovic 2015), with their signatures.",
    )
    parser.add_argument(
        "--source",
        type=Path,
        required=True,
        metavar="FILE",
        help="text to translate, a sentence a line; may be .gz, .bz2 or .xz",
    )
    parser.add_argument(
        "--reference", type=Path, required=True, action="append", metavar="FILE", help="its translation, line for line"
    )
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

    sources, references = _read_both(options)
    if options.alternatives > 1:
        options.parser.error("--alternatives: one translation a line is scored")
    decode_options = read_decode_options(options)
    _check_output(options)
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
        with _told(options.output):
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


def _check_output(options: argparse.Namespace) -> None:
    """That it cannot be written is told before the work, and what is there stays until it is done."""
    if not options.output:
        return
    inputs = (options.source, *options.reference)
    if options.output.exists() and any(options.output.samefile(file) for file in inputs):
        options.parser.error("--output is --source or --reference: it would be overwritten")
    was_there = options.output.exists()
    with _told(options.output), options.output.open("a"):
        pass
    if not was_there:  # nothing is better than an empty file, should the work fail
        options.output.resolve().unlink()  # what a link leads to, not the link


def _read_both(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Sources and references, as many of the one as of the other."""
    if len(options.reference) > 1:
        options.parser.error("--reference: one file; several references a line are not scored")
    [reference] = options.reference
    sources, references = _read(options.source), _read(reference)
    if len(sources) != len(references) or not sources:
        raise InputError(
            f"{options.source} has {len(sources)} lines and {reference} {len(references)}; "
            "they must have the same number, at least 1"
        )
    return sources, references


def _read(file: Path) -> list[str]:
    from model.corpus import CorpusError, read_lines  # the extra `train`

    try:
        return list(read_lines(str(file)))
    except CorpusError as error:
        raise InputError(str(error)) from None


@contextmanager
def _told(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {file}: {error.strerror}") from None
