"""Folders for copies of bundles, which do not stay on the disk even where the process that made them was killed.

Knows: temporary folders and locks. Does not know: what a bundle is.

The process that uses such a folder holds a lock on a file in it, which the system lets go of however the process ends.
So whoever can take that lock may remove the folder: the next process does, before it makes its own. Locks, unlike the
numbers of processes, mean the same in every container that shares the folder for temporary files.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

PREFIX = "dragoman-bundle-"
LOCK = ".lock"
CONTENT = "content"

_open: "set[ScratchFolder]" = set()


class ScratchFolder:
    """``path`` is an empty folder until close(). Raises OSError where none can be made."""

    def __init__(self) -> None:
        remove_abandoned()
        self._folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        try:
            self._lock = _locked(self._folder)
            self.path = self._folder / CONTENT
            self.path.mkdir()
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        _open.add(self)

    def close(self) -> None:
        """Removes it; files that are mapped into memory stay readable. Idempotent."""
        _open.discard(self)
        going = self._folder.with_name(self._folder.name + "-going")
        with contextlib.suppress(OSError):  # from here on nothing can be put into it, and it can be emptied
            self._folder.rename(going)
        for left in (going, self._folder):
            shutil.rmtree(left, ignore_errors=True)
        self._lock.close()

    def __enter__(self) -> "ScratchFolder":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def remove_own() -> None:
    """Removes those of this process, also while a thread still fills one: the process is about to end."""
    for folder in list(_open):
        folder.close()


def remove_abandoned() -> None:
    """Removes the folders of processes of this user that have ended without doing so."""
    for folder in _folders():
        try:
            if folder.lstat().st_uid != os.getuid():
                continue
            lock = (folder / LOCK).open("rb")
        except OSError:  # gone, or so new that it has none yet
            continue
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:  # in use
                continue
            shutil.rmtree(folder, ignore_errors=True)


def _folders() -> Iterator[Path]:
    with contextlib.suppress(OSError):  # no place for temporary files at all
        yield from Path(tempfile.gettempdir()).glob(PREFIX + "*")


def _locked(folder: Path) -> IO[bytes]:
    """The lock's file, which appears under its name only once it is locked."""
    unnamed = folder / (LOCK + ".new")
    lock = unnamed.open("wb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.replace(unnamed, folder / LOCK)
    except BaseException:
        lock.close()
        raise
    return lock
