"""A batch job whose disk is full says so, loses nothing, and goes on once there is room."""

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import sentences

ROOT = Path(__file__).parents[2]


pytestmark = pytest.mark.integration
TEXTS = [text for text in sentences(40) for _ in range(100)]
# A file system of its own, too small at first: in a namespace of its own, so that no rights are needed.
NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-euc")
ON_A_SMALL_DISK = """
mount -t tmpfs -o size=$SIZE tmpfs "$DISK"
if "$@" "$DISK/out.txt"; then exit 90; else echo "first exit code: $?" >&2; fi
test ! -e "$DISK/out.txt"
mount -o remount,size=16m "$DISK"
"$@" "$DISK/out.txt"
cp "$DISK/out.txt" "$COPY"
"""


def batch(folder: Path, bundle: Path) -> list[str]:
    """The command of a job over TEXTS; its output is to follow."""
    (folder / "in.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    flags = ["--to", "fr", "--bundle", str(bundle), "--beam", "1"]
    return [sys.executable, "-m", "service.cli", "batch", *flags, str(folder / "in.txt")]


def run(command: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **how)


def test_a_file_that_may_not_grow(tmp_path: Path, nonsense_bundle: Path) -> None:
    """A limit on the size of a file fails a write in its midst, as a full disk does."""
    command, output = batch(tmp_path, nonsense_bundle), tmp_path / "out.txt"
    assert run([*command, str(tmp_path / "whole.txt")]).returncode == 0
    whole = (tmp_path / "whole.txt").read_bytes()
    limit = len(whole) * 2 // 3
    full = run([*command, str(output)], preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert full.returncode == 1
    assert "out.txt.job cannot be written: File too large. Nothing is lost" in full.stderr
    assert "Traceback" not in full.stderr
    assert not output.exists()
    again = run([*command, str(output)])
    assert again.returncode == 0
    assert "going on after" in again.stderr
    assert output.read_bytes() == whole


def test_a_full_file_system(tmp_path: Path, nonsense_bundle: Path) -> None:
    if run([*NAMESPACE, "mount -t tmpfs tmpfs /mnt"]).returncode:
        pytest.skip("this system lets nobody mount a file system of their own (unshare --user --mount)")
    command, disk, copy = batch(tmp_path, nonsense_bundle), tmp_path / "disk", tmp_path / "copy.txt"
    disk.mkdir()
    assert run([*command, str(tmp_path / "whole.txt")]).returncode == 0
    whole = (tmp_path / "whole.txt").read_bytes()
    size = len(whole) * 2 // 3
    found = run(
        [*NAMESPACE, ON_A_SMALL_DISK, "sh", *command],
        env={**os.environ, "DISK": str(disk), "COPY": str(copy), "SIZE": str(size)},
    )
    assert found.returncode == 0, found.stderr
    assert "first exit code: 1" in found.stderr
    assert "cannot be written: No space left on device. Nothing is lost" in found.stderr
    assert "Traceback" not in found.stderr
    assert copy.read_bytes() == whole
