"""A batch job killed with SIGKILL at random moments and started again each time gives the bytes of one never killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import sentences

ROOT = Path(__file__).parents[2]
NUM_ROWS = 6_000  # six windows or more
NUM_TEXTS = 1_000
KILLED = -signal.SIGKILL


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with in.jsonl: texts of all lengths, some repeated, and rows that fail."""
    path = tmp_path_factory.mktemp("batch")
    texts = sentences(NUM_TEXTS)
    rng = random.Random(4)
    # Later texts become known later, so that every window has some to translate.
    texts = [texts[int(NUM_TEXTS * number / NUM_ROWS * rng.random())] for number in range(NUM_ROWS)]
    rows = [json.dumps({"key": number, "text": text}) for number, text in enumerate(texts)]
    rows[1::500] = ["not a row"] * len(rows[1::500])
    (path / "in.jsonl").write_text("\n".join(rows))
    (path / "in.txt").write_text("".join(f"{text}\n" for text in texts))
    return path


@pytest.fixture(scope="module")
def start(folder: Path, nonsense_bundle: Path) -> Callable[[str], subprocess.Popen[bytes]]:
    def start_job(output: str) -> subprocess.Popen[bytes]:
        source = "in.txt" if output.endswith(".parquet") else "in.jsonl"
        command = [sys.executable, "-m", "service.cli", "batch", source, output]
        flags = ["--to", "fr", "--bundle", str(nonsense_bundle), "--beam", "1"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen([*command, *flags], cwd=folder, env=environment, stderr=subprocess.DEVNULL)

    return start_job


def num_bytes(folder: Path) -> int:
    """What a job has written so far."""
    found = 0
    for name in ("rows", "errors", "journal"):
        with suppress(FileNotFoundError):
            found += (folder / name).stat().st_size
    return found


def kill_somewhere(process: subprocess.Popen[bytes], job: Path, rng: random.Random) -> bool:
    """Kills when the job has written more than it had, or some way into the time before; False if it ended first.

    A moment right after a write is where a checkpoint can be half done.
    """
    had = num_bytes(job)
    moment = time.monotonic() + rng.choice([rng.uniform(0, 1.5), 60])
    with process:
        while process.poll() is None:
            if num_bytes(job) > had or time.monotonic() > moment:
                process.kill()
    return process.returncode == KILLED


def kill_until_done(start: Callable[[str], subprocess.Popen[bytes]], path: Path, num_kills: int, seed: int) -> int:
    """Starts again and kills ``num_kills`` times, then lets the job end; how often it was killed."""
    rng = random.Random(seed)
    job = path.with_name(path.name + ".job")
    killed = 0
    while not path.exists():
        process = start(path.name)
        if killed < num_kills:
            killed += kill_somewhere(process, job, rng)
        else:
            assert process.wait() == expected_code(path)
    return killed


def expected_code(path: Path) -> int:
    """Rows of in.jsonl fail, those of in.txt do not."""
    return 0 if path.suffix == ".parquet" else 1


def outcome(path: Path) -> tuple[bytes, bytes]:
    assert not path.with_name(path.name + ".job").exists()
    errors = path.with_name(path.name + ".errors.jsonl")
    return path.read_bytes(), errors.read_bytes() if errors.exists() else b""


@pytest.mark.integration
def test_three_kills(start: Callable[[str], subprocess.Popen[bytes]], folder: Path):
    assert start("whole.jsonl.gz").wait() == 1
    assert kill_until_done(start, folder / "killed.jsonl.gz", 3, seed=1) == 3
    assert outcome(folder / "killed.jsonl.gz") == outcome(folder / "whole.jsonl.gz")


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "jsonl.zst", "txt", "parquet"])
def test_twenty_kills(start: Callable[[str], subprocess.Popen[bytes]], folder: Path, ending: str):
    if ending in ("jsonl.zst", "parquet"):
        pytest.importorskip("pyarrow", reason="zstd and Parquet need the extra `batch`")
    assert start(f"undisturbed.{ending}").wait() == expected_code(Path(f"undisturbed.{ending}"))
    expected = outcome(folder / f"undisturbed.{ending}")
    killed, seed = 0, 0
    while killed < 20:
        seed += 1
        path = folder / f"killed-{seed}.{ending}"
        killed += kill_until_done(start, path, 20 - killed, seed)
        assert outcome(path) == expected


@pytest.mark.integration
def test_sigterm_finishes_what_is_in_flight(start: Callable[[str], subprocess.Popen[bytes]], folder: Path):
    process, job = start("terminated.jsonl"), folder / "terminated.jsonl.job"
    while num_bytes(job) == 0:
        assert process.poll() is None
    process.terminate()
    assert process.wait() == 128 + signal.SIGTERM
    assert json.loads((job / "journal").read_bytes().splitlines()[-1].partition(b" ")[2])["rows"] > 0
    assert start("terminated.jsonl").wait() == 1
    lines = (folder / "terminated.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["id"] for line in lines] == list(range(1, NUM_ROWS + 1))
