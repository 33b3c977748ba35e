"""The journal of a job: an append-only file of checkpoints, each a line that is whole or does not count.

Knows: checksums, fsync. Does not know: what is done between two checkpoints.
"""

import json
import os
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

from service.errors import OutputError


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything up to here is on disk.

    Attributes:
        rows: rows done. output_bytes, errors_bytes: length of the two files. failed: rows without translation.
        flagged: rows whose translation has a flag. tokens: target tokens. position: bytes of the input read. state:
        checksum of standard input up to here.
        is_done: the whole job is; only moving files into their places is left.
    """

    rows: int = 0
    output_bytes: int = 0
    errors_bytes: int = 0
    failed: int = 0
    tokens: int = 0
    position: int = 0
    state: str = ""
    is_done: bool = False
    flagged: int = 0


class Journal:
    """An open journal.

    Attributes:
        last: the newest checkpoint.

    Raises:
        OutputError: a line is whole, but no checkpoint of this version; nothing was changed.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self.last = Checkpoint()
        num_bytes = 0
        with path.open("rb") as written:
            for line in written:
                try:
                    checkpoint = _parsed(line)
                except (TypeError, ValueError):
                    self._file.close()
                    raise OutputError(
                        f"{path} was written by another version of Dragoman: finish the job with that one, or start "
                        "over with --restart"
                    ) from None
                if checkpoint is None:  # torn by a kill; nothing after it was promised
                    break
                self.last = checkpoint
                num_bytes += len(line)
        self._file.truncate(num_bytes)

    def append(self, checkpoint: Checkpoint) -> None:
        """On disk when this returns. Raises OSError."""
        content = json.dumps(asdict(checkpoint)).encode()
        write_all(self._file.fileno(), b"%08x %s\n" % (zlib.crc32(content), content))
        os.fsync(self._file.fileno())
        self.last = checkpoint

    def close(self) -> None:
        self._file.close()


def _parsed(line: bytes) -> Checkpoint | None:
    checksum, _, content = line.removesuffix(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(content):
        return None
    return Checkpoint(**json.loads(content))


def write_all(descriptor: int, data: bytes) -> None:
    """Writes all of ``data``; one write may take less: before a disk is full, for one. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
