"""What a job has done so far, on disk, and how it becomes the finished output.

`OUTPUT.job/` beside OUTPUT holds job.json (which job it is), journal, rows and errors. A checkpoint writes rows and
errors, syncs both, then appends to the journal; whoever goes on cuts both files to what the journal says. Whatever
moment a kill comes at, what follows the last checkpoint is done once more, and nothing else. OUTPUT appears at the end
by a rename: it is whole or not there. Knows: files. Does not know: rows.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, Final

from service.errors import ConfigurationError, OutputError
from service.jobs.journal import Checkpoint, Journal, write_all

ERRORS_SUFFIX: Final = ".errors.jsonl"
FOLDER_SUFFIX: Final = ".job"
_NAMES: Final = ("job.json", "job.json.new", "journal", "rows", "errors", "finished", "lock")
Finish = Callable[[Path, Path], None]
"""Makes the second file, which is to become OUTPUT, of the first, which holds the rows."""


class JobFolder:
    """The folder of the job that writes ``output``; one process at a time has it.

    Attributes:
        errors: where the failed rows are told of in the end. path: the folder.
    """

    def __init__(self, output: Path) -> None:
        self.output, self.errors = output, output.with_name(output.name + ERRORS_SUFFIX)
        self.path = output.with_name(output.name + FOLDER_SUFFIX)
        self._journal: Journal | None = None
        self._files: list[FileIO] = []
        self._lock_file: FileIO | None = None

    @property
    def is_there(self) -> bool:
        """An earlier run, not finished, has left it."""
        return (self.path / "job.json").exists()

    def discard(self) -> None:
        """Throws away what an earlier run left. Raises OutputError: it holds something that no job has made."""
        with self._explained():
            if self.path.exists():
                if foreign := sorted({path.name for path in self.path.iterdir()} - set(_NAMES)):
                    raise OutputError(f"{self.path} is in the way: it holds {foreign[0]!r}, which is no part of a job")
                self._lock()
                shutil.rmtree(self.path)
                self.close()

    def open(self, fingerprint: dict[str, Any]) -> Checkpoint:
        """Takes the folder and returns where to go on.

        Raises:
            ConfigurationError: the job there is another one. OutputError: it cannot be written, or another process
                works on it.
        """
        with self._explained():
            self.path.mkdir(exist_ok=True)
            self._lock()
            if self.is_there and self._has_rows():
                self._compare(fingerprint)
            else:
                self._begin(fingerprint)
            self._journal = Journal(self.path / "journal")
            last = self._journal.last
            if not last.is_done:
                for name, num_bytes in (("rows", last.output_bytes), ("errors", last.errors_bytes)):
                    self._files.append(self._cut(self.path / name, num_bytes))
            _sync_folder(self.path)
            return last

    def commit(self, rows: bytes, errors: bytes, checkpoint: Checkpoint) -> None:
        """Appends ``rows`` and ``errors``; they are on disk, and count, when this returns. Raises OutputError."""
        with self._explained():
            for file, data in zip(self._files, (rows, errors), strict=True):
                if data:
                    write_all(file.fileno(), data)
                    os.fsync(file.fileno())
            self._open_journal.append(checkpoint)

    def finish(self, checkpoint: Checkpoint, make: Finish | None) -> None:
        """Puts OUTPUT and the errors file into their places and removes the folder; may be called again after a kill.

        Raises:
            OutputError: there is no room. The same command goes on from here.
        """
        with self._explained():
            rows, finished = self.path / "rows", self.path / "finished"
            if not self._open_journal.last.is_done:
                if make is not None:
                    make(rows, finished)
                    _sync_folder(self.path)
                self._open_journal.append(checkpoint)
            self._move(self.path / "errors", self.errors)
            self._move(rows if make is None else finished, self.output)
            if not self.output.exists():
                raise OutputError(f"{self.path} holds no rows any more: it was altered; start over with --restart")
            _sync_folder(self.output.parent)
            (self.path / "job.json").unlink()  # what else is there is nobody's now
            shutil.rmtree(self.path)
            self.close()

    def close(self) -> None:
        """Lets go of the folder; may be called again."""
        for file in (*self._files, self._journal, self._lock_file):
            if file is not None:
                file.close()
        self._files.clear()

    @property
    def _open_journal(self) -> Journal:
        if self._journal is None:
            raise RuntimeError("a job's folder was used before it was opened. This is a bug.")
        return self._journal

    def _lock(self) -> None:
        """Held until close(), or until this process ends, however it ends."""
        path = self.path / "lock"
        self._lock_file = path.open("wb", buffering=0)
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Else its holder has removed it with the folder, and another may have made both anew.
            is_ours = os.path.samestat(os.fstat(self._lock_file.fileno()), path.stat())
        except (BlockingIOError, FileNotFoundError):
            is_ours = False
        if not is_ours:
            self.close()
            raise OutputError(f"another process is working on {self.output}")

    def _has_rows(self) -> bool:
        """Something is there to go on with."""
        journal = Journal(self.path / "journal")
        journal.close()
        return journal.last.rows > 0 or journal.last.is_done

    def _begin(self, fingerprint: dict[str, Any]) -> None:
        for name in ("journal", "rows", "errors", "finished"):
            (self.path / name).unlink(missing_ok=True)
        draft = self.path / "job.json.new"
        with draft.open("w", encoding="utf-8") as file:
            json.dump(fingerprint, file, indent=1)  # in ASCII: a file's name need not be UTF-8
            file.flush()
            os.fsync(file.fileno())
        draft.rename(self.path / "job.json")
        _sync_folder(self.path.parent)

    def _compare(self, fingerprint: dict[str, Any]) -> None:
        path = self.path / "job.json"
        try:
            then = _flat(json.loads(path.read_text(encoding="utf-8")))
        except ValueError:  # also bytes that are no text; it came into its place whole
            raise OutputError(f"{path} is not JSON: it was altered; start over with --restart") from None
        now = _flat(json.loads(json.dumps(fingerprint)))
        changes = [
            f"{name} was {then.get(name, 'not there')}, is {now.get(name, 'not there')}"
            for name in then | now
            if then.get(name) != now.get(name)
        ]
        if changes:
            raise ConfigurationError(
                f"{self.path} holds a job that was stopped and differs from this one: {'; '.join(changes)}. Go on with "
                "it as it was, or start over with --restart"
            )

    def _cut(self, path: Path, num_bytes: int) -> FileIO:
        file = path.open("ab", buffering=0)
        if file.tell() < num_bytes:
            file.close()
            raise OutputError(f"{path} is shorter than its journal says: it was altered; start over with --restart")
        file.truncate(num_bytes)
        return file

    def _move(self, source: Path, target: Path) -> None:
        if not source.exists():
            return
        if target == self.errors and source.stat().st_size == 0:
            target.unlink(missing_ok=True)  # of an earlier job that wrote the same output
            return
        source.replace(target)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"{error.filename or self.path} cannot be written: {error.strerror or error}. Nothing is lost: the "
                "same command goes on where this one stopped"
            ) from error


def _flat(values: Any, name: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with the names of all levels."""
    if not isinstance(values, dict):
        return {name: values}
    return {key: value for part in values for key, value in _flat(values[part], f"{name} {part}".strip()).items()}


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
