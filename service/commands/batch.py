"""`dragoman batch`. Knows: its flags and exit codes. Does not know: how a row is read, translated or written."""

import argparse
import contextlib
import dataclasses
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from service.client import Client, ServiceError
from service.commands.batch_summary import tell
from service.commands.connection_flags import read_connection, refuse_connection_flags
from service.commands.exit_codes import DONE, FAILED
from service.commands.flags import is_text
from service.commands.lines import only_source
from service.commands.stop_signals import stopped_by_signals
from service.commands.translate import (
    FROM_HELP,
    TO_HELP,
    add_decode_flags,
    add_format_flag,
    add_model_flags,
    check_decode_flags,
    language_code,
    read_decode_options,
    wrong_usage,
)
from service.decoding.options import DecodeOptions
from service.engine.request import Priority, TextFormat
from service.engine.settings import EngineSettings
from service.errors import ConfigurationError, DragomanError, OutputError
from service.jobs.formats import FORMAT_NAMES, STANDARD_STREAM, FileKind, Format, check_conversion, kind_of
from service.jobs.input_files import InputFiles, paths_of
from service.jobs.job import Job, Windows, open_source, open_writer
from service.jobs.job_folder import JobFolder
from service.jobs.outcome_cache import OutcomeCache
from service.jobs.pipeline import Pipeline
from service.jobs.ray_windows import EngineRecipe, RayOptions, RayWindows
from service.jobs.source import Source, SourceOptions
from service.jobs.text_engine import EmbeddedEngine, TextEngine
from service.remote_engine import RemoteEngine

FAIL, SKIP, REPLACE = "fail", "skip", "replace"
EMBEDDED, RAY = "embedded", "ray"
STREAMS = 4
DESCRIPTION = """\
Translates every row of INPUT into a row of OUTPUT, in the same order. Forms: text, JSONL, CSV, TSV and Parquet, by the
names' endings, with .gz or .zst after them. Stopped by Ctrl-C, SIGTERM or kill -9, the same command goes on, and OUTPUT
is the same, byte for byte. Rows that fail have no translation and stand with their reason in OUTPUT.errors.jsonl; the
exit code is then 1."""


def add_batch_command(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds ``batch``."""
    parser = subparsers.add_parser("batch", help="every row of a file, resumed at any moment", description=DESCRIPTION)
    parser.add_argument("input", metavar="INPUT", help="a file, a quoted pattern of files ('part-*.jsonl'), or - ")
    parser.add_argument("output", metavar="OUTPUT", help="the file to make, or - for standard output (not resumed)")
    parser.add_argument("--to", type=language_code, required=True, metavar="CODE", help=TO_HELP)
    parser.add_argument("--from", type=language_code, dest="source", metavar="CODE", help=FROM_HELP)
    _add_row_flags(parser)
    _add_run_flags(parser)
    _add_ray_flags(parser)
    add_format_flag(parser)
    add_decode_flags(parser)
    add_model_flags(parser)
    parser.set_defaults(run=batch, parser=parser)


def _add_row_flags(parser: argparse.ArgumentParser) -> None:
    defaults = SourceOptions()
    parser.add_argument("--input-format", choices=FORMAT_NAMES, help="what INPUT is (default: by its name; text for -)")
    parser.add_argument("--output-format", choices=FORMAT_NAMES, help="what OUTPUT is (default: by its name)")
    parser.add_argument(
        "--column", default=defaults.column, metavar="NAME",
        help="column or field that holds the text; its number, from 1, with --no-header (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--no-header", action="store_true", help="CSV and TSV files begin with a row, not with names")
    parser.add_argument(
        "--prefix", default=defaults.prefix, metavar="P",
        help="goes before the new names translation, score and flags (default: none)",
    )  # fmt: skip
    parser.add_argument(
        "--max-row-bytes", type=int, default=defaults.max_row_bytes, metavar="N",
        help="a longer row fails and is not kept in memory (default: %(default)s)",
    )  # fmt: skip


def _add_run_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shard", type=_shard, default=(0, 1), metavar="I/N",
        help="only part I, from 0, of N of about the same number of rows; all outputs in order are the whole, so that "
        "of CSV and TSV only part 0 has a header",
    )  # fmt: skip
    parser.add_argument("--restart", action="store_true", help="forget what a stopped run has done")
    parser.add_argument(
        "--if-exists", choices=(FAIL, SKIP, REPLACE), default=FAIL,
        help="what to do where OUTPUT is there already: skip exits as the run did that made it (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--streams", type=int, metavar="N", help=f"streams to the service of --target (default: {STREAMS})"
    )


def _add_ray_flags(parser: argparse.ArgumentParser) -> None:
    defaults = RayOptions()
    parser.add_argument(
        "--engine", choices=(EMBEDDED, RAY), default=EMBEDDED,
        help="an engine in this process, or a pool of them on Ray, which RAY_ADDRESS may name (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--actors", type=int, metavar="N", help=f"engines on Ray (default: {defaults.actors})")
    parser.add_argument(
        "--cpus-per-actor", type=float, metavar="X",
        help=f"CPUs of each, also a fraction (default: {defaults.cpus:g})",
    )  # fmt: skip
    parser.add_argument(
        "--gpus-per-actor", type=float, metavar="X",
        help=f"GPUs of each, also a fraction (default: {defaults.gpus:g})",
    )  # fmt: skip


def batch(options: argparse.Namespace) -> int:
    """Runs the command; 1 where a row failed, 128 + the signal where one stopped it.

    Raises:
        DragomanError: the job cannot begin or go on; what is done stays done.
    """
    plan = _plan(options)
    output = None if options.output == STANDARD_STREAM else _followed(Path(options.output))
    if output is not None and (code := _prepare(output, options)) is not None:
        return code
    with stopped_by_signals() as stop:
        files = InputFiles.find(options.input)
        if output is not None:
            for path in (output, JobFolder(output).errors):
                if files.holds(path):
                    raise OutputError(f"{path} is one of the files to read, and one that this job writes")
        if files.is_standard_input and options.shard[1] > 1:
            wrong_usage(options, "--shard needs files: standard input cannot be counted first")
        source = open_source(files, plan.input, plan.rows)
        job = Job(source, open_writer(source, plan.output), plan.output.compression, output, options.shard)
        decoding = read_decode_options(options)
        windows = _open_windows(options, decoding, source)
        try:
            job.open(_fingerprint(options, plan, decoding, files, windows.model))
            if job.rows_done:
                print(f"dragoman batch: going on after {job.rows_done:,} rows", file=sys.stderr)
            _check_free(output, options, job)
            stop.then(lambda: _stop(windows))
            summary = job.run(windows)
            if not stop.signal:
                windows.check_model()
                summary = job.finish()
        finally:
            windows.close()
            job.close()
    return tell(summary, output, stop.signal)


class _Plan(NamedTuple):
    """What the flags say of the rows."""

    rows: SourceOptions
    input: FileKind
    output: FileKind


def _plan(options: argparse.Namespace) -> _Plan:
    """Ends the program with 2 where the flags do not fit together."""
    column = "1" if options.no_header and options.column == SourceOptions().column else options.column
    _check_run_flags(options)
    check_decode_flags(options)
    try:
        has_alternatives = options.alternatives > 1
        rows = SourceOptions(column, options.prefix, not options.no_header, options.max_row_bytes, has_alternatives)
        source = kind_of(options.input, options.input_format, "--input-format", Format.TEXT)
        target = kind_of(options.output, options.output_format, "--output-format", source.format)
        check_conversion(source.format, target.format)
        if source.compression and options.input == STANDARD_STREAM:
            raise ConfigurationError("standard input is read as it is")
    except (ValueError, ConfigurationError) as error:
        wrong_usage(options, str(error))
    if not is_text(options.prefix):
        wrong_usage(options, "--prefix is not valid UTF-8")
    if has_alternatives and target.format is not Format.JSONL:
        wrong_usage(options, "--alternatives needs JSONL output: other rows hold one translation")
    if options.no_header and source.format not in (Format.CSV, Format.TSV):
        wrong_usage(options, "--no-header is for CSV and TSV")
    are_named = options.column != SourceOptions().column or options.prefix != SourceOptions().prefix
    if are_named and source.format is Format.TEXT and target.format is Format.TEXT:
        wrong_usage(options, "--column and --prefix are for rows with names; a line of text has none")
    return _Plan(rows, source, target)


def _check_run_flags(options: argparse.Namespace) -> None:
    """Ends the program with 2 where a flag is for another kind of engine."""
    if options.streams is not None and options.target is None:
        wrong_usage(options, "--streams is for --target")
    if options.streams is not None and options.streams < 1:
        wrong_usage(options, f"--streams ({options.streams}) must be >= 1")
    if options.engine != EMBEDDED and options.target is not None:
        wrong_usage(options, f"--engine {options.engine} is for models of its own, not for --target")
    if options.engine != RAY:
        for name in ("actors", "cpus_per_actor", "gpus_per_actor"):
            if getattr(options, name) is not None:
                wrong_usage(options, f"--{name.replace('_', '-')} is for --engine {RAY}")


def _followed(output: Path) -> Path:
    """The file that a link names, which would else be replaced by the output."""
    return Path(os.path.realpath(output)) if output.is_symlink() else output


def _prepare(output: Path, options: argparse.Namespace) -> int | None:
    """Looks at what is at OUTPUT already; the exit code where nothing is left to do.

    Raises:
        InputError: INPUT is not there. OutputError: OUTPUT cannot be made, or is there already.
    """
    folder = JobFolder(output)
    is_new = options.restart or not folder.is_there
    if output.is_file() and is_new and options.if_exists == SKIP:
        print(f"dragoman batch: {output} is there already", file=sys.stderr)
        return FAILED if folder.errors.exists() else DONE
    paths_of(options.input)  # a mistyped name is told before anything of an earlier run is thrown away
    if not output.parent.is_dir():
        raise OutputError(f"there is no folder {output.parent} to write {output.name} in")
    if output.exists() and not output.is_file():
        what = "a folder" if output.is_dir() else "a pipe or a device"
        raise OutputError(f"{output} is {what}; name the file to make, or - for standard output")
    for path in (output, folder.errors):  # an errors file by itself may be of somebody else
        if path.exists() and is_new:
            _refuse_existing(path, options)
    if is_new:
        folder.discard()  # also what a kill left in the midst of removing it
    return None


def _check_free(output: Path | None, options: argparse.Namespace, job: Job) -> None:
    """Raises OutputError where somebody else has made OUTPUT while this job was stopped."""
    if output is not None and not job.is_done and output.exists():
        _refuse_existing(output, options)


def _refuse_existing(output: Path, options: argparse.Namespace) -> None:
    if options.if_exists != REPLACE:
        raise OutputError(f"{output} is there already; see --if-exists")


def _fingerprint(
    options: argparse.Namespace, plan: _Plan, decoding: DecodeOptions, files: InputFiles, model: dict[str, Any]
) -> dict[str, Any]:
    """What must be the same when the job goes on."""
    return {
        "input": files.fingerprint(),
        "model": model,
        "option": {
            "--to": options.to,
            "--from": options.source or "",
            "--shard": "{}/{}".format(*options.shard),
            **({} if options.format is TextFormat.PLAIN else {"--format": "html"}),  # of which older jobs know nothing
            **{"input " + name: str(value) for name, value in dataclasses.asdict(plan.input).items()},
            **{"output " + name: str(value) for name, value in dataclasses.asdict(plan.output).items()},
            **dataclasses.asdict(plan.rows),
            **dataclasses.asdict(decoding),
        },
    }


def _open_windows(options: argparse.Namespace, decoding: DecodeOptions, source: Source) -> Windows:
    """The engine that the flags choose, at work on the source's rows."""
    if options.target is not None:
        return Pipeline(source, _remote_engine(options, decoding), OutcomeCache())
    refuse_connection_flags(options)
    from service.app import bundle_paths

    [bundle] = bundle_paths((str(options.bundle),) if options.bundle else ())
    settings = EngineSettings(device=options.device, precision=options.precision)
    if options.engine == EMBEDDED:
        engine = EmbeddedEngine(bundle, settings, options.source, options.to, decoding, options.format)
        return Pipeline(source, engine, OutcomeCache())
    try:
        given = (("actors", options.actors), ("cpus", options.cpus_per_actor), ("gpus", options.gpus_per_actor))
        ray_options = RayOptions(**{name: value for name, value in given if value is not None})
    except ValueError as error:
        wrong_usage(options, str(error))
    recipe = EngineRecipe(bundle.resolve(), settings, options.source, options.to, decoding, options.format)
    return RayWindows(source, recipe, ray_options)


def _remote_engine(options: argparse.Namespace, decoding: DecodeOptions) -> TextEngine:
    client = Client(read_connection(options, options.target))
    try:
        source = options.source or only_source(client, options.to)
        return RemoteEngine(
            client, source, options.to, decoding,
            num_streams=options.streams or STREAMS, patience_s=options.patience_s, priority=Priority.BATCH,
            text_format=options.format,
        )  # fmt: skip
    except BaseException as error:
        client.close()
        if isinstance(error, ServiceError):
            raise DragomanError(f"the service at {options.target} does not answer: {error}") from None
        raise


def _stop(windows: Windows) -> None:
    """What a signal comes to. Past Python's buffers, in which the signal may have caught the progress line."""
    with contextlib.suppress(OSError):
        os.write(2, b"\ndragoman batch: finishing what is in flight and saving; again: stop now\n")
    windows.stop()


def _shard(text: str) -> tuple[int, int]:
    """I/N as two numbers."""
    shard, _, num_shards = text.partition("/")
    if not (shard.isdecimal() and num_shards.isdecimal() and int(shard) < int(num_shards)):
        raise argparse.ArgumentTypeError(f"{text!r} must be I/N with 0 <= I < N, such as 0/4")
    return int(shard), int(num_shards)
