"""Folders for copies: gone after use, after a kill with the next process, and never taken from whoever uses one."""

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from service.runtime import scratch
from service.runtime.scratch import LOCK, PREFIX, ScratchFolder


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def another_process(place: Path, end: str) -> "subprocess.Popen[str]":
    """Holds a folder with a file in it until a line comes, then does ``end``."""
    code = f"""
import os, sys
from service.runtime.scratch import ScratchFolder
folder = ScratchFolder()
(folder.path / "weights").write_bytes(b"x")
print("ready", flush=True)
sys.stdin.readline()
{end}
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def test_it_is_empty_and_goes(place: Path):
    with ScratchFolder() as folder:
        assert list(folder.path.iterdir()) == []
        (folder.path / "weights").write_bytes(b"x")
        folder.close()
    assert list(place.iterdir()) == []


def test_what_another_process_uses_stays_and_what_it_abandoned_goes(place: Path):
    with another_process(place, "os._exit(0)") as process:
        ScratchFolder().close()
        assert len(list(place.glob("*/content/weights"))) == 1
        process.kill()
    assert len(list(place.iterdir())) == 1
    ScratchFolder().close()
    assert list(place.iterdir()) == []


def test_a_process_that_ends_at_once_can_remove_its_own(place: Path):
    end = "from service.runtime import scratch; scratch.remove_own(); os._exit(0)"
    with another_process(place, end) as process:
        assert len(list(place.iterdir())) == 1
        process.communicate("\n", timeout=20)
    assert list(place.iterdir()) == []


def test_a_thread_that_still_fills_one_cannot_keep_it(place: Path):
    folder, has_begun, failures = ScratchFolder(), threading.Event(), []

    def fill() -> None:
        try:
            for number in range(1_000_000):
                (folder.path / str(number)).write_bytes(b"x")
                has_begun.set()
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=fill)
    thread.start()
    assert has_begun.wait(10)
    scratch.remove_own()
    thread.join(20)
    assert failures
    assert list(place.iterdir()) == []


def test_what_only_looks_like_one_stays(place: Path):
    new, target = place / (PREFIX + "new"), place / "target"
    new.mkdir()
    target.mkdir()
    (target / LOCK).touch()
    (place / (PREFIX + "link")).symlink_to(target)
    ScratchFolder().close()
    assert new.is_dir()
    assert (target / LOCK).exists()


def test_what_is_somebody_elses_stays(place: Path, monkeypatch: pytest.MonkeyPatch):
    with another_process(place, "os._exit(0)") as process:
        process.kill()
    with monkeypatch.context() as somebody:
        somebody.setattr(os, "getuid", lambda: place.stat().st_uid + 1)
        ScratchFolder().close()
    assert len(list(place.iterdir())) == 1
    ScratchFolder().close()
    assert list(place.iterdir()) == []


def test_where_none_can_be_made_it_is_an_os_error(monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with pytest.raises(OSError, match="No space"):
        ScratchFolder()
