"""One row of a job and what became of it. Plain data. Does not know: files, engines."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from service.engine.request import TextResult
from service.errors import DragomanError

# What a row's flags may hold.
SPLIT: Final = "split"
LENGTH_LIMITED: Final = "length_limited"
REPETITION: Final = "repetition"
NO_TEXT: Final = "no_text"
ERROR: Final = "error"
TOLD_OF: Final = frozenset({SPLIT, LENGTH_LIMITED, REPETITION})  # a translation that may not say all, or says more


@dataclass(slots=True)
class Row:
    """A row as it was read.

    Attributes:
        number: 1 for the first row of the whole input, whatever part of it this job does.
        text: what to translate; None where there is nothing (a null) or where the row could not be read.
        reason: why it could not be read; empty where it could.
        raw: the record's bytes without its line ending, where an output of the same form can go on from them.
        values: one value for each of the input's columns; None for JSONL and for what could not be read.
        has_id: the row brings its own id.
        record: how a record begins that could not be read, for people.
    """

    number: int
    text: str | None
    reason: str = ""
    raw: bytes | None = None
    values: Sequence[Any] | None = None
    has_id: bool = False
    record: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a row.

    Attributes:
        text, score: the best translation; None where there is none.
        flags: some of the names above, in a fixed order.
        num_tokens: target tokens. reason: why there is no translation; empty where that is no failure.
        alternatives: text and score of every hypothesis where there are several; a single one is text and score.
    """

    text: str | None = None
    score: float | None = None
    flags: tuple[str, ...] = ()
    num_tokens: int = 0
    reason: str = ""
    alternatives: tuple[tuple[str, float], ...] = ()


NOTHING_TO_DO: Final = Outcome(flags=(NO_TEXT,))


def failed(reason: str) -> Outcome:
    """The outcome of a row without a translation."""
    return Outcome(flags=(ERROR,), reason=reason)


def outcome_of(answer: TextResult | DragomanError) -> Outcome:
    """What an engine or a service answered, as a row's outcome."""
    if isinstance(answer, DragomanError):
        return failed(str(answer))
    found = {SPLIT: answer.split, LENGTH_LIMITED: answer.length_limited, REPETITION: answer.repetition_found}
    several = len(answer.alternatives) > 1
    return Outcome(
        text=answer.text,
        score=answer.score,
        flags=tuple(flag for flag, is_set in found.items() if is_set),
        num_tokens=answer.num_target_tokens,
        alternatives=tuple((item.text, item.score) for item in answer.alternatives) if several else (),
    )
