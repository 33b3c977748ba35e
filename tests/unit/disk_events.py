"""What reaches the disk, in its order."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Event = tuple[str, str]


def happening(patch: pytest.MonkeyPatch, folder: Path) -> list[Event]:
    """Grows by (what, name of the file) with every write, fsync, rename and removal below ``folder``."""
    events: list[Event] = []

    def name_of(file: int | Path) -> str:
        if isinstance(file, Path):
            return file.name
        inode = os.fstat(file).st_ino
        names = (path.name for path in (folder, *folder.rglob("*")) if path.stat().st_ino == inode)
        return next(names, "something else")

    def recorded(where: Any, what: str) -> None:
        original: Callable[..., Any] = getattr(where, what)

        def call(file: int | Path, *rest: Any, **named: Any) -> Any:
            events.append((what, name_of(file)))
            return original(file, *rest, **named)

        patch.setattr(where, what, call)

    for where, what in ((os, "write"), (os, "fsync"), (Path, "rename"), (Path, "replace"), (Path, "unlink")):
        recorded(where, what)
    return events
