"""What makes a file another one."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from service.transport.watched_files import WatchedFiles

TIME_NS = 1_700_000_000_000_000_000


def write(path: Path, content: str, time_ns: int = TIME_NS) -> None:
    path.write_text(content)
    os.utime(path, ns=(time_ns, time_ns))


def rename_another_into_place(path: Path) -> None:
    write(path.with_name("other"), "first")
    path.with_name("other").rename(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: write(path, "first", TIME_NS + 1000),  # within the same second
        lambda path: write(path, "longer than before"),
        rename_another_into_place,
        lambda path: path.chmod(0o640),  # it could not be read, and now it can
        Path.unlink,
    ],
)
def test_each_change_is_seen_once(tmp_path: Path, change: Callable[[Path], None]):
    first, second = tmp_path / "first", tmp_path / "second"
    write(first, "first")
    write(second, "first")
    files = WatchedFiles(first, second)
    assert not files.have_changed()
    change(second)
    assert [files.have_changed() for _ in range(2)] == [True, False]
    write(second, "back again", TIME_NS + 1)
    assert [files.have_changed() for _ in range(2)] == [True, False]
