"""Peak memory of a batch job that reads its rows from a pipe: does it grow with their number?

Ten million translations would take a day. So the rows are a few hundred short texts again and again, which the job
translates once ("repeated", the command `dragoman batch` itself); or all of them differ and an engine that does nothing
but answer stands in for the real one ("distinct": reading, remembering, writing are the job's own). Each measurement is
a process of its own. Knows: processes, rows. Does not know: how a job works.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.report import markdown, numbers, parser, save
from service.engine.request import Alternative, FinishReason, TextResult, Timings
from service.jobs.formats import FileKind, Format
from service.jobs.input_files import InputFiles
from service.jobs.job import Job, open_source, open_writer
from service.jobs.outcome_cache import OutcomeCache
from service.jobs.pipeline import Pipeline
from service.jobs.source import SourceOptions
from service.jobs.text_engine import OnAnswer

COLUMNS = {
    "texts": "texts",
    "rows": "rows",
    "peak_mib": "peak MiB",
    "input_mib": "MiB read",
    "output_mib": "MiB written",
    "cpu_s": "CPU seconds",
    "wall_s": "seconds",
}
REPEATED, DISTINCT = "repeated", "distinct"
NUM_TEXTS = 500
BLOCK_ROWS = 10_000
NAMES = ("house", "river", "mill", "wind", "rain", "garden", "road", "train", "letter", "child")


class StandIn:
    """An engine that answers each text with itself, at once."""

    model = {"name": "stand-in"}  # noqa: RUF012
    failure = None

    def submit(self, text: str, on_answer: OnAnswer) -> None:
        """Answers before it returns."""
        best = Alternative(text, (), -1.0)
        on_answer(TextResult((best,), FinishReason.END_TOKEN, 3, 2, 1, False, Timings(0.0, 0.0, 0.0)))

    def check_model(self) -> None:
        """It is always the same."""

    def close(self) -> None:
        """Has nothing to end."""


def text(number: int) -> str:
    """Of different length, number for number."""
    return f"The {NAMES[number % 10]} number {number} is near the {NAMES[number // 10 % 10]}."


def blocks(kind: str, num_rows: int) -> Iterator[bytes]:
    """JSONL, some rows at a time."""
    for first in range(0, num_rows, BLOCK_ROWS):
        numbers = range(first, min(first + BLOCK_ROWS, num_rows))
        texts = (text(number % NUM_TEXTS if kind == REPEATED else number) for number in numbers)
        yield "".join(f'{{"text": "{found}"}}\n' for found in texts).encode()


def run_stand_in(output: Path) -> None:
    """The job with the stand-in, from standard input."""
    kind = FileKind(Format.JSONL, "")
    source = open_source(InputFiles.find("-"), kind, SourceOptions())
    job = Job(source, open_writer(source, kind), "", output)
    job.open({})
    job.run(Pipeline(source, StandIn(), OutcomeCache()))
    job.finish()


def measured(kind: str, num_rows: int, folder: Path) -> dict[str, Any]:
    """One job in a process of its own. Raises RuntimeError where it fails or loses a row."""
    output = folder / f"{kind}-{num_rows}.jsonl"
    command = [sys.executable, "-m", "benchmarks.batch_memory", "--stand-in", str(output)]
    if kind == REPEATED:
        command = [sys.executable, "-m", "service.cli", "batch", "-", str(output), "--to", "fr", "--beam", "1"]
        command += ["--input-format", "jsonl"]
    started, num_bytes = time.monotonic(), 0
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert process.stdin is not None
    with process.stdin as pipe:
        for block in blocks(kind, num_rows):
            pipe.write(block)
            num_bytes += len(block)
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"the job of {num_rows} rows ended with exit code {process.returncode}")
    with output.open("rb") as file:
        num_lines = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    if num_lines != num_rows:
        raise RuntimeError(f"{num_rows} rows became {num_lines}")
    num_written = output.stat().st_size
    output.unlink()
    return {
        "texts": kind if kind == DISTINCT else f"{NUM_TEXTS}, {kind}",
        "rows": num_rows,
        "peak_mib": usage.ru_maxrss / 1024,
        "input_mib": num_bytes / 2**20,
        "output_mib": num_written / 2**20,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "wall_s": wall_s,
    }


def options() -> argparse.ArgumentParser:
    arguments = parser(__doc__ or "", "batch_memory")
    arguments.add_argument("--rows", type=numbers, default=[1_000_000, 10_000_000])
    arguments.add_argument("--texts", choices=(REPEATED, DISTINCT), help="only these (default: both)")
    arguments.add_argument("--stand-in", type=Path, metavar="OUTPUT", help=argparse.SUPPRESS)
    return arguments


def main() -> None:
    given = options().parse_args()
    if given.stand_in:
        run_stand_in(given.stand_in)
        return
    counts = [20_000, 100_000] if given.quick else given.rows
    kinds = (given.texts,) if given.texts else (REPEATED, DISTINCT)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        rows = [measured(kind, count, Path(folder)) for kind in kinds for count in counts]
    print(markdown(rows, COLUMNS))
    save(given.out, "batch_memory", rows)


if __name__ == "__main__":
    main()
