"""Lines of a file, however it is compressed and however long they are.

Knows: gzip, zstd, line breaks, bounds. Does not know: what a line means.
"""

import gzip
import hashlib
import select
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, cast

from service.errors import InputError
from service.jobs.arrow import arrow

CHUNK_BYTES: Final = 1 << 18
# Of a line or row, where nobody says: room for whole books, and memory that does not depend on the input.
MAX_LINE_BYTES: Final = 16 * 1024 * 1024
# The defaults of the two command-line programs.
ZSTD_LEVEL: Final = 3
GZIP_LEVEL: Final = 6


@dataclass(frozen=True, slots=True)
class Overlong:
    """A line or record that was longer than allowed and was not kept; ``num_quotes`` are its double quotes."""

    num_bytes: int
    num_quotes: int = 0


Line = bytes | Overlong


def decompressed(stream: BinaryIO, compression: str) -> BinaryIO:
    """``stream`` without its compression. Raises ConfigurationError where zstd is not installed."""
    if compression == "gzip":
        return cast(BinaryIO, gzip.GzipFile(fileobj=stream))
    if compression == "zstd":
        return cast(BinaryIO, arrow().CompressedInputStream(stream, "zstd"))
    return stream


def compressed_member(data: bytes, compression: str) -> bytes:
    """``data`` as a gzip member or zstd frame that is whole by itself, the same bytes every time.

    Members one after the other are a file that every reader takes for one. No data is a member too: without any, a file
    is no gzip file.
    """
    if not compression:
        return data
    if compression == "gzip":
        return gzip.compress(data, GZIP_LEVEL, mtime=0)
    return bytes(arrow().Codec("zstd", compression_level=ZSTD_LEVEL).compress(data))


def read_chunk(stream: BinaryIO, size: int) -> bytes:
    """Up to ``size`` bytes as soon as there are some; none at the end only, also of a pipe that does not block."""
    while True:
        chunk: Any = stream.read(size)
        if chunk is not None:
            return bytes(chunk)
        select.select([stream], [], [])


class ByteLines:
    """Iterates over the lines of ``stream``, each with its line break.

    Memory is bounded by ``max_bytes``: of a longer line only its length is kept.

    Args:
        digest: fed with every line that is handed out, where one is given.

    Raises:
        InputError: what is read is not what its compression says, or ends in the middle of it.
    """

    def __init__(self, stream: BinaryIO, name: str, max_bytes: int, digest: "hashlib._Hash | None" = None) -> None:
        self._stream, self._name, self._max_bytes, self._digest = stream, name, max_bytes, digest

    def __iter__(self) -> Iterator[Line]:
        rest, dropped = b"", Overlong(0)
        for chunk in self._chunks():
            first, *others = chunk.split(b"\n")
            rest += first
            for piece in others:
                yield self._line(rest + b"\n", dropped)
                rest, dropped = piece, Overlong(0)
            if len(rest) > self._max_bytes:
                dropped = self._drop(rest, dropped)
                rest = b""
        if rest or dropped.num_bytes:
            yield self._line(rest, dropped)

    def _line(self, line: bytes, dropped: Overlong) -> Line:
        if self._digest is not None:
            self._digest.update(line)
        if dropped.num_bytes or len(line) > self._max_bytes + 1:
            return Overlong(dropped.num_bytes + len(line), dropped.num_quotes + line.count(b'"'))
        return line

    def _drop(self, piece: bytes, dropped: Overlong) -> Overlong:
        if self._digest is not None:
            self._digest.update(piece)
        return Overlong(dropped.num_bytes + len(piece), dropped.num_quotes + piece.count(b'"'))

    def _chunks(self) -> Iterator[bytes]:
        while True:
            try:
                chunk = read_chunk(self._stream, CHUNK_BYTES)
            except (gzip.BadGzipFile, zlib.error, EOFError, OSError) as error:
                raise InputError(f"{self._name} cannot be read: {error}") from error
            if not chunk:
                return
            yield chunk
