"""How long an answer would take: the work that is open, and how fast work is done.

Knows: sentences, clocks. Does not know: queues, locks; whoever calls holds one.

The work of a sentence is its source tokens x its beams. By Little's law what a new sentence waits for is the work
before it / the rate at which work is done. The rate counts only time in which there was something to do.

While rows are free nobody waits for work before it: all that is open shares the engine. Then, by the same law, a
sentence of usual length takes the open rows / the rows a second that are answered. With few rows open that rate says
little about what the engine can do: it does more at once than one after the other. So the rate is remembered until
another is seen that is higher, or was reached with as many rows open and so is the newer truth. With more of them open
than ever were, it is taken to grow as they do, until that is seen.
"""

import math
from collections.abc import Iterable

from service.engine.request import Priority, Sentence

# The rate forgets with this time constant; before it has seen so much work it knows nothing.
MEMORY_S = 5.0
MIN_SEEN_S = 0.5
# A step that seems to take longer was held up with its process, which says nothing about the engine.
MAX_STEP_S = 5.0
# How long the rate with many rows is remembered while few are open, and how much must have been seen of it.
PEAK_MEMORY_S, MIN_PEAK_S = 600.0, 2.0


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
        self._stepped_at = math.inf
        # The same for rows: answered, and open times seconds; then the rate at the peak, and the rows open there.
        self._open_rows = 0
        self._seen_rows = self._seen_row_s = 0.0
        self._peak_rows_per_s = self._peak_rows = 0.0

    @property
    def open_work(self) -> int:
        """Work of everything that was not answered yet."""
        return sum(self._waiting.values()) + self._running

    def submitted(self, sentences: Iterable[Sentence], now: float) -> None:
        """They wait from now on."""
        if not self.open_work:
            self._looked_at = now  # the rest before was not spent on work
        self._pass(now)
        for sentence in sentences:
            self._waiting[sentence.priority] += work_of(sentence)
            self._open_rows += sentence.options.num_beams

    def taken(self, sentences: Iterable[Sentence]) -> None:
        """They do not wait any more; each of them will be answered."""
        for sentence in sentences:
            self._waiting[sentence.priority] -= work_of(sentence)
            self._running += work_of(sentence)

    def answered(self, sentence: Sentence, was_done: bool, now: float) -> None:
        """A sentence that was taken has its answer; ``was_done``: with a translation, not with an error."""
        self._pass(now)
        self._running -= work_of(sentence)
        self._open_rows -= sentence.options.num_beams
        if was_done:
            self._seen_work += work_of(sentence)
            self._seen_rows += sentence.options.num_beams
        if self._seen_s >= MIN_PEAK_S:
            self._remember_peak()

    def stepped(self, now: float) -> None:
        """A worker begins a step, or has nothing to do."""
        self._leave_out_pauses(now)
        self._stepped_at = now

    def _leave_out_pauses(self, now: float) -> None:
        """Time in which no worker did anything passed for the whole process."""
        if now - self._stepped_at > MAX_STEP_S:
            self._looked_at = now

    def _pass(self, now: float) -> None:
        """Time with something to do has passed until now; what was seen long before fades."""
        self._leave_out_pauses(now)
        passed_s = max(now - self._looked_at, 0.0)
        self._looked_at = now
        kept = math.exp(-passed_s / MEMORY_S)
        self._seen_s = self._seen_s * kept + passed_s
        self._seen_work *= kept
        self._seen_rows *= kept
        self._seen_row_s = self._seen_row_s * kept + passed_s * self._open_rows
        self._peak_rows *= math.exp(-passed_s / PEAK_MEMORY_S)

    def _remember_peak(self) -> None:
        rate, rows = self._seen_rows / self._seen_s, self._seen_row_s / self._seen_s
        if rate >= self._peak_rows_per_s or rows >= self._peak_rows:
            self._peak_rows_per_s, self._peak_rows = rate, rows

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

    def shared_s(self) -> float:
        """Seconds a sentence of usual length would take where no row waits; 0 while too little was seen."""
        if not self._peak_rows_per_s:
            return 0.0
        return min(self._open_rows, self._peak_rows) / self._peak_rows_per_s
