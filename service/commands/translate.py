"""`dragoman translate`. Knows: its flags, its input and its output. Does not know: how a line is translated."""

import argparse
import dataclasses
import io
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from service.client import Client, ServiceError
from service.commands.connection_flags import (
    add_connection_flags,
    add_patience_flag,
    read_connection,
    refuse_connection_flags,
)
from service.commands.exit_codes import DONE, FAILED
from service.commands.lines import FLAGGED, EmbeddedLines, LineAnswer, LineTranslator, RemoteLines
from service.decoding.options import MAX_BEAMS, DecodeOptions
from service.engine.request import TextFormat, TextResult
from service.engine.settings import DEVICES, PRECISIONS, EngineSettings
from service.errors import DragomanError, InputError, OutputError
from service.jobs.byte_lines import MAX_LINE_BYTES, read_chunk

CHUNK_BYTES = 65_536
TO_HELP = "language to translate to, BCP-47, such as fr"
FROM_HELP = "language of the text (default: the model's)"
# Where a flag is not called like the option.
_FLAG_OF = {"num_beams": "--beam", "num_alternatives": "--alternatives", "no_repeat_ngram_size": "--no-repeat-ngram"}


def add_translate_command(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds ``translate``."""
    parser = subparsers.add_parser(
        "translate",
        help="standard input's lines, or texts given as arguments",
        description="Translates TEXTs, or else standard input line by line: as many lines out, in order. A line of "
        f"more than {MAX_LINE_BYTES} bytes ends the command.",
    )
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="texts to translate instead of standard input")
    parser.add_argument("--to", type=language_code, required=True, metavar="CODE", help=TO_HELP)
    parser.add_argument("--from", type=language_code, dest="source", metavar="CODE", help=FROM_HELP)
    parser.add_argument("--json", action="store_true", help="one JSON object a line: text, score, token ids and more")
    parser.add_argument(
        "--alignment", action="store_true",
        help="say which characters of the text each part of its translation looked at; needs --json",
    )  # fmt: skip
    add_format_flag(parser)
    add_decode_flags(parser)
    add_model_flags(parser)
    parser.set_defaults(run=translate, parser=parser)


def language_code(text: str) -> str:
    """The type of --to and --from: anything but nothing, which a shell makes of a variable that is not set."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty")
    return text


def add_format_flag(parser: argparse.ArgumentParser) -> None:
    """``--format``, a TextFormat."""
    parser.add_argument(
        "--format", type=_text_format, default=TextFormat.PLAIN, metavar="{plain,html}",
        help="html: tags come back as they were, around the words that were made of theirs (default: plain)",
    )  # fmt: skip


def _text_format(text: str) -> TextFormat:
    try:
        return TextFormat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither plain nor html") from None


def add_decode_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that make DecodeOptions; None where one is not given."""
    defaults = DecodeOptions()

    def add(flag: str, kind: type[int] | type[float], metavar: str, meaning: str, default: float) -> None:
        shown = f"{meaning} (default: {default:g}, or the service's)"
        parser.add_argument(flag, type=kind, metavar=metavar, help=shown)

    add("--beam", int, "N", f"beam width, 1 (greedy) to {MAX_BEAMS}", defaults.num_beams)
    add("--length-penalty", float, "A", "score = log-probability / length ** A; 0 to 5", defaults.length_penalty)
    parser.add_argument(
        "--alternatives", type=int, default=defaults.num_alternatives, metavar="N",
        help="translations per text, at most the beam width; for output in JSON only (default: %(default)s)",
    )  # fmt: skip
    add("--max-length", int, "N", "target tokens per sentence; 0: the model's limit", defaults.max_length)
    add("--min-length", int, "N", "target tokens before a sentence may end", defaults.min_length)
    add(
        "--no-repeat-ngram", int, "N", "no N tokens in a row come twice in a sentence; 0: they may",
        defaults.no_repeat_ngram_size,
    )  # fmt: skip
    add(
        "--repetition-penalty", float, "P", "log-probabilities of tokens that were there already times P, 1 to 10",
        defaults.repetition_penalty,
    )  # fmt: skip


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that choose who translates."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--bundle", type=Path, metavar="DIR", help="model to use (default: the shipped one)")
    where.add_argument("--target", metavar="HOST:PORT", help="a running service to use")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="arithmetic (default: %(default)s)")
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="where to run (default: %(default)s)")
    add_patience_flag(parser)
    add_connection_flags(parser)


def check_decode_flags(options: argparse.Namespace) -> None:
    """Ends the program with 2 where the flags are wrong whatever a service says, without asking it."""
    if options.target is not None and (options.precision != "auto" or options.device != "cpu"):
        wrong_usage(options, "--precision and --device are for a model in this process, not for --target")
    if getattr(options, "format", TextFormat.PLAIN) is TextFormat.HTML:
        if options.alternatives > 1:
            wrong_usage(options, "--format html goes with one alternative")
        if getattr(options, "alignment", False):
            wrong_usage(options, "--format html goes without --alignment")
    # A service may have a wider beam as its default.
    _with_flags(options, DecodeOptions() if options.target is None else DecodeOptions(num_beams=MAX_BEAMS))


def read_decode_options(options: argparse.Namespace) -> DecodeOptions:
    """DecodeOptions of the flags; where one is not given, that of the service of --target.

    Ends the program with 2 where they are out of range.

    Raises:
        DragomanError: the service does not answer.
    """
    check_decode_flags(options)
    if options.target is None:
        return _with_flags(options, DecodeOptions())
    try:
        with Client(read_connection(options, options.target)) as client:
            defaults = client.decode_defaults()
    except ServiceError as error:
        raise DragomanError(f"the service at {options.target} does not answer: {error}") from None
    return _with_flags(options, defaults)


def _with_flags(options: argparse.Namespace, defaults: DecodeOptions) -> DecodeOptions:
    names = [field.name for field in dataclasses.fields(DecodeOptions)]
    flags = {name: getattr(options, _flag_of(name).lstrip("-").replace("-", "_")) for name in names}
    try:
        return dataclasses.replace(defaults, **{name: value for name, value in flags.items() if value is not None})
    except ValueError as error:
        message = str(error)
        for name in names:
            message = re.sub(rf"\b{name}\b", _flag_of(name), message)
        wrong_usage(options, message)


def _flag_of(name: str) -> str:
    """The flag of a field of DecodeOptions."""
    return _FLAG_OF.get(name, "--" + name.replace("_", "-"))


def wrong_usage(options: argparse.Namespace, message: str) -> NoReturn:
    """Prints usage and message, and ends the program with 2."""
    parser: argparse.ArgumentParser = options.parser
    parser.error(message)


def open_lines(options: argparse.Namespace, source: str | None, target: str | None) -> LineTranslator:
    """The translator that the flags choose. Raises as EmbeddedLines and RemoteLines do."""
    if options.target is not None:
        if target is None:
            wrong_usage(options, "--target needs --to")
        connection = read_connection(options, options.target)
        return RemoteLines(connection, source, target, options.patience_s, _say_what_broke)
    refuse_connection_flags(options)
    from service.app import bundle_paths

    [bundle] = bundle_paths((str(options.bundle),) if options.bundle else ())
    settings = EngineSettings(device=options.device, precision=options.precision)
    return EmbeddedLines(bundle, settings, source, target)


def _say_what_broke(error: ServiceError) -> None:
    print(f"dragoman: {error}; texts without an answer are sent again", file=sys.stderr)


def translate(options: argparse.Namespace) -> int:
    """Runs the command; 1 where a text failed, whose line is then empty.

    Raises:
        DragomanError: nothing, or not all, can be translated.
    """
    check_decode_flags(options)
    if options.alternatives > 1 and not options.json:
        wrong_usage(options, "--alternatives needs --json: one line holds one translation")
    if options.alignment and not options.json:
        wrong_usage(options, "--alignment needs --json: a line holds the translation alone")
    decode_options = read_decode_options(options)
    texts: Iterable[str] = _given_texts(options) or read_lines(sys.stdin.buffer)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # as the input, whatever the locale is
    code, num_written, num_flagged = DONE, 0, 0
    with open_lines(options, options.source, options.to) as lines:
        try:
            for answer in lines.translate(texts, decode_options, options.alignment, options.format):
                if isinstance(answer, DragomanError):
                    code = FAILED
                    print(f"dragoman translate: text {num_written + 1}: {answer}", file=sys.stderr)
                elif answer.split or answer.length_limited or answer.repetition_found:
                    num_flagged += 1
                line = _as_json(answer, options) if options.json else getattr(answer, "text", "")
                _write(line + "\n")
                num_written += 1
        except DragomanError:
            print(f"dragoman translate: ended after {num_written} lines were written", file=sys.stderr)
            raise
    if num_flagged and not options.json:
        print(
            f"dragoman translate: {num_flagged} of {num_written} translations: {FLAGGED}; --json says which",
            file=sys.stderr,
        )
    return code


def _write(line: str) -> None:
    """Raises OutputError, but for a reader that has gone."""
    try:
        sys.stdout.write(line)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"standard output cannot be written: {error.strerror}") from error


def _given_texts(options: argparse.Namespace) -> list[str]:
    """The TEXT arguments, which a locale that is not UTF-8 has spoiled, from the bytes they were."""
    try:
        return [os.fsencode(text).decode("utf-8") for text in options.texts]
    except UnicodeError:
        wrong_usage(options, "a TEXT is not valid UTF-8")


def read_lines(stream: BinaryIO) -> Iterator[str]:
    """Lines as a "\\n" ends them and nothing else does, without it.

    Reads the file beneath Python's buffer: a thread that waits inside that buffer would hold its lock, and Python could
    not end before the next line comes.

    Raises:
        InputError: a line is not UTF-8 or has more than MAX_LINE_BYTES, or nothing can be read.
    """
    unbuffered = getattr(stream, "raw", stream)
    number, begun = 0, bytearray()
    while chunk := _read(unbuffered):
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            number += 1
            yield _decoded(bytes(begun) + line, number)
            begun.clear()
        begun += rest
        _check_length(len(begun), number + 1)
    if begun:
        yield _decoded(bytes(begun), number + 1)


def _read(stream: BinaryIO) -> bytes:
    try:
        return read_chunk(stream, CHUNK_BYTES)
    except OSError as error:
        raise InputError(f"standard input cannot be read: {error.strerror}") from None


def _check_length(num_bytes: int, number: int) -> None:
    """Also asked in the midst of a line: one without an end would fill the memory."""
    if num_bytes > MAX_LINE_BYTES:
        raise InputError(f"line {number} of the input has more than the {MAX_LINE_BYTES} bytes allowed")


def _decoded(line: bytes, number: int) -> str:
    _check_length(len(line), number)
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"line {number} of the input is not valid UTF-8") from None


def _as_json(answer: LineAnswer, options: argparse.Namespace) -> str:
    if not isinstance(answer, TextResult):
        return json.dumps({"error": str(answer)}, ensure_ascii=False)
    best = answer.alternatives[0]
    found: dict[str, Any] = {
        "text": best.text,
        "score": best.score,
        "token_ids": list(best.token_ids),
        "finish_reason": answer.finish_reason.value,
        "num_sentences": answer.num_sentences,
        "num_source_tokens": answer.num_source_tokens,
        "num_target_tokens": answer.num_target_tokens,
        "split": answer.split,
        "length_limited": answer.length_limited,
        "repetition_found": answer.repetition_found,
    }
    if options.alternatives > 1:
        found["alternatives"] = [
            {"text": item.text, "score": item.score, "token_ids": list(item.token_ids)} for item in answer.alternatives
        ]
    if options.alignment:
        found["alignment"] = [link._asdict() for link in answer.alignment]
    return json.dumps(found, ensure_ascii=False)
