"""What is on disk before what counts it: a job that a power cut ends has all that its journal promises."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.jobs.job_folder import JobFolder
from service.jobs.journal import Checkpoint
from tests.unit.disk_events import happening


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[JobFolder]:
    (tmp_path / "jobs").mkdir()
    made = JobFolder(tmp_path / "jobs" / "out.txt")
    yield made
    made.close()


def test_rows_and_errors_are_on_disk_before_the_journal_counts_them(folder: JobFolder, monkeypatch: pytest.MonkeyPatch):
    folder.open({})
    for rows, errors in ((b"A\n", b"{}\n"), (b"B\n", b"")):
        with monkeypatch.context() as patch:
            events = happening(patch, folder.path)
            folder.commit(rows, errors, Checkpoint(rows=1))
        names = ["rows", "errors", "journal"] if errors else ["rows", "journal"]
        assert events == [(what, name) for name in names for what in ("write", "fsync")]


def test_what_a_job_is_counts_once_it_is_on_disk(folder: JobFolder, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        events = happening(patch, folder.path.parent)
        folder.open({"option": 1})
    named = events.index(("rename", "job.json.new"))
    assert events.index(("fsync", "job.json.new")) < named < events.index(("fsync", "jobs"))
    assert events[-1] == ("fsync", "out.txt.job")


def test_the_output_is_in_its_place_before_the_job_is_forgotten(folder: JobFolder, monkeypatch: pytest.MonkeyPatch):
    folder.open({})
    folder.commit(b"A\n", b"{}\n", Checkpoint(rows=1, output_bytes=2))
    with monkeypatch.context() as patch:
        events = happening(patch, folder.path.parent)
        folder.finish(Checkpoint(rows=1, output_bytes=2, is_done=True), lambda rows, made: rows.rename(made) and None)
    assert events[:8] == [
        ("rename", "rows"),
        ("fsync", "out.txt.job"),
        ("write", "journal"),
        ("fsync", "journal"),
        ("replace", "errors"),
        ("replace", "finished"),
        ("fsync", "jobs"),
        ("unlink", "job.json"),
    ]
