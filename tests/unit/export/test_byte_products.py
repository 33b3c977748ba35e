"""Bytes that are multiplied fast: few inputs outside of a window, and columns whose sums of four fit into 16 bits."""

import numpy as np
import pytest

from export.byte_products import GROUP, LIMIT, NEAR, NEAR_SUM, column_scales, far_share, together, window_start
from export.input_scales import MOST_FAR, InputScale, choose, columns_quantized, few_far


@pytest.mark.parametrize(("zero_point", "start"), [(0, 0), (64, 0), (65, 1), (128, 64), (191, 127), (255, 127)])
def test_windows_start_below_the_zero_point_and_leave_a_signed_byte_on_each_side(zero_point: int, start: int) -> None:
    assert window_start(zero_point) == start
    assert start <= LIMIT
    assert 255 - (start + NEAR) <= LIMIT


def test_groups_with_a_number_outside_are_counted() -> None:
    x = np.full((2, 4 * GROUP), 128)
    assert far_share(x, 128) == 0
    x[0, 1] = x[0, 2] = 63  # one group, twice
    x[1, 15] = 193
    x[1, 8:10] = 64, 192  # the window's ends
    assert far_share(x, 128) == 2 / 8
    assert far_share(np.zeros((3, 7), int), 128) == 0, "such products are not the library's"


@pytest.mark.parametrize("depth", [1, 4, 8, 15, 24, 264])
@pytest.mark.parametrize("kind", ["gaussian", "heavy", "positive", "zero"])
def test_sums_of_four_fit(depth: int, kind: str) -> None:
    rng = np.random.default_rng(depth)
    weight = {
        "gaussian": rng.standard_normal((depth, 33)),
        "heavy": rng.standard_t(1.5, (depth, 33)),
        "positive": np.abs(rng.standard_normal((depth, 33))),
        "zero": np.zeros((depth, 33)),
    }[kind].astype(np.float32)
    numbers = np.rint(weight / column_scales(weight))
    assert np.abs(numbers).max() <= LIMIT
    for first in range(0, depth - 7, 8):
        for fours in ((0, 1, 4, 5), (2, 3, 6, 7)):
            rows = numbers[[first + k for k in fours]]
            assert np.maximum(rows, 0).sum(axis=0).max() <= NEAR_SUM
            assert np.maximum(-rows, 0).sum(axis=0).max() <= NEAR_SUM


def test_columns_that_fit_anyway_keep_all_their_bits() -> None:
    weight = np.random.default_rng(1).standard_normal((256, 500)).astype(np.float32)
    finest = np.abs(weight).max(axis=0) / np.float32(127)
    scales = column_scales(weight)
    assert (scales >= finest).all()
    assert (scales == finest).mean() > 0.5
    assert (scales / finest).max() < 1.6


@pytest.mark.parametrize("kind", ["gaussian", "heavy", "flat", "relu", "zero"])
def test_few_inputs_are_far(kind: str) -> None:
    """Flat ones are all as large as the largest: then none may be, and bytes reach twice as far."""
    rng = np.random.default_rng(3)
    sample = {
        "gaussian": rng.standard_normal((500, 64)),
        "heavy": rng.standard_t(2, (500, 64)),
        "flat": rng.uniform(-1, 1, (500, 64)),
        "relu": np.maximum(rng.standard_normal((500, 64)), 0),
        "zero": np.zeros((500, 64)),
    }[kind].astype(np.float32)
    found = few_far(sample, float(sample.max()), float(-sample.min()))
    assert found
    for scale, rounded in found:
        assert far_share(rounded, scale.zero_point) <= MOST_FAR


@pytest.mark.parametrize("depth", [30, 64])
def test_rare_inputs_need_not_be_clipped(depth: int) -> None:
    """A few that are far are few; where groups do not matter all are."""
    rng = np.random.default_rng(6)
    sample = rng.standard_normal((512, depth)).astype(np.float32)
    sample[:4] *= 30
    above, below = np.maximum(sample, 0).max(axis=0), np.maximum(-sample, 0).max(axis=0)
    weight = rng.standard_normal((depth, 24)).astype(np.float32)
    factors, scale = choose(above, below, sample, weight)
    exact, rounded_weight = sample @ weight, columns_quantized(weight * factors[:, None])
    error = np.square(scale.value(scale.rounded(sample / factors)) @ rounded_weight - exact).mean()
    whole = InputScale.spanning(float(sample.max()), float(-sample.min()))
    plain = np.square(whole.value(whole.rounded(sample)) @ columns_quantized(weight) - exact).mean()
    assert error <= plain


@pytest.mark.parametrize("channels", [1, 6, 64])
def test_channels_that_are_used_together_stand_together(channels: int) -> None:
    """Those of like remainder are; alone each is used one time of eight."""
    rng = np.random.default_rng(5)
    kinds = np.arange(channels) % max(channels // GROUP, 1)
    used = (rng.random((300, kinds.max() + 1)) < 1 / 8)[:, kinds]
    order = together(used)
    assert sorted(order.tolist()) == list(range(channels))
    whole = used[:, order][:, : channels // GROUP * GROUP].reshape(300, -1, GROUP)
    assert (whole.any(axis=2) == whole.all(axis=2)).all()
