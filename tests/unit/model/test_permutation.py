"""A computed random order: every thing once, the same for the same seed, and no pattern that is easy to see."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.permutation import permuted


@given(st.integers(1, 3000), st.integers(0, 2**32))
def test_every_thing_once(size: int, seed: int) -> None:
    assert sorted(permuted(np.arange(size), size, [seed])) == list(range(size))


def test_parts_are_parts_of_the_whole() -> None:
    whole = permuted(np.arange(1000), 1000, [3, 1])
    assert permuted(np.arange(250, 600), 1000, [3, 1]).tolist() == whole[250:600].tolist()
    assert permuted(np.arange(1000), 1000, [3, 2]).tolist() != whole.tolist()


def test_neighbours_are_scattered() -> None:
    """Neighbours in a random order of 0 to n - 1 are (n + 1) / 3 apart on average; in a shift or stride not so."""
    order = permuted(np.arange(30_000), 30_000, [1])
    assert np.abs(np.diff(order)).mean() == pytest.approx(10_000, rel=0.02)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.03


def test_places_outside_are_refused() -> None:
    with pytest.raises(ValueError, match=r"places 0 to 5 are not all in \[0, 5\)"):
        permuted(np.arange(6), 5, [1])
