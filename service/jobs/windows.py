"""Windows: neighbouring rows that are translated in the order that suits the engine and written in their own.

Knows: where a window ends, which depends on its rows alone, so that a job that goes on cuts as one never stopped.
"""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from service.jobs.rows import Outcome, Row

# A window is what a kill loses at most, and what a checkpoint costs an fsync for. 1,024 Tatoeba sentences take about
# three seconds on two cores.
MAX_WINDOW_ROWS: Final = 1024
MAX_WINDOW_BYTES: Final = 128 * 1024


@dataclass(slots=True)
class Window:
    """Rows and, as they come, their outcomes.

    Attributes:
        outcomes: one for each row, in their order; None where it is not there yet. missing: how many are None.
        position: bytes of the input read up to here. state: checksum of standard input up to here.
        complete: set when every outcome is there.
    """

    rows: list[Row]
    position: int
    state: str
    outcomes: list[Outcome | None] = field(init=False)
    missing: int = field(init=False)
    complete: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.outcomes = [None] * len(self.rows)
        self.missing = len(self.rows)

    def by_length(self) -> list[int]:
        """Places of the rows, longest text first: the longest of a window must not be left alone at its end."""
        return sorted(range(len(self.rows)), key=lambda place: -len(self.rows[place].text or ""))

    def pairs(self) -> list[tuple[Row, Outcome]]:
        """Rows with their outcomes, once complete."""
        return [(row, _found(outcome)) for row, outcome in zip(self.rows, self.outcomes, strict=True)]


def cut_windows(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Lists of neighbouring rows, each as long as both limits allow, but at least one row."""
    window: list[Row] = []
    num_bytes = 0
    for row in rows:
        window.append(row)
        num_bytes += len(row.raw) if row.raw is not None else len(row.text or "")
        if len(window) == MAX_WINDOW_ROWS or num_bytes >= MAX_WINDOW_BYTES:
            yield window
            window, num_bytes = [], 0
    if window:
        yield window


def _found(outcome: Outcome | None) -> Outcome:
    if outcome is None:
        raise RuntimeError("a window was used before it was complete. This is a bug.")
    return outcome
