"""``dragoman align``: arguments in, alignments and pictures out.

Knows: arguments and messages. Does not know: how words are aligned or pictures drawn.
"""

import argparse
import json
import sys
from pathlib import Path

from export.alignment import Alignment, align_words, as_html, draw, pharaoh
from export.graph_runner import GraphRunner
from model.reference_decode import search_greedily
from service.errors import InputError
from service.runtime.bundle import Bundle
from service.runtime.tokenizer import Tokenizer


def add_align_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    align = commands.add_parser(
        "align",
        help="show what each word of a translation looked at",
        description="Prints which source word each word of a translation looked at most (Pharaoh format, "
        "source-target from 0), by the cross-attention of the exported score graph.",
    )
    align.add_argument("bundle", type=Path, help="a bundle's folder or .zip")
    align.add_argument("text", help="a source sentence")
    align.add_argument("--translation", help="its translation (default: the model's own, greedy)")
    align.add_argument("--precision", help="graphs to use (default: the bundle's first)")
    align.add_argument("--html", type=Path, metavar="FILE", help="write the heat map as a self-contained page")
    align.add_argument("--png", type=Path, metavar="FILE", help="write the heat map as a picture; needs matplotlib")
    align.add_argument("--json", action="store_true", help="print words, weights and links as a JSON object instead")
    align.set_defaults(run=run_align)


def run_align(arguments: argparse.Namespace) -> int:
    """Raises BundleError, InputError."""
    alignment = align(Bundle.open(arguments.bundle), arguments.text, arguments.translation, arguments.precision)
    if arguments.html is not None:
        arguments.html.write_text(as_html(alignment), encoding="utf-8")
    if arguments.png is not None:
        try:
            draw(alignment, arguments.png)
        except ModuleNotFoundError:
            print("dragoman align: --png needs matplotlib: pip install matplotlib", file=sys.stderr)
            return 1
    print(as_json(alignment) if arguments.json else pharaoh(alignment))
    return 0


def as_json(alignment: Alignment) -> str:
    weights = [[round(weight, 4) for weight in row] for row in alignment.weights.tolist()]
    found = {"source": alignment.source, "target": alignment.target, "weights": weights, "links": pharaoh(alignment)}
    return json.dumps(found, ensure_ascii=False)


def align(bundle: Bundle, text: str, translation: str | None, precision: str | None) -> Alignment:
    """Words and attention of ``text`` and its translation, given or made.

    Raises:
        InputError: a text is empty or too long for the model, or there are no graphs of that precision.
    """
    manifest = bundle.manifest
    chosen = precision or next(iter(manifest.precisions))
    if chosen not in manifest.precisions:
        raise InputError(f"the bundle has no graphs of {chosen}; it has {', '.join(manifest.precisions)}")
    tokenizer = Tokenizer.from_file(bundle.path(manifest.vocabulary))
    runner = GraphRunner(bundle.root, manifest.precisions[chosen], manifest.shape, tokenizer.start)
    source = [*tokenizer.encode([text])[0], tokenizer.end]
    check_length("the text", source, manifest.max_source_tokens)
    if translation is None:
        limit = manifest.max_target_tokens
        target = search_greedily(runner.extend_with(source, limit), tokenizer.end, limit).ids
    else:
        target = [*tokenizer.encode([translation])[0], tokenizer.end]
    check_length("the translation", target, manifest.max_target_tokens)
    _, attention = runner.score([source], [target])
    pieces = [
        [tokenizer.processor.id_to_piece(token) for token in ids if token != tokenizer.end] for ids in (source, target)
    ]
    return align_words(pieces[0], pieces[1], attention[0])


def check_length(what: str, ids: list[int], limit: int) -> None:
    if not 2 <= len(ids) <= limit:
        raise InputError(f"{what} has {len(ids)} tokens, its end counted; the model takes 2 to {limit}")
