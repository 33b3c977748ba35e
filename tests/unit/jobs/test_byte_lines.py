"""Lines as they are, in bounded memory, from every compression."""

import gzip
import io
import os
import threading
import time
import tracemalloc
from typing import BinaryIO, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.errors import InputError
from service.jobs import byte_lines
from service.jobs.byte_lines import ByteLines, Overlong, compressed_member, decompressed


def lines_of(content: bytes, compression: str = "", max_bytes: int = 100) -> list[bytes | Overlong]:
    return list(ByteLines(decompressed(io.BytesIO(content), compression), "file", max_bytes))


@example([b"a\rb\r", b"\x85", b"\xe2\x80\xa8"], 2)  # a line ends at "\\n" and nowhere else
@given(st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")), max_size=8), st.integers(1, 7))
def test_lines_whatever_pieces_they_are_read_in(lines: list[bytes], chunk: int):
    content = b"\n".join(lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(byte_lines, "CHUNK_BYTES", chunk)
        *ended, last = (line + b"\n" for line in lines or [b""])
        assert lines_of(content) == [*ended, *([last[:-1]] if last != b"\n" else [])]


def test_a_long_line_is_counted_and_not_kept():
    assert lines_of(b"a\n" + b'"' * 101 + b"\nb", max_bytes=100) == [b"a\n", Overlong(102, 101), b"b"]
    assert lines_of(b"x" * 100 + b"\n", max_bytes=100) == [b"x" * 100 + b"\n"]


def test_a_line_of_100_mb_needs_no_memory():
    class Endless(io.RawIOBase):
        left = 400

        def read(self, size: int = -1) -> bytes:
            self.left -= 1
            return b"x" * size if self.left > 0 else b""

    tracemalloc.start()
    [line] = ByteLines(cast(io.BufferedReader, Endless()), "file", 1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert line == Overlong(399 * byte_lines.CHUNK_BYTES)
    assert peak < 5_000_000


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_members_one_after_the_other_are_one_file(compression: str):
    if compression == "zstd":
        pytest.importorskip("pyarrow", reason="zstd needs the extra `batch`")
    members = [compressed_member(line, compression) for line in (b"one\ntw", b"o\n", b"")]
    assert members == [compressed_member(line, compression) for line in (b"one\ntw", b"o\n", b"")]
    assert lines_of(b"".join(members), compression) == [b"one\n", b"two\n"]


@pytest.mark.parametrize("damage", [lambda data: data[:-4], lambda data: b"not this at all", lambda data: data + b"x"])
def test_a_damaged_file_is_an_error_not_an_end(damage):
    with pytest.raises(InputError, match="file cannot be read"):
        lines_of(damage(gzip.compress(b"one\n" * 100)), "gzip")


def test_a_pipe_that_does_not_block_is_read_to_its_end():
    """What has not come yet is not the end."""
    out, into = os.pipe()
    os.set_blocking(out, False)

    def write() -> None:
        for piece in (b"one\ntw", b"o\n", b"three\n"):
            time.sleep(0.05)
            os.write(into, piece)
        os.close(into)

    writer = threading.Thread(target=write)
    writer.start()
    with open(out, "rb", buffering=0) as stream:
        assert list(ByteLines(cast(BinaryIO, stream), "a pipe", 100)) == [b"one\n", b"two\n", b"three\n"]
    writer.join()
