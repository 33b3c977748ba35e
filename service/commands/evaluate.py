"""`dragoman evaluate`: BLEU and chrF of what is served. Knows: sacreBLEU. Does not know: how a line is translated."""

import argparse
import json
import sys
import time
from pathlib import Path

from service.commands.exit_codes import DONE
from service.commands.translate import add_decode_flags, add_model_flags, open_lines, read_decode_options, read_lines
from service.errors import ConfigurationError, DragomanError


def add_evaluate_command(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds ``evaluate``."""
    parser = subparsers.add_parser(
        "evaluate",
        help="sacreBLEU and chrF of a model, through the engine that serves",
        description="Translates a file line by line and compares with a reference: sacreBLEU (Post 2018) and chrF "
        "(Popovic 2015), with their signatures.",
    )
    parser.add_argument(
        "--source", type=Path, required=True, metavar="FILE", help="text to translate, a sentence a line"
    )
    parser.add_argument("--reference", type=Path, required=True, metavar="FILE", help="its translation, line for line")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to write the translations")
    parser.add_argument("--from", dest="source_language", metavar="CODE", help="language of the text (for --target)")
    parser.add_argument("--to", metavar="CODE", help="language to translate to (for --target)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_decode_flags(parser)
    add_model_flags(parser)
    parser.set_defaults(run=evaluate, parser=parser)


def evaluate(options: argparse.Namespace) -> int:
    """Runs the command.

    Raises:
        DragomanError: a file cannot be read, the two differ in length, or a line cannot be translated.
    """
    from sacrebleu.metrics.bleu import BLEU  # the extra `train`
    from sacrebleu.metrics.chrf import CHRF

    sources, references = _read(options.source), _read(options.reference)
    if len(sources) != len(references) or not sources:
        raise ConfigurationError(
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
    bleu, chrf = BLEU(), CHRF()
    found = {
        "bleu": round(bleu.corpus_score(hypotheses, [references]).score, 2),
        "bleu_signature": str(bleu.get_signature()),
        "chrf": round(chrf.corpus_score(hypotheses, [references]).score, 2),
        "chrf_signature": str(chrf.get_signature()),
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
        with file.open("rb") as stream:
            return list(read_lines(stream))
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from None
    except ConfigurationError as error:
        raise ConfigurationError(f"{file}: {error}") from None
