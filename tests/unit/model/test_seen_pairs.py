"""The table on disk is a set."""

import errno
import os
import random
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.seen_pairs import FIRST_SLOTS, MAX_LOAD, SeenPairs


@given(st.lists(st.one_of(st.integers(0, 5), st.integers(0, 2**64 - 1), st.just(FIRST_SLOTS), st.just(2**64 - 1))))
def test_is_a_set(keys: list[int]) -> None:
    seen, expected = SeenPairs(), set()
    for key in keys:
        assert seen.add(key) == ((key or 1) not in expected)
        expected.add(key or 1)


def test_remembers_across_growth() -> None:
    rng = random.Random(1)
    keys = [rng.getrandbits(64) for _ in range(int(FIRST_SLOTS * MAX_LOAD) + 2000)]
    seen = SeenPairs()
    assert all(seen.add(key) for key in keys)
    assert len(seen.slots) == 2 * FIRST_SLOTS
    assert not any(seen.add(key) for key in keys)
    assert seen.add(12345)


def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sparse file would be mapped gladly, and the first key written to it be a SIGBUS."""
    seen = SeenPairs()

    def fail(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", fail, raising=False)
    with pytest.raises(OSError, match=f"No space left on device: '{tempfile.gettempdir()}'"):
        SeenPairs()
    with pytest.raises(OSError, match="No space left on device"):
        seen.grow()
    assert seen.add(7)
    assert not seen.add(7)
