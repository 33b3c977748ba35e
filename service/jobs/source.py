"""The rows of a job's input, whatever form it has: what every form has in common.

Knows: files, counting, bounds. Does not know: how a record is taken apart (line_sources.py, parquet_source.py).
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Container, Iterator
from copy import copy
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from service.errors import InputError
from service.jobs.byte_lines import MAX_LINE_BYTES
from service.jobs.input_files import InputFiles
from service.jobs.rows import Row

ADDED_NAMES: Final = ("id", "translation", "score", "flags")
ALTERNATIVES: Final = "alternatives"


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How rows are found in the input.

    Raises:
        ValueError: a value is out of its range.
    """

    column: str = "text"
    """Name of the column or field that holds the text; its number, from 1, where has_header is false."""
    prefix: str = ""
    """Goes before the names of the columns that the job adds, where the input has such names already."""
    has_header: bool = True
    """Whether the first record of a CSV or TSV file holds the names of its columns."""
    max_row_bytes: int = MAX_LINE_BYTES
    """A longer row is not translated; at least 1. Bounds memory."""
    has_alternatives: bool = False
    """Whether the job adds a field with all translations of a row as well (JSONL)."""

    def __post_init__(self) -> None:
        if self.max_row_bytes < 1:
            raise ValueError(f"max_row_bytes ({self.max_row_bytes}) must be >= 1")

    @property
    def added(self) -> tuple[str, ...]:
        """Names of the columns that the job adds: ADDED_NAMES with the prefix, but "id", which is the input's too."""
        return tuple(name if name == "id" else self.prefix + name for name in ADDED_NAMES)

    @property
    def alternatives(self) -> str:
        """Name of the field with all translations of a row."""
        return self.prefix + ALTERNATIVES

    @property
    def reserved(self) -> tuple[str, ...]:
        """Names that the input must not have."""
        return (*self.added[1:], *([self.alternatives] if self.has_alternatives else []))


class Source(ABC):
    """The rows of all files, one after the other.

    Attributes:
        columns: names of the input's columns; None where rows name their own (JSONL). Known after open().
        expected_state: what state() must be where rows() begins, for a job that goes on; empty: anything.
    """

    def __init__(self, files: InputFiles, options: SourceOptions) -> None:
        self.files, self.options = files, options
        self.columns: tuple[str, ...] | None = None
        # Of what was handed out. Files have checksums of their own; what comes from a pipe has nothing else.
        self.digest = hashlib.sha256() if files.is_standard_input else None
        self.expected_state = ""

    @abstractmethod
    def records(self) -> Iterator[Any]:
        """What rows are made of, without making them: cheap to count and to skip."""

    @abstractmethod
    def row(self, number: int, record: Any) -> Row:
        """The row of a record; one that cannot be read has a reason instead of a text.

        Raises:
            InputError: it shows that no row of this input can be translated as the options say.
        """

    def open(self) -> None:  # noqa: B027
        """Learns the columns. Raises InputError where the wanted one is missing, or an added one is there already."""

    def count(self) -> int:
        """Number of all rows, by reading them."""
        return sum(1 for _ in self.records())

    def rows(self, first: int, last: int | None = None) -> Iterator[Row]:
        """Rows number ``first`` to ``last``, both included, counting from 1; all that follow where last is None."""
        records = self.records()
        for _ in islice(records, first - 1):
            pass
        if self.expected_state and self.state() != self.expected_state:
            raise InputError("standard input is not what it was when this job was stopped; start over with --restart")
        for number, record in enumerate(islice(records, None if last is None else last - first + 1), start=first):
            yield self.row(number, record)

    def elsewhere(self) -> "Source":
        """The same for another process, whatever folder it works in."""
        found = copy(self)
        found.files = self.files.elsewhere()
        return found

    def state(self) -> str:
        """Checksum of what was read of standard input; empty for files."""
        return self.digest.hexdigest() if self.digest else ""

    def check_columns(self, columns: tuple[str, ...], where: str) -> None:
        """Raises InputError where a name is there twice, or not there, or is one that the job adds."""
        if len(set(columns)) != len(columns):
            raise InputError(f"{where} has two columns of one name: {', '.join(columns)}")
        if self.columns is not None and columns != self.columns:
            raise InputError(f"{where} has other columns ({', '.join(columns)}) than the file before it")
        if self.options.column not in columns:
            raise InputError(
                f"{where} has no column {self.options.column!r}; it has {', '.join(columns) or 'none'}. "
                "Choose with --column"
            )
        self.check_added(columns, where)

    def check_added(self, names: Container[str], where: str) -> None:
        """Raises InputError where the input has one of the names that the job adds."""
        if taken := self.taken_name(names):
            raise InputError(f"{where} has {taken!r} already; put something before the new names with --prefix")

    def taken_name(self, names: Container[str]) -> str:
        """The first of the names that the job adds which is among the input's ``names``; empty where none is."""
        return next((name for name in self.options.reserved if name in names), "")


def shard_rows(num_rows: int, shard: int, num_shards: int) -> tuple[int, int]:
    """First and last row, from 1 and both included, of shard number ``shard`` (from 0) of ``num_shards``.

    Shards are contiguous and differ by at most one row: their outputs, one after the other, are the whole job's.
    """
    return num_rows * shard // num_shards + 1, num_rows * (shard + 1) // num_shards
