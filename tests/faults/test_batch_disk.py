"""A batch job whose disk is full says so, loses nothing, and goes on once there is room."""

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import sentences

ROOT = Path(__file__).parents[2]


@pytest.mark.integration
def test_a_full_disk(tmp_path: Path, nonsense_bundle: Path):
    """A limit on the size of a file fails a write in its midst, as a full disk does."""
    texts = [text for text in sentences(40) for _ in range(100)]
    (tmp_path / "in.txt").write_text("".join(f"{text}\n" for text in texts))

    def run(output: str, limit: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "service.cli", "batch", str(tmp_path / "in.txt"), str(tmp_path / output)]
        flags = ["--to", "fr", "--bundle", str(nonsense_bundle), "--beam", "1"]
        return subprocess.run(
            [*command, *flags], cwd=ROOT, preexec_fn=limit, capture_output=True, text=True, check=False
        )

    assert run("whole.txt").returncode == 0
    whole = (tmp_path / "whole.txt").read_bytes()
    limit = len(whole) * 2 // 3
    full = run("out.txt", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert full.returncode == 1
    assert "out.txt.job cannot be written: File too large. Nothing is lost" in full.stderr
    assert "Traceback" not in full.stderr
    assert not (tmp_path / "out.txt").exists()
    again = run("out.txt")
    assert again.returncode == 0
    assert "going on after" in again.stderr
    assert (tmp_path / "out.txt").read_bytes() == whole
