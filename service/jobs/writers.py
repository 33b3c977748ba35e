"""Rows and their outcomes as bytes, in the form of the output.

Knows: text, JSONL, CSV, TSV. Does not know: files, compression, Parquet (arrow_writer.py).
"""

import base64
import csv
import datetime
import decimal
import io
import json
import math
import uuid
from collections.abc import Sequence
from typing import Any, Protocol

from service.errors import InputError
from service.jobs.formats import Format
from service.jobs.line_sources import DelimitedSource
from service.jobs.rows import Outcome, Row, failed
from service.jobs.source import Source

Pairs = Sequence[tuple[Row, Outcome]]


class Writer(Protocol):
    """Makes bytes of rows; the bytes of one call after those of another are the bytes of one call with both."""

    def header(self) -> bytes:
        """What goes before the first row; the source's columns must be known."""

    def encode(self, pairs: Pairs) -> bytes:
        """The rows with their outcomes, as many as there are pairs and in their order."""

    def unwritable(self, row: Row, outcome: Outcome) -> str:
        """Why this form cannot hold the row; empty where it can."""


class TextWriter:
    """The translation alone, a line each; an empty line for a row without one."""

    def header(self) -> bytes:
        return b""

    def encode(self, pairs: Pairs) -> bytes:
        return "".join(f"{outcome.text or ''}\n" for _, outcome in pairs).encode()

    def unwritable(self, row: Row, outcome: Outcome) -> str:
        return _held("\n", "a line break", "text", outcome.text)


class JsonlWriter:
    """An object a line. An object of the input keeps its bytes and gets the new fields at its end."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def header(self) -> bytes:
        return b""

    def encode(self, pairs: Pairs) -> bytes:
        return b"".join(self._line(row, outcome) for row, outcome in pairs)

    def unwritable(self, row: Row, outcome: Outcome) -> str:
        return _unreadable(row)

    def _line(self, row: Row, outcome: Outcome) -> bytes:
        _, translation, score, flags = self._source.options.added
        added: dict[str, Any] = {} if row.has_id else {"id": row.number}
        if row.values is not None:
            added = dict(zip(self._source.columns or (), row.values, strict=True)) | added
        added |= {translation: outcome.text, score: outcome.score, flags: list(outcome.flags)}
        if self._source.options.has_alternatives:
            single = [] if outcome.text is None else [(outcome.text, outcome.score)]
            found = outcome.alternatives or single
            added[self._source.options.alternatives] = [{"text": text, "score": score} for text, score in found]
        fields = _json(added).encode() + b"\n"
        if row.raw is None or row.values is not None:
            return fields
        opened = row.raw[:-1].rstrip()
        return opened + (b"" if opened == b"{" else b", ") + fields[1:]


class DelimitedWriter:
    """CSV or TSV. A record of such an input keeps its bytes and gets the new fields at its end."""

    def __init__(self, source: Source, format: Format, with_header: bool) -> None:
        self._source, self._with_header = source, with_header
        self._is_csv = format is Format.CSV
        # Records of the same form go on from their own bytes.
        self._spliced = source if isinstance(source, DelimitedSource) and source.is_csv == self._is_csv else None
        self._check_names()

    def _check_names(self) -> None:
        """Raises InputError where the output cannot hold a column's name; of standard input none is known at first."""
        names = () if self._is_csv or self._spliced is not None else self._source.columns or ()
        for name in names:
            if why := _unheld_in_tsv(name):
                raise InputError(f"the name of column {name!r}: {why}")

    def header(self) -> bytes:
        self._check_names()
        if not self._with_header:
            return b""
        columns = list(self._source.columns or ())
        added = [name for name in self._source.options.added if name != "id" or "id" not in columns]
        if self._spliced is not None and self._spliced.header:
            return self._joined(self._spliced.header, added)
        return self._joined(None, [*columns, *added])

    def encode(self, pairs: Pairs) -> bytes:
        return b"".join(self._record(row, outcome) for row, outcome in pairs)

    def unwritable(self, row: Row, outcome: Outcome) -> str:
        if why := _unreadable(row):
            return why
        if self._is_csv:
            return ""
        values = () if self._spliced is not None else row.values or ()
        return next((why for text in (outcome.text, *values) if (why := _unheld_in_tsv(text))), "")

    def _record(self, row: Row, outcome: Outcome) -> bytes:
        has_id = "id" in (self._source.columns or ())
        score = "" if outcome.score is None else repr(outcome.score)
        added = [outcome.text or "", score, " ".join(outcome.flags)]
        if not has_id:
            added.insert(0, str(row.number))
        if self._spliced is not None and row.raw is not None:
            return self._joined(row.raw, added)
        columns = self._source.columns or ()
        # What could not be read keeps its place by its number.
        unread = [str(row.number) if name == "id" else "" for name in columns]
        return self._joined(None, [*(row.values or unread), *added])

    def _joined(self, raw: bytes | None, fields: Sequence[Any]) -> bytes:
        ending = self._spliced.ending if self._spliced is not None else b"\n"
        if not self._is_csv:
            text = "\t".join(map(str, fields)).encode()
            return (text if raw is None else raw + b"\t" + text) + ending
        stream = io.StringIO()
        # A field is quoted for a line break only where that is in the terminator (Python before 3.13).
        csv.writer(stream, lineterminator="\r\n").writerow(fields)
        text = stream.getvalue().removesuffix("\r\n").encode()
        return (text if raw is None else raw + b"," + text) + ending


def checked(writer: Writer, pairs: Pairs) -> list[tuple[Row, Outcome]]:
    """The pairs, with an error in the place of every outcome that the output cannot hold."""
    found = []
    for row, outcome in pairs:
        reason = writer.unwritable(row, outcome)
        if reason:
            row = Row(row.number, None, reason, has_id=row.has_id)
            outcome = failed(reason)
        found.append((row, outcome))
    return found


def _unreadable(row: Row) -> str:
    """Why Python has no such values, as with some of Parquet: times past year 9999, bytes that are no text."""
    try:
        list(row.values or ())
    except Exception as error:
        return f"a value of the row cannot be read: {type(error).__name__}: {error}"
    return ""


def _held(sign: str, what: str, form: str, text: Any) -> str:
    if isinstance(text, str) and sign in text:
        return f"it holds {what}, which a {form} file cannot; write JSONL or CSV"
    return ""


def _unheld_in_tsv(text: Any) -> str:
    return _held("\t", "a tab", "TSV", text) or _held("\n", "a line break", "TSV", text)


def _json(fields: dict[str, Any]) -> str:
    """One line of JSON, which has neither NaN nor infinity: they become null."""
    try:
        return json.dumps(fields, ensure_ascii=False, default=_plain, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(fields), ensure_ascii=False, default=_plain)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: Any) -> Any:
    """A value of Parquet as JSON has it: dates and durations in ISO 8601, decimals as text, bytes in base64."""
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return f"PT{value.total_seconds():f}S"
    if isinstance(value, decimal.Decimal | uuid.UUID):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise InputError(f"a value of type {type(value).__name__} cannot be written as JSON; write Parquet")
