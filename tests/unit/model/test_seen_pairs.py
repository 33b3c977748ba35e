"""The table on disk is a set."""

import random

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
