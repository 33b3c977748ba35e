"""In which form a file holds its rows, as its name or a flag says. Does not know: how such a file is read."""

import enum
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from service.errors import ConfigurationError


class Format(enum.Enum):
    """A form of rows."""

    TEXT = "text"
    """A text a line; nothing but the translation comes out."""
    JSONL = "jsonl"
    """A JSON object a line."""
    CSV = "csv"
    """RFC 4180: commas, quotes where they are needed."""
    TSV = "tsv"
    """Tabs; quotes mean nothing, so that no field can hold a tab or a line break."""
    PARQUET = "parquet"


STANDARD_STREAM: Final = "-"
FORMAT_NAMES: Final = tuple(format.value for format in Format)
_SUFFIXES: Final = {
    ".txt": Format.TEXT,
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".csv": Format.CSV,
    ".tsv": Format.TSV,
    ".parquet": Format.PARQUET,
}
_COMPRESSIONS: Final = {".gz": "gzip", ".zst": "zstd"}
# Which output an input can become: JSONL rows have no fixed columns, and Parquet's types have no text of their own.
_WRITABLE: Final = {
    Format.TEXT: tuple(Format),
    Format.JSONL: (Format.JSONL, Format.TEXT),
    Format.CSV: tuple(Format),
    Format.TSV: tuple(Format),
    Format.PARQUET: (Format.PARQUET, Format.JSONL, Format.TEXT),
}


@dataclass(frozen=True, slots=True)
class FileKind:
    """Form and compression ("", "gzip" or "zstd") of a file."""

    format: Format
    compression: str


def kind_of(name: str, chosen: str | None, flag: str, default: Format | None = None) -> FileKind:
    """What the file ``name`` is.

    Args:
        chosen: the format that ``flag`` gave, or None. default: what standard input or output is without it.

    Raises:
        ConfigurationError: the name does not say it and nothing else does, or the two do not go together.
    """
    path = PurePath(name)
    compression = _COMPRESSIONS.get(path.suffix.lower(), "")
    if compression:
        path = path.with_suffix("")
    format = Format(chosen) if chosen else _SUFFIXES.get(path.suffix.lower())
    if format is None and name == STANDARD_STREAM:
        format = default
    if format is None:
        known = ", ".join(_SUFFIXES)
        raise ConfigurationError(
            f"the name {name!r} does not say what is in it; say so with {flag} ({', '.join(FORMAT_NAMES)}), or let it "
            f"end in one of {known}, with .gz or .zst after it where it is compressed"
        )
    if format is Format.PARQUET and (compression or name == STANDARD_STREAM):
        where = "a standard stream" if name == STANDARD_STREAM else f"{name}, compressed once more"
        raise ConfigurationError(f"Parquet cannot be {where}: it compresses its own columns and is read from its end")
    return FileKind(format, compression)


def check_conversion(source: Format, target: Format) -> None:
    """Raises ConfigurationError where rows of the one cannot be written as the other."""
    if target not in _WRITABLE[source]:
        can = ", ".join(format.value for format in _WRITABLE[source])
        raise ConfigurationError(f"{source.value} rows cannot be written as {target.value}, only as {can}")
