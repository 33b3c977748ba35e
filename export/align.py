"""``dragoman align``: arguments in, alignments and pictures out.

Knows: arguments and messages. Does not know: how words are aligned or pictures drawn.
"""

import argparse
import json
import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from export.alignment import Alignment, align_words, as_html, draw, pharaoh, words_at
from export.golden import extend_with_penalties
from export.graph_runner import GraphRunner
from model.reference_decode import constrained, search_greedily
from service.errors import ConfigurationError, InputError, OutputError
from service.runtime.bundle import Bundle, Language, Manifest
from service.runtime.piece_tokenizer import tokenizer_of
from service.text.reading import Reading


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
    align.add_argument("--from", dest="source", metavar="CODE", help="source language, where the model has several")
    align.add_argument("--to", dest="target", metavar="CODE", help="target language, where the model has several")
    align.add_argument("--precision", help="graphs to use (default: the bundle's first)")
    align.add_argument("--html", type=Path, metavar="FILE", help="write the heat map as a self-contained page")
    align.add_argument("--png", type=Path, metavar="FILE", help="write the heat map as a picture; needs matplotlib")
    align.add_argument("--json", action="store_true", help="print words, weights and links as a JSON object instead")
    align.set_defaults(run=run_align)


def run_align(arguments: argparse.Namespace) -> int:
    """Raises BundleError, ConfigurationError, InputError, OutputError."""
    text, translation = given_text(arguments.text), arguments.translation and given_text(arguments.translation)
    with closing(Bundle.open(arguments.bundle)) as bundle:
        languages = chosen_languages(bundle.manifest, arguments.source, arguments.target)
        alignment = align(bundle, text, translation, arguments.precision, languages)
    try:
        if arguments.html is not None:
            arguments.html.write_text(as_html(alignment), encoding="utf-8")
        if arguments.png is not None:
            draw(alignment, arguments.png)
    except ModuleNotFoundError:
        raise ConfigurationError("--png needs matplotlib: pip install matplotlib") from None
    except OSError as error:
        raise OutputError(f"{error.filename or 'the page or picture'} cannot be written: {error.strerror}") from None
    print(as_json(alignment) if arguments.json else pharaoh(alignment))
    return 0


def given_text(argument: str) -> str:
    """An argument from the bytes it was, which a locale that is not UTF-8 has spoiled. Raises InputError."""
    try:
        return os.fsencode(argument).decode("utf-8")
    except UnicodeError:
        raise InputError("a text is not valid UTF-8") from None


def as_json(alignment: Alignment) -> str:
    weights = [[round(weight, 4) for weight in row] for row in alignment.weights.tolist()]
    found = {"source": alignment.source, "target": alignment.target, "weights": weights, "links": pharaoh(alignment)}
    return json.dumps(found, ensure_ascii=False)


def language_of(languages: Sequence[Language], only: str, wanted: str | None, side: str) -> Language:
    """The one that covers ``wanted``, or the first; one of no tokens where the model has nothing to choose.

    Args:
        only: the model's language where it has one, and ``languages`` is empty.

    Raises:
        InputError: there is none of that code.
    """
    by_code = {language.code: language for language in languages} or {only: Language("")}
    # "en" covers "en-US".
    found = [code for code in by_code if wanted is None or f"{wanted}-".lower().startswith(f"{code}-".lower())]
    if not found:
        raise InputError(f"{wanted} is none of the model's {side} languages: {', '.join(by_code)}")
    return by_code[found[0] if wanted is None else max(found, key=len)]


def chosen_languages(manifest: Manifest, source: str | None, target: str | None) -> tuple[Language, Language]:
    return (
        language_of(manifest.source_languages, manifest.source_language, source, "source"),
        language_of(manifest.target_languages, manifest.target_language, target, "target"),
    )


def align(
    bundle: Bundle,
    text: str,
    translation: str | None,
    precision: str | None,
    languages: tuple[Language, Language] = (Language(""), Language("")),
) -> Alignment:
    """Words and attention of ``text`` and its translation, given or made.

    Raises:
        InputError: a text is empty or too long for the model, or there are no graphs of that precision.
    """
    manifest = bundle.manifest
    chosen = precision or next(iter(manifest.precisions))
    if chosen not in manifest.precisions:
        raise InputError(f"the bundle has no graphs of {chosen}; it has {', '.join(manifest.precisions)}")
    tokenizer, (source_language, target_language) = tokenizer_of(bundle), languages
    runner = GraphRunner(bundle.root, manifest.precisions[chosen], manifest.shape, tokenizer.start)
    prefix, first, end = (*target_language.prefix, *source_language.prefix), target_language.first, tokenizer.end
    decoding = manifest.decoding
    codes = source_language.code or manifest.source_language, target_language.code or manifest.target_language
    reading = Reading(decoding.lowers_capitals, decoding.plain_quotes, *codes)
    read = reading.read(text)
    ids = tokenizer.encode([read])[0]
    source = [*prefix, *ids, end]
    check_length("the text", source, len(prefix), manifest.max_source_tokens)
    if translation is None:
        limit = min(decoding.max_length or 3 * len(source) + 16, manifest.max_target_tokens)
        last = end if decoding.force_end else None
        own_options = extend_with_penalties(runner, source, limit, end, decoding)
        extend = constrained(own_options, first, decoding.banned, last, limit)
        target = search_greedily(extend, end, limit, source).ids
        own = [token for token in target[len(first) :] if token != end]
        translation, spans = reading.written(text, tokenizer.decode([own])[0]), tokenizer.decoded_spans(own)
    else:
        given = reading.read_target(text, translation)
        target, spans = [*first, *tokenizer.encode_target([given])[0], end], tokenizer.target_spans(given)
    check_length("the translation", target, len(first), manifest.max_target_tokens)
    _, attention = runner.score([source], [target])
    words = words_at(text, tokenizer.spans(read)), words_at(translation, spans)
    return align_words(*words, np.asarray(attention[0, len(first) :, len(prefix) :], float))


def check_length(what: str, ids: Sequence[int], num_language_tokens: int, limit: int) -> None:
    """There must be a token of text beside the end token and those that name languages."""
    least = num_language_tokens + 2
    if not least <= len(ids) <= limit:
        raise InputError(f"{what} has {len(ids)} tokens, its end counted; the model takes {least} to {limit}")
