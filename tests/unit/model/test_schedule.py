"""Learning rates at the steps where they are known."""

import pytest

from model.config import OptimizerConfig
from model.schedule import learning_rate


def rate(schedule: str, step: int, max_steps: int = 1000) -> float:
    config = OptimizerConfig(schedule=schedule, peak_learning_rate=2.0, warmup_steps=100, decay_share=0.2)
    return learning_rate(step, config, max_steps, model_width=64)


@pytest.mark.parametrize(("step", "expected"), [(1, 0.02), (50, 1.0), (100, 2.0), (400, 1.0), (10_000, 0.2)])
def test_inverse_sqrt(step: int, expected: float) -> None:
    assert rate("inverse_sqrt", step) == pytest.approx(expected)


@pytest.mark.parametrize(("step", "expected"), [(1, 2e-3 / 8), (100, 0.2 / 8), (400, 0.1 / 8)])
def test_noam(step: int, expected: float) -> None:
    assert rate("noam", step) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("step", "expected"), [(1, 0.02), (100, 2.0), (800, 2.0), (901, 1.0), (1000, 0.01), (1001, 0.0), (2000, 0.0)]
)
def test_trapezoid(step: int, expected: float) -> None:
    assert rate("trapezoid", step) == pytest.approx(expected)


def test_trapezoid_before_its_end_does_not_depend_on_the_length() -> None:
    assert [rate("trapezoid", step) for step in range(1, 800)] == [rate("trapezoid", s, 5000) for s in range(1, 800)]
