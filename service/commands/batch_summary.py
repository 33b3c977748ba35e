"""What `dragoman batch` says at its end, and its exit code. Knows: words. Does not know: how rows are done."""

import sys
from pathlib import Path

from service.commands.exit_codes import DONE, FAILED
from service.commands.lines import FLAGGED
from service.jobs.job import Summary
from service.jobs.job_folder import ERRORS_SUFFIX


def tell(summary: Summary, output: Path | None, signal_number: int) -> int:
    """Says how it ended; returns the exit code."""
    rows = f"{summary.rows:,} rows"
    if summary.flagged:
        print(
            f"dragoman batch: {summary.flagged:,} of {rows}: {FLAGGED}; the flags of JSONL, CSV and Parquet say which",
            file=sys.stderr,
        )
    if signal_number:
        goes_on = (
            "the same command goes on from here" if output is not None else "standard output cannot be gone on with"
        )
        print(f"dragoman batch: stopped after {rows}; {goes_on}", file=sys.stderr)
        return 128 + signal_number
    if summary.failed:
        where = f"{output}{ERRORS_SUFFIX} says why" if output is not None else "the reasons are above"
        print(f"dragoman batch: {rows}, of which {summary.failed:,} failed; {where}", file=sys.stderr)
        return FAILED
    print(f"dragoman batch: {rows}, {summary.rate}", file=sys.stderr)
    return DONE
