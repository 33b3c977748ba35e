"""What a job says of its pace where nobody looks at a terminal, by a scripted clock."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from service.jobs import progress
from service.jobs.progress import EVERY_S, Progress
from service.jobs.windows import MAX_WINDOW_ROWS
from tests.unit.jobs.conftest import Batch


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=50.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_the_time_left_follows_from_what_this_run_has_read(clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]):
    """The run before has read 600 of 1,000 bytes; this one reads 100 in ten seconds, so that 300 take half a minute."""
    bar = Progress(size=1000, position=600, rows=60)
    clock.now += EVERY_S
    bar.advance(700, rows=70, tokens=200)
    assert capsys.readouterr().err == "dragoman batch: 70 rows, 20 tokens/s, 70%, 00:30 left\n"
    assert bar.rate() == "20 tokens/s"


def test_a_line_comes_now_and_then(clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]):
    bar = Progress(size=0, position=0, rows=0)
    for second in range(1, 31):
        clock.now += 1.0
        bar.advance(second, rows=second, tokens=10 * second)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"dragoman batch: {rows} rows, 10 tokens/s" for rows in (10, 20, 30)]


def test_of_a_shard_its_own_rows_are_what_there_is_to_do(
    batch: Batch, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Not the whole input's bytes, of which those before it are read too."""
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    Path("in.txt").write_text("a\n" * (4 * 2 * MAX_WINDOW_ROWS))
    assert batch("in.txt", "out.txt", "--shard", "2/4") == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "left" in line]
    assert [line.split(", ")[-2] for line in lines] == ["50%", "100%"]
