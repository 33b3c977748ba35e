"""Rows of text, JSONL, CSV and TSV files.

Knows: what makes a record and what makes a row of it. Does not know: where rows go.
"""

import csv
import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final

from service.errors import InputError
from service.jobs.byte_lines import ByteLines, Line, Overlong, decompressed
from service.jobs.csv_records import csv_records
from service.jobs.formats import FileKind, Format
from service.jobs.input_files import InputFiles
from service.jobs.rows import Row
from service.jobs.source import Source, SourceOptions

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
UTF_16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")
COMPRESSED_MARKS: Final = {b"\x1f\x8b": ("gzip", ".gz"), b"\x28\xb5\x2f\xfd": ("zstd", ".zst")}
# Rows of JSONL that are read before the first is translated.
LOOK_AHEAD_ROWS: Final = 100

# Of a record that cannot be read, so much is told.
MAX_TOLD_BYTES = 2_000


class LineSource(Source):
    """What the forms below have in common: records are one line, or for CSV one or more."""

    def __init__(self, files: InputFiles, options: SourceOptions, kind: FileKind) -> None:
        super().__init__(files, options)
        self.kind = kind

    def records(self) -> Iterator[Line]:
        for name, stream in self.files.streams():
            lines = ByteLines(
                decompressed(stream, self.kind.compression), name, self.options.max_row_bytes, self.digest
            )
            yield from self.records_of(_without_mark(lines, name), name)

    def records_of(self, lines: Iterable[Line], name: str) -> Iterator[Line]:
        """The records of one file."""
        yield from lines

    def row(self, number: int, record: Line) -> Row:
        if isinstance(record, Overlong):
            limit = self.options.max_row_bytes
            return Row(number, None, f"the row has {record.num_bytes} bytes, more than the {limit} allowed")
        content = self.content(record)
        try:
            row = self.row_of(number, content, content.decode("utf-8"))
        except UnicodeDecodeError as error:
            row = Row(number, None, f"byte {error.start + 1} of the row is not valid UTF-8")
        if row.reason and row.raw is None:
            row.record = content[:MAX_TOLD_BYTES].decode("utf-8", "replace")
        return row

    def content(self, record: bytes) -> bytes:
        """A record without its line break."""
        return without_break(record)

    @abstractmethod
    def row_of(self, number: int, content: bytes, text: str) -> Row:
        """The row of a record that could be decoded; ``text`` is its ``content`` as characters."""


class TextSource(LineSource):
    """A text a line. A "\\r" before the line break is part of the text, as in ``dragoman translate``."""

    def open(self) -> None:
        if self.options.column == "id":
            raise InputError("a row's number is called 'id'; choose another name for its text with --column")
        self.check_columns((self.options.column,), "the text")
        self.columns = (self.options.column,)

    def content(self, record: bytes) -> bytes:
        return record.removesuffix(b"\n")

    def row_of(self, number: int, content: bytes, text: str) -> Row:
        return Row(number, text, values=(text,))


class JsonlSource(LineSource):
    """A JSON object a line; blank lines are no rows. Objects come through byte for byte, with fields at their end."""

    def records(self) -> Iterator[Line]:
        """As Source.records(). Raises InputError where the first of them show that the options do not fit."""
        found = super().records()
        first = list(islice(found, LOOK_AHEAD_ROWS))
        self._check_first(first)
        yield from first
        yield from found

    def records_of(self, lines: Iterable[Line], name: str) -> Iterator[Line]:
        return (line for line in lines if isinstance(line, Overlong) or line.strip())

    def _check_first(self, records: Iterable[Line]) -> None:
        """None has the field of the texts, or one has a name that the job adds: so it will be with all others."""
        column = self.options.column
        objects = {
            number: found
            for number, record in enumerate(records, start=1)
            if isinstance(record, bytes) and isinstance(found := _json_of(record), dict)
        }
        if objects and not any(column in found for found in objects.values()):
            names = ", ".join(next(iter(objects.values()))) or "none"
            raise InputError(f"the first rows have no field {column!r}, but {names}. Choose with --column")
        for number, found in objects.items():
            self.check_added(found, f"row {number}")

    def row_of(self, number: int, content: bytes, text: str) -> Row:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            return Row(number, None, f"the row is not JSON: {error}")
        if not isinstance(found, dict):
            return Row(number, None, "the row is not a JSON object")
        raw, has_id = content.strip(), "id" in found
        column = self.options.column
        if taken := self.taken_name(found):  # without its fields in the output: none may stand there twice
            return Row(number, None, f"the row has {taken!r}, a name that this job adds; see --prefix")
        if column not in found:
            return Row(number, None, f"the row has no field {column!r}", raw, has_id=has_id)
        value = found[column]
        reason = "" if value is None else unfit(value)
        return Row(number, None if reason else value, reason, raw, has_id=has_id)


class DelimitedSource(LineSource):
    """CSV and TSV. Records come through byte for byte, with fields put at their end."""

    def __init__(self, files: InputFiles, options: SourceOptions, kind: FileKind) -> None:
        super().__init__(files, options, kind)
        self.is_csv = kind.format is Format.CSV
        self.header = b""
        self.ending = b"\n"
        self._place = 0
        if self.is_csv:
            csv.field_size_limit(max(options.max_row_bytes, csv.field_size_limit()))

    def open(self) -> None:
        """As Source.open(); of standard input it is the first rows that learn the columns."""
        if not self.files.is_standard_input:
            next(self.records(), None)

    def records_of(self, lines: Iterable[Line], name: str) -> Iterator[Line]:
        found = csv_records(lines, self.options.max_row_bytes) if self.is_csv else iter(lines)
        first = next(found, None)
        if first is None:
            if self.options.has_header:
                raise InputError(f"{name} is empty; it should begin with the names of its columns")
            return
        self._learn(first, name)
        if not self.options.has_header:
            yield first
        has_one_column = self.columns is not None and len(self.columns) == 1
        yield from (record for record in found if has_one_column or not _is_blank(record))

    def _learn(self, first: Line, name: str) -> None:
        try:
            fields = self.fields(without_break(first).decode("utf-8")) if isinstance(first, bytes) else []
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"{name}: its first line cannot be read: {error}") from None
        if not self.options.has_header:
            fields = [str(number) for number in range(1, len(fields) + 1)]
        columns = tuple(fields)
        self.check_columns(columns, name)
        is_first_file = self.columns is None
        self.columns = columns
        self._place = columns.index(self.options.column)
        if is_first_file and isinstance(first, bytes):  # one output has one header and one kind of line break
            self.header = without_break(first) if self.options.has_header else b""
            self.ending = b"\r\n" if first.endswith(b"\r\n") else b"\n"

    def fields(self, record: str) -> list[str]:
        """The fields of one record. Raises csv.Error where quotes are not closed or stand in odd places."""
        if not self.is_csv:
            return record.split("\t")
        return next(csv.reader([record], strict=True), []) or [""]  # a blank line is one empty field

    def row_of(self, number: int, content: bytes, text: str) -> Row:
        try:
            values = self.fields(text)
        except csv.Error as error:
            num_lines = content.count(b"\n") + 1
            spans = f", in {num_lines} lines that a quote holds together" if num_lines > 1 else ""
            return Row(number, None, f"the row is not CSV: {error}{spans}")
        num_columns = len(self.columns or ())
        if len(values) != num_columns:
            return Row(number, None, f"the row has {len(values)} fields, not {num_columns}")
        has_id = "id" in (self.columns or ())
        return Row(number, values[self._place], raw=content, values=values, has_id=has_id)


def _json_of(record: bytes) -> Any:
    """What a record holds; None where it is not JSON."""
    try:
        return json.loads(record)
    except (ValueError, RecursionError):  # a UnicodeDecodeError is a ValueError
        return None


def unfit(value: Any) -> str:
    """Why a field is no text; empty where it is one."""
    if not isinstance(value, str):
        return f"the text is not a string but {type(value).__name__}"
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return "the text holds a lone surrogate, which no UTF-8 has"
    return ""


def _is_blank(record: Line) -> bool:
    return isinstance(record, bytes) and not without_break(record)


def without_break(line: bytes) -> bytes:
    return line.removesuffix(b"\n").removesuffix(b"\r")


def _without_mark(lines: ByteLines, name: str) -> Iterator[Line]:
    """Lines without the byte order mark that some programs put at the start of a file.

    Raises:
        InputError: they are UTF-16, or compressed.
    """
    is_first = True
    for line in lines:
        if is_first and isinstance(line, bytes) and line.startswith(UTF_16_MARKS):
            raise InputError(f"{name} is UTF-16; make it UTF-8 first, with iconv -f UTF-16 -t UTF-8")
        if is_first and isinstance(line, bytes):
            _refuse_compressed(line, name)
        if is_first and isinstance(line, bytes) and line.startswith(BYTE_ORDER_MARK):
            line = line.removeprefix(BYTE_ORDER_MARK)
            if not line:
                continue
        yield line
        is_first = False


def _refuse_compressed(line: bytes, name: str) -> None:
    for mark, (compression, suffix) in COMPRESSED_MARKS.items():
        if line.startswith(mark):
            raise InputError(
                f"{name} is compressed with {compression}: let INPUT's name end in {suffix}, or decompress it first"
            )
