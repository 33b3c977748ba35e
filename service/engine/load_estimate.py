"""How long an answer would take: the work that is open, and how fast work is done.

Knows: sentences, clocks. Does not know: queues, locks; whoever calls holds one.

The work of a sentence is its source tokens x its beams. By Little's law what a new sentence waits for is the work
before it / the rate at which work is done. The rate counts only time in which there was something to do.
"""

import math
from collections.abc import Iterable

from service.engine.request import Priority, Sentence

# The rate forgets with this time constant; before it has seen so much work it knows nothing.
MEMORY_S = 5.0
MIN_SEEN_S = 0.5


def work_of(sentence: Sentence) -> int:
    """Source tokens x beams."""
    return len(sentence.source) * sentence.options.num_beams


class LoadEstimate:
    """Work that waits, work that runs, and the rate of the last seconds."""

    def __init__(self) -> None:
        self._waiting = dict.fromkeys(Priority, 0)
        self._running = 0
        self._seen_s = 0.0
        self._seen_work = 0.0
        self._looked_at = 0.0

    @property
    def open_work(self) -> int:
        """Work of everything that was not answered yet."""
        return sum(self._waiting.values()) + self._running

    def submitted(self, sentences: Iterable[Sentence], now: float) -> None:
        """They wait from now on."""
        if not self.open_work:
            self._looked_at = now  # the rest before was not spent on work
        for sentence in sentences:
            self._waiting[sentence.priority] += work_of(sentence)

    def taken(self, sentences: Iterable[Sentence]) -> None:
        """They do not wait any more; each of them will be answered."""
        for sentence in sentences:
            self._waiting[sentence.priority] -= work_of(sentence)
            self._running += work_of(sentence)

    def answered(self, sentence: Sentence, was_done: bool, now: float) -> None:
        """A sentence that was taken has its answer; ``was_done``: with a translation, not with an error."""
        passed_s = max(now - self._looked_at, 0.0)
        kept = math.exp(-passed_s / MEMORY_S)
        self._looked_at = now
        self._seen_s = self._seen_s * kept + passed_s
        self._seen_work = self._seen_work * kept + (work_of(sentence) if was_done else 0)
        self._running -= work_of(sentence)

    def delay_s(self, priority: Priority) -> float:
        """Seconds until work that came now would be answered, its own left out; 0 while too little was seen.

        Interactive work goes before batch work that waits, so it does not wait for that.
        """
        if self._seen_s < MIN_SEEN_S or not self._seen_work:
            return 0.0
        ahead = self._running + self._waiting[Priority.INTERACTIVE]
        if priority is Priority.BATCH:
            ahead += self._waiting[Priority.BATCH]
        return ahead * self._seen_s / self._seen_work
