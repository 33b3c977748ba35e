"""Which waiting sentences start now: a pure function of what waits, what is free and the time.

Knows: priorities, deadlines, rows. Does not know: threads, locks, arrays.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from service.engine.request import Priority, Sentence

# After so many interactive sentences in a row, one batch sentence goes first: batch work is slow under load, never
# stuck.
INTERACTIVE_RUN = 8


@dataclass(slots=True)
class Waiting:
    """Sentences that wait, in order of arrival by priority. ``run`` counts interactive ones since a batch one."""

    by_priority: dict[Priority, deque[Sentence]] = field(default_factory=lambda: {p: deque() for p in Priority})
    run: int = 0

    def __len__(self) -> int:
        return sum(map(len, self.by_priority.values()))

    def next_line(self) -> deque[Sentence] | None:
        interactive, batch = self.by_priority[Priority.INTERACTIVE], self.by_priority[Priority.BATCH]
        if batch and (not interactive or self.run >= INTERACTIVE_RUN):
            return batch
        return interactive or None

    def pop(self, line: deque[Sentence]) -> Sentence:
        is_batch = line is self.by_priority[Priority.BATCH]
        self.run = 0 if is_batch else self.run + 1
        return line.popleft()


@dataclass(slots=True)
class Plan:
    """What a worker does before its next step: sentences to start, and those nobody waits for any more."""

    admit: list[Sentence] = field(default_factory=list)
    drop: list[Sentence] = field(default_factory=list)


def is_over(sentence: Sentence, now: float) -> bool:
    """Nobody waits for this sentence: cancelled, or its deadline has passed."""
    return sentence.is_cancelled or (sentence.deadline is not None and now >= sentence.deadline)


def some_over(sentences: Sequence[Sentence], now: float) -> bool:
    """Whether nobody waits for one of these any more. As fast as it can be: asked of all rows after every step."""
    return True in [s.cancelled or (s.deadline is not None and now >= s.deadline) for s in sentences]


def plan_admission(waiting: Waiting, free_rows: int, now: float) -> Plan:
    """Takes from ``waiting`` what fits into ``free_rows``, in order; the first that does not fit ends it.

    Nothing overtakes a wide beam that waits for rows: overtaking would keep it waiting for ever.
    """
    plan = Plan()
    while (line := waiting.next_line()) is not None:
        sentence = line[0]
        if is_over(sentence, now):
            line.popleft()
            plan.drop.append(sentence)
            continue
        if sentence.options.num_beams > free_rows:
            break
        waiting.pop(line)
        free_rows -= sentence.options.num_beams
        plan.admit.append(sentence)
    return plan


def sweep(waiting: Waiting, now: float) -> list[Sentence]:
    """Removes and returns every waiting sentence that is over, wherever it stands."""
    over: list[Sentence] = []
    for priority, line in waiting.by_priority.items():
        gone = [sentence for sentence in line if is_over(sentence, now)]
        if gone:
            over += gone
            leaves = set(gone)  # not asked again: who is cancelled meanwhile would be neither here nor there
            waiting.by_priority[priority] = deque(sentence for sentence in line if sentence not in leaves)
    return over


def group_by_length(sentences: Sequence[Sentence], max_tokens: int, max_padding: int) -> list[list[Sentence]]:
    """Groups for the encoder: at most ``max_tokens`` padded tokens each, and ``max_padding`` padded places a sentence.

    A sentence that would be padded further starts a group of its own: an encoder run costs as much as two or three
    tokens, and padding costs attention.
    """
    groups: list[list[Sentence]] = []
    for sentence in sorted(sentences, key=lambda s: -len(s.source)):
        if groups and fits(groups[-1], sentence, max_tokens, max_padding):
            groups[-1].append(sentence)
        else:
            groups.append([sentence])
    return groups


def fits(group: Sequence[Sentence], sentence: Sentence, max_tokens: int, max_padding: int) -> bool:
    longest = len(group[0].source)
    return longest * (len(group) + 1) <= max_tokens and longest - len(sentence.source) <= max_padding
