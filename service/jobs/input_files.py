"""Which files a job reads, and whether they are still what they were.

Knows: names, globs, sizes, checksums. Does not know: what is in them.
"""

import glob
import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

from service.errors import InputError
from service.jobs.formats import STANDARD_STREAM

READ_BYTES: Final = 1 << 20
_MAGIC: Final = "*?["


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file as it was when the job started; reading it all once costs little beside translating it."""

    path: Path
    num_bytes: int
    modified_ns: int
    inode: int
    sha256: str

    @classmethod
    def inspect(cls, path: Path) -> "InputFile":
        """Raises InputError where it cannot be read or changes meanwhile."""
        digest, before = hashlib.sha256(), _state_of(path)
        try:
            with path.open("rb") as file:
                while block := file.read(READ_BYTES):
                    digest.update(block)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from None
        found = cls(path, before.st_size, before.st_mtime_ns, before.st_ino, digest.hexdigest())
        found.check_unchanged()
        return found

    def check_unchanged(self) -> None:
        """Raises InputError where the file is no longer the one that was inspected."""
        try:
            now = self.path.stat()
        except OSError as error:
            raise InputError(f"{self.path} went away while it was read: {error.strerror}") from None
        if (now.st_size, now.st_mtime_ns, now.st_ino) != (self.num_bytes, self.modified_ns, self.inode):
            raise InputError(
                f"{self.path} changed while it was read. Nothing after the last checkpoint was written; put the file "
                "back as it was and run the same command again, or start over with --restart"
            )


class InputFiles:
    """The files of INPUT in the order they are read, or standard input.

    Attributes:
        files: empty where standard input is read.
    """

    def __init__(self, files: tuple[InputFile, ...]) -> None:
        self.files = files
        self._current: BinaryIO | None = None
        self._read_before = self._left_at = 0

    @classmethod
    def find(cls, pattern: str) -> "InputFiles":
        """The file of that name, or every file that a pattern with ``*``, ``?`` or ``[`` names, sorted by name.

        Raises:
            InputError: there is none, or one cannot be read.
        """
        return cls(tuple(InputFile.inspect(path) for path in paths_of(pattern)))

    @property
    def is_standard_input(self) -> bool:
        return not self.files

    @property
    def num_bytes(self) -> int:
        """Of all files together, compressed as they are; 0 for standard input."""
        return sum(file.num_bytes for file in self.files)

    def fingerprint(self) -> dict[str, str]:
        """What must be the same when the job goes on."""
        if self.is_standard_input:
            return {"-": "standard input"}
        return {str(file.path): f"{file.num_bytes} bytes with sha256 {file.sha256}" for file in self.files}

    def streams(self) -> Iterator[tuple[str, BinaryIO]]:
        """Name and content of each file in turn; each is checked again when it was read to its end."""
        if self.is_standard_input:
            # Beneath Python's buffer: a thread that waits inside that buffer would hold its lock at the end.
            yield "standard input", getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
            return
        self._read_before = 0
        for file in self.files:
            with _opened(file.path) as stream:
                self._current = stream
                try:
                    yield str(file.path), stream
                finally:  # also where nobody wants the rest
                    self._left_at = self.position()
                    self._current = None
            file.check_unchanged()
            self._read_before += file.num_bytes

    def elsewhere(self) -> "InputFiles":
        """The same for another process, whatever folder it works in: full names, and nothing open."""
        return InputFiles(tuple(replace(file, path=file.path.resolve()) for file in self.files))

    def position(self) -> int:
        """Bytes read so far, of all files."""
        stream = self._current
        return self._left_at if stream is None or stream.closed else self._read_before + stream.tell()

    def check_unchanged(self) -> None:
        """Raises InputError where a file is no longer what it was."""
        for file in self.files:
            file.check_unchanged()

    def holds(self, path: Path) -> bool:
        """Whether ``path`` is one of the files."""
        return path.exists() and any(os.path.samefile(file.path, path) for file in self.files)


def paths_of(pattern: str) -> list[Path]:
    """What InputFiles.find() would read, of which nothing is read yet; nothing for standard input. Raises as that."""
    if pattern == STANDARD_STREAM:
        return []
    paths = [Path(pattern)]
    if not paths[0].exists() and any(sign in pattern for sign in _MAGIC):
        paths = [Path(name) for name in sorted(set(glob.glob(pattern, recursive=True))) if Path(name).is_file()]
        if not paths:
            raise InputError(f"no file is named like {pattern}")
    if paths[0].is_dir():
        raise InputError(f"{pattern} is a folder; name its files, such as '{pattern}/*.jsonl'")
    for path in paths:
        _state_of(path)
    return paths


def _state_of(path: Path) -> os.stat_result:
    """Raises InputError where it is no file."""
    try:
        state = path.stat()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(state.st_mode):
        raise InputError(f"{path} is no file but a pipe or a device: give its content to standard input (-)")
    return state


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        stream = path.open("rb")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    with stream:
        yield stream
