"""Links between the parts of two texts, by hand-made attention."""

import numpy as np
import pytest

from service.engine.scoring import MIN_WEIGHT, links

SOURCE = [(0, 0), (0, 3), (4, 9), (10, 14)]  # the first stands for no text
TARGET = [(0, 2), (3, 8), (8, 8)]  # nor does the last, the end token


def test_all_that_was_looked_at_enough_is_linked_and_the_heaviest_in_any_case() -> None:
    attention = np.array([[0.1, 0.5, 0.3, 0.1], [0.8, 0.05, 0.08, 0.07], [0.0, 1.0, 0.0, 0.0]], np.float32)
    found = links(attention, SOURCE, TARGET, starts=(100, 200))
    places = [(link.source_start, link.source_end, link.target_start, link.target_end) for link in found]
    assert places == [(100, 103, 200, 202), (104, 109, 200, 202), (110, 114, 200, 202), (104, 109, 203, 208)]
    assert [link.weight for link in found] == pytest.approx([0.5, 0.3, MIN_WEIGHT, 0.08])


def test_where_nothing_can_be_seen_there_is_no_link() -> None:
    assert links(np.ones((1, 1), np.float32), [(0, 0)], [(0, 2)]) == []
