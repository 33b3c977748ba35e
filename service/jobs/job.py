"""A batch job: from the rows of the input to as many rows of the output, checkpoint by checkpoint.

Knows: the order of things. Does not know: forms, engines, flags.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from service.errors import OutputError
from service.jobs.arrow_writer import ArrowWriter
from service.jobs.byte_lines import compressed_member
from service.jobs.formats import FileKind, Format
from service.jobs.input_files import InputFiles
from service.jobs.job_folder import JobFolder
from service.jobs.journal import Checkpoint
from service.jobs.line_sources import DelimitedSource, JsonlSource, TextSource
from service.jobs.parquet_source import ParquetSource
from service.jobs.progress import Progress
from service.jobs.rows import TOLD_OF, Outcome, Row
from service.jobs.source import Source, SourceOptions, shard_rows
from service.jobs.windows import Window
from service.jobs.writers import DelimitedWriter, JsonlWriter, TextWriter, Writer, checked

# Changes when a job begun by an older program would be gone on with otherwise than it was begun.
JOB_VERSION: Final = 1


class Windows(Protocol):
    """Where complete windows come from: a Pipeline, or Ray.

    Attributes:
        model: which model it is: what must be the same when a job goes on.
    """

    @property
    def model(self) -> dict[str, Any]: ...

    def completed(self, first: int, last: int | None) -> Iterator[Window]:
        """Complete windows of the rows ``first`` to ``last``, in order."""

    def stop(self) -> None:
        """Begins no more windows."""

    def check_model(self) -> None:
        """Raises ConfigurationError where it is no longer the model it was."""

    def close(self) -> None:
        """Ends the engine."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Rows done, failed and flagged since the job was begun; how fast this run was, for people."""

    rows: int
    failed: int
    flagged: int
    rate: str


def open_source(files: InputFiles, kind: FileKind, options: SourceOptions) -> Source:
    """The rows of the files, their columns learned. Raises InputError."""
    source: Source
    if kind.format is Format.PARQUET:
        source = ParquetSource(files, options)
    elif kind.format is Format.TEXT:
        source = TextSource(files, options, kind)
    elif kind.format is Format.JSONL:
        source = JsonlSource(files, options, kind)
    else:
        source = DelimitedSource(files, options, kind)
    source.open()
    return source


def open_writer(source: Source, kind: FileKind) -> Writer:
    """What makes the output's bytes of the source's rows."""
    if kind.format is Format.TEXT:
        return TextWriter()
    if kind.format is Format.JSONL:
        return JsonlWriter(source)
    if kind.format is Format.PARQUET:
        return ArrowWriter(source)
    return DelimitedWriter(source, kind.format, source.options.has_header)


class Job:
    """One job.

    Args:
        output: None for standard output, which cannot be gone on with.
        shard: which part, from 0, of how many.
    """

    def __init__(
        self, source: Source, writer: Writer, compression: str, output: Path | None, shard: tuple[int, int] = (0, 1)
    ) -> None:
        self._source, self._writer, self._compression = source, writer, compression
        self._folder = JobFolder(output) if output is not None else None
        # Outputs of shards are put one after the other; that of Parquet is a file with a header of its own.
        self._has_header = shard[0] == 0 or isinstance(writer, ArrowWriter)
        self._rows: tuple[int, int | None] = (1, None)
        if shard[1] > 1:
            self._rows = shard_rows(source.count(), *shard)
        self._begun = Checkpoint()
        self._last = Checkpoint()
        self._rate = ""

    def open(self, fingerprint: dict[str, Any]) -> None:
        """Finds out where to go on. Raises ConfigurationError, OutputError."""
        if self._folder is not None:
            self._begun = self._last = self._folder.open({"version": JOB_VERSION} | fingerprint)
            self._source.expected_state = self._begun.state

    @property
    def is_done(self) -> bool:
        """Nothing is left but to move files into their places, or not even that: no engine is needed."""
        return self._last.is_done

    @property
    def rows_done(self) -> int:
        return self._last.rows

    def run(self, windows: Windows) -> Summary:
        """Goes on to the end, or to where ``windows`` stops.

        Raises:
            InputError, OutputError, DragomanError: what is done so far stays done.
        """
        first, last = self._rows
        size = self._source.files.num_bytes if last is None else last - first + 1
        progress = Progress(size, self._reached(self._begun), self._begun.rows)
        try:
            for window in self._windows(windows):
                self._commit(window)
                done = self._last
                progress.advance(self._reached(done), done.rows, done.tokens - self._begun.tokens)
        finally:
            progress.close()
        self._rate = progress.rate()
        return self._summary()

    def _reached(self, checkpoint: Checkpoint) -> int:
        """How much of the job is done: bytes of the input, whose rows nobody counts; of a shard rows, which were
        counted to find it, since the bytes before it are none of its work."""
        return checkpoint.position if self._rows[1] is None else checkpoint.rows

    def finish(self) -> Summary:
        """Puts the output into its place. Raises OutputError."""
        if self._last.output_bytes == 0 and not self._last.is_done:
            self._write(self._encoded([]), b"", self._last)
        self._last = replace(self._last, is_done=True)
        if self._folder is not None:
            self._folder.finish(self._last, self._writer.finish if isinstance(self._writer, ArrowWriter) else None)
        return self._summary()

    def _summary(self) -> Summary:
        return Summary(self._last.rows, self._last.failed, self._last.flagged, self._rate)

    def close(self) -> None:
        if self._folder is not None:
            self._folder.close()

    def _windows(self, windows: Windows) -> Iterator[Window]:
        first, last = self._rows
        if not self._last.is_done:
            yield from windows.completed(first + self._last.rows, last)

    def _commit(self, window: Window) -> None:
        pairs = checked(self._writer, window.pairs())
        errors = _error_lines(pairs)
        after = replace(
            self._last,
            rows=self._last.rows + len(pairs),
            failed=self._last.failed + len(errors),
            flagged=self._last.flagged + sum(not TOLD_OF.isdisjoint(outcome.flags) for _, outcome in pairs),
            tokens=self._last.tokens + sum(outcome.num_tokens for _, outcome in pairs),
            position=window.position,
            state=window.state,
        )
        self._write(self._encoded(pairs), b"".join(errors), after)

    def _encoded(self, pairs: Sequence[tuple[Row, Outcome]]) -> bytes:
        """Rows, after the header where they are the whole input's first: a compressed member by itself."""
        is_first = self._last.output_bytes == 0 and self._has_header
        header = self._writer.header() if is_first else b""
        return compressed_member(header + (self._writer.encode(pairs) if pairs else b""), self._compression)

    def _write(self, rows: bytes, errors: bytes, after: Checkpoint) -> None:
        if self._folder is not None:
            self._last = replace(
                after,
                output_bytes=after.output_bytes + len(rows),
                errors_bytes=after.errors_bytes + len(errors),
            )
            self._folder.commit(rows, errors, self._last)
            return
        if sys.stdout is None:
            raise OutputError("standard output is closed")
        self._last = replace(after, output_bytes=after.output_bytes + len(rows))
        try:
            sys.stdout.buffer.write(rows)
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"standard output cannot be written: {error.strerror}") from error
        sys.stderr.write(errors.decode())


def _error_lines(pairs: Sequence[tuple[Row, Outcome]]) -> list[bytes]:
    return [
        json.dumps(_error(row, outcome), ensure_ascii=False).encode() + b"\n"
        for row, outcome in pairs
        if outcome.reason
    ]


def _error(row: Row, outcome: Outcome) -> dict[str, object]:
    error: dict[str, object] = {"row": row.number, "reason": outcome.reason}
    return error | {"record": row.record} if row.record else error
