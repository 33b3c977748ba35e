"""Files that may be replaced while the server runs. Knows: when to read them anew. Does not know: what is in them."""

import os
from pathlib import Path


class WatchedFiles:
    """Looks at the files themselves, not at the clock: renamed into place, or written over, it is another file; also
    where only its owner or its mode has changed, so that it can be read now."""

    def __init__(self, *files: Path) -> None:
        self._files = files
        self._seen = self._look()

    def have_changed(self) -> bool:
        """Whether any of them is another one than when this was last asked; a file that is gone has changed once."""
        before, self._seen = self._seen, self._look()
        return self._seen != before

    def _look(self) -> list[tuple[int, int, int, int] | None]:
        return [_fingerprint(file) for file in self._files]


def _fingerprint(file: Path) -> tuple[int, int, int, int] | None:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns
