"""How many rows a device holds, and what steps are padded to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ConfigurationError
from service.runtime.bundle import Shape
from service.runtime.memory_plan import STATE_ARRAYS, VOCABULARY_ARRAYS, bucket_of, buckets, plan_memory

SHAPE = Shape(vocab_size=1000, model_width=64, num_heads=4, num_encoder_layers=1, num_decoder_layers=2)
# A row of 10 + 20 positions: 30 x keys and values x 2 layers x 64 numbers of 2 bytes.
CACHE, WORKSPACE = 30 * 2 * 2 * 64 * 2, VOCABULARY_ARRAYS * 1000 * 4 + STATE_ARRAYS * 64 * 2


def test_rows_are_as_many_as_fit_and_no_more_than_asked_for() -> None:
    free = 5000 + 7 * (CACHE + WORKSPACE) + 1
    plan = plan_memory(free, SHAPE, 2, 128, 10, 20, 4, fixed_bytes=5000)
    assert (plan.max_rows, plan.cache_bytes) == (7, 7 * CACHE)
    assert plan.planned_bytes == free - 1
    assert plan_memory(free, SHAPE, 2, 5, 10, 20, 4, fixed_bytes=5000).max_rows == 5


def test_too_little_memory_is_an_error_with_the_numbers() -> None:
    with pytest.raises(ConfigurationError, match=f"100 bytes free.*4 rows of 30 positions.*{4 * (CACHE + WORKSPACE)}"):
        plan_memory(100, SHAPE, 2, 128, 10, 20, 4, fixed_bytes=0)


@given(st.integers(0, 1 << 40), st.integers(4, 4096))
def test_a_plan_never_takes_more_than_there_is(free: int, max_rows: int) -> None:
    try:
        plan = plan_memory(free, SHAPE, 2, max_rows, 10, 20, 4)
    except ConfigurationError:
        return
    assert plan.planned_bytes <= free
    assert 4 <= plan.max_rows <= max_rows


@given(st.integers(1, 2000), st.data())
def test_every_number_of_rows_has_a_bucket_less_than_twice_as_large(max_rows: int, data: st.DataObject) -> None:
    sizes = buckets(max_rows)
    assert list(sizes) == sorted(set(sizes))
    assert sizes[-1] == max_rows
    num_rows = data.draw(st.integers(1, max_rows))
    assert num_rows <= bucket_of(num_rows, sizes) < 2 * num_rows or num_rows == 1


def test_more_rows_than_planned_are_a_bug() -> None:
    with pytest.raises(RuntimeError, match="This is a bug"):
        bucket_of(9, buckets(8))
