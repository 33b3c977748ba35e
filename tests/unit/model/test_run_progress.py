"""What a run says of its pace, by a scripted clock."""

from types import SimpleNamespace
from typing import Any

import pytest

from model import progress
from model.config import RunConfig
from model.progress import Progress

RUN = RunConfig(folder="run", source_language="en", target_language="fr", max_steps=10, log_every=2)


class Told:
    """A clock, and what TensorBoard and the terminal got."""

    def __init__(self) -> None:
        self.now = 100.0
        self.scalars: list[tuple[str, float, int]] = []
        self.lines: list[str] = []

    def monotonic(self) -> float:
        return self.now

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def of(self, name: str) -> list[tuple[float, int]]:
        return [(value, step) for found, value, step in self.scalars if found == f"train/{name}"]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    told = Told()
    monkeypatch.setattr(progress, "time", told)
    bar: Any = SimpleNamespace(update=lambda _: None, write=told.lines.append, close=lambda: None)
    monkeypatch.setattr(progress, "tqdm", lambda **_: bar)
    return told


def test_means_and_speeds_are_those_since_the_last_line(told: Told):
    writer: Any = told
    with Progress(RUN, writer, step=2, target_tokens=1000) as bar:
        for step, loss in enumerate((2.0, 4.0, 6.0, 8.0), start=3):
            told.now += 60.0
            if step == 4:
                with bar.paused():
                    told.now += 1e6  # a validation
            bar.add(step, 1000 + 600 * (step - 2), loss, gradient_norm=0.5, rate=0.25)
    assert told.of("loss") == [(3.0, 4), (7.0, 6)]
    assert told.of("target_tokens_per_s") == [(pytest.approx(10.0), 4), (pytest.approx(10.0), 6)]
    assert (told.of("gradient_norm"), told.of("learning_rate")) == ([(0.5, 4), (0.5, 6)], [(0.25, 4), (0.25, 6)])
    assert [line.rpartition(", ")[2] for line in told.lines] == ["6 min left", "4 min left"]


def test_a_process_that_tells_nothing_is_silent(told: Told):
    with Progress(RUN, None, step=0, target_tokens=0) as bar:
        for step in range(1, 5):
            bar.add(step, step, 1.0, 1.0, 1.0)
    assert (told.lines, told.scalars) == ([], [])
