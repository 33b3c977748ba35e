"""A batch job on a real service that is killed and started again ends with every row, as if nothing had been."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.demo import free_port, wait_until_serving

ROOT = Path(__file__).parents[2]
NUM_ROWS = 1_500
WORDS = ("house", "river", "mill", "wind", "rain", "garden", "road", "train", "letter", "child")


class Service:
    """A service that can be killed and started again on its port."""

    def __init__(self) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        flags = ["--listen", self.address, "--metrics-listen", "", "--log-level", "error", "--admit-grace-s", "0.1"]
        self.process = subprocess.Popen([sys.executable, "-m", "service.cli", "serve", *flags], cwd=ROOT)
        assert wait_until_serving(self.address, self.process)
        return self.process

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def service() -> Iterator[Service]:
    found = Service()
    yield found
    found.kill()


def num_lines(journal: Path) -> int:
    """Checkpoints so far; -1 before the job has begun."""
    return journal.read_bytes().count(b"\n") if journal.exists() else -1


@pytest.mark.faults
@pytest.mark.timeout(400)
def test_a_killed_service_loses_no_row(service: Service, tmp_path: Path):
    texts = [f"The {WORDS[n % 10]} is near the {WORDS[n // 10 % 10]} number {n}." for n in range(NUM_ROWS)]
    (tmp_path / "in.txt").write_text("".join(f"{text}\n" for text in texts))
    command = [sys.executable, "-m", "service.cli", "batch", "in.txt", "out.jsonl", "--to", "fr", "--beam", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    job = subprocess.Popen([*command, "--target", service.address], cwd=tmp_path, env=environment)
    journal = tmp_path / "out.jsonl.job" / "journal"
    for num_checkpoints in (0, 1):  # as soon as the job has begun, and in its midst
        while job.poll() is None and num_lines(journal) < num_checkpoints:
            pass
        assert job.poll() is None
        service.kill()
        service.start()
    assert job.wait() == 0
    alone = subprocess.run([*command[:5], "alone.jsonl", *command[6:]], cwd=tmp_path, env=environment, check=False)
    assert alone.returncode == 0
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "alone.jsonl").read_bytes()
    assert [json.loads(line)["id"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == list(
        range(1, NUM_ROWS + 1)
    )
