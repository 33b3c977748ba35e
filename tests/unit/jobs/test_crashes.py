"""A job that ends without warning at any of its writes, syncs and renames goes on to the same bytes.

The real thing, a process killed with SIGKILL, is in tests/faults/test_batch_kills.py; here every moment has its turn.
"""

import os
import random
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from service.errors import OutputError
from service.jobs import windows
from service.jobs.journal import Checkpoint, Journal
from tests.unit.jobs.conftest import Batch

ROWS = [f'{{"text": "row {number % 17}"}}' if number % 5 else "no row" for number in range(30)]


class Crash(BaseException):
    """The end of the process, as far as anything in it can tell."""


class Crashes:
    """Counts what reaches the disk and ends the process at one of these moments, before it or in the midst of it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.num_moments, self.at = 0, -1
        self.write, fsync, replace, unlink = os.write, os.fsync, Path.replace, Path.unlink
        patch.setattr(os, "write", self.torn_write)
        patch.setattr(os, "fsync", lambda descriptor: self.moment() or fsync(descriptor))
        patch.setattr(Path, "replace", lambda *paths: self.moment() or replace(*paths))
        patch.setattr(Path, "unlink", lambda *paths, **named: self.moment() or unlink(*paths, **named))

    def moment(self) -> None:
        self.num_moments += 1
        if self.num_moments == self.at:
            raise Crash

    def torn_write(self, descriptor: int, data: memoryview) -> int:
        try:
            self.moment()
        except Crash:
            self.write(descriptor, data[: len(data) // 2])
            raise
        return self.write(descriptor, data)


@pytest.fixture
def crashes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Crashes]:
    monkeypatch.setattr(windows, "MAX_WINDOW_ROWS", 8)
    with pytest.MonkeyPatch.context() as patch:
        yield Crashes(patch)


def go_on_to_the_end(batch: Batch, crashes: Crashes, output: str, moments: Iterator[int]) -> None:
    """Runs until nothing ends it; each run before that ends at the moment that ``moments`` says."""
    has_crashed = True
    while has_crashed:
        crashes.num_moments, crashes.at = 0, next(moments, -1)
        try:
            batch("in.jsonl", output)
            has_crashed = False
        except Crash:
            assert crashes.at > 0


def outcome(output: str) -> tuple[bytes, bytes]:
    assert not Path(output + ".job").exists()
    return Path(output).read_bytes(), Path(output + ".errors.jsonl").read_bytes()


def test_at_every_moment(batch: Batch, crashes: Crashes):
    ending = "jsonl.gz"
    Path("in.jsonl").write_text("\n".join(ROWS))
    assert batch("in.jsonl", f"whole.{ending}") == 1
    expected, num_moments = outcome(f"whole.{ending}"), crashes.num_moments
    assert num_moments > 20
    for moment in range(1, num_moments + 1):
        output = f"out-{moment}.{ending}"
        go_on_to_the_end(batch, crashes, output, iter([moment]))
        assert outcome(output) == expected


def test_at_many_random_moments_in_turn(batch: Batch, crashes: Crashes):
    Path("in.jsonl").write_text("\n".join(ROWS))
    assert batch("in.jsonl", "whole.jsonl") == 1
    rng = random.Random(5)
    for number in range(4):
        moments = iter([rng.randint(1, 14) for _ in range(8)])
        go_on_to_the_end(batch, crashes, f"out-{number}.jsonl", moments)
        assert outcome(f"out-{number}.jsonl") == outcome("whole.jsonl")


CHECKPOINTS = st.lists(st.integers(1, 10**9), min_size=1, max_size=5).map(
    lambda numbers: [Checkpoint(rows=number, output_bytes=2 * number) for number in numbers]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CHECKPOINTS, st.integers(0, 400), st.binary(max_size=3))
@example([Checkpoint(rows=1)], -1, b"\n")  # what was torn off comes back
@example([Checkpoint(rows=1)], -1, b"\nx")
@example([Checkpoint(rows=1)], -1, b"")
@example([Checkpoint(rows=1)], -5, b"\n")
def test_a_torn_journal_gives_the_last_whole_checkpoint(
    tmp_path: Path, checkpoints: list[Checkpoint], cut: int, garbage: bytes
):
    """Garbage may be the very line break that is missing: the checkpoint before it is whole then."""
    path = tmp_path / "journal"
    path.unlink(missing_ok=True)
    ends = []
    written = Journal(path)
    for checkpoint in checkpoints:
        written.append(checkpoint)
        ends.append(path.stat().st_size)
    written.close()
    content = path.read_bytes()
    torn = content[:cut] + garbage
    path.write_bytes(torn)
    whole = [checkpoint for checkpoint, end in zip(checkpoints, ends, strict=True) if torn.startswith(content[:end])]
    found = Journal(path)
    found.close()
    assert found.last == ([Checkpoint(), *whole])[-1]
    assert path.stat().st_size == ([0, *ends])[len(whole)]


@pytest.mark.parametrize("content", [b'{"rows": 3, "of_tomorrow": 1}', b"[1]", b"not JSON"])
def test_a_journal_of_another_version_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal"
    journal = Journal(path)
    journal.append(Checkpoint(rows=2))
    journal.close()
    path.write_bytes(path.read_bytes() + b"%08x %s\n" % (zlib.crc32(content), content))
    before = path.read_bytes()
    with pytest.raises(OutputError, match="another version of Dragoman: finish the job with that one"):
        Journal(path)
    assert path.read_bytes() == before
