"""Two processes that want the same job's folder in the same moment: one has it, whatever the order."""

import fcntl
from pathlib import Path

import pytest

from service.errors import OutputError
from service.jobs.job_folder import JobFolder
from service.jobs.journal import Checkpoint


@pytest.mark.parametrize("is_begun_anew", [True, False])
def test_a_lock_that_went_with_its_folder_locks_nothing(
    is_begun_anew: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening the lock and taking it the other process throws the folder away, and begins one of its own."""
    late, other = JobFolder(tmp_path / "out.txt"), JobFolder(tmp_path / "out.txt")
    late.path.mkdir()
    (late.path / "journal").touch()  # left by a kill
    flock = fcntl.flock

    def flock_late(file: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        other.discard()
        if is_begun_anew:
            other.open({})
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock_late)
    with pytest.raises(OutputError, match="another process is working on"):
        late.discard()
    if is_begun_anew:
        other.commit(b"A\n", b"", Checkpoint(rows=1, output_bytes=2))
        other.finish(Checkpoint(rows=1, output_bytes=2, is_done=True), None)
        assert (tmp_path / "out.txt").read_bytes() == b"A\n"
