"""The bounded line in front of the workers.

Knows: how much may wait, who takes how much, locks. Does not know: what is done with a sentence.
"""

import math
import threading
import time
from collections.abc import Sequence

from service.engine.load_estimate import LoadEstimate
from service.engine.observer import EngineObserver
from service.engine.request import Priority, Sentence
from service.engine.scheduler import Plan, Waiting, plan_admission, sweep
from service.errors import Draining, Overloaded

SWEEP_EVERY_S = 0.05
MIN_RETRY_S, MAX_RETRY_S = 0.1, 10.0


class RequestQueue:
    """Sentences that wait for rows; shared by callers' threads and workers.

    Args:
        max_sentences, max_tokens: what may wait; more is refused at once. What is larger by itself is taken while
            nothing waits.
        num_workers: who takes from here; each takes no more than its share of what waits and runs.
        max_delay_s: interactive sentences that would be answered later than that are refused; 0: never. Sentences
            with a deadline that would pass before are refused in any case.
    """

    def __init__(
        self, max_sentences: int, max_tokens: int, num_workers: int, observer: EngineObserver, max_delay_s: float = 0.0
    ) -> None:
        self.max_delay_s, self.load = max_delay_s, LoadEstimate()
        self.max_sentences, self.max_tokens, self.observer = max_sentences, max_tokens, observer
        self.waiting = Waiting()
        self.num_tokens = self.num_rows = 0
        self.arrivals = 0  # how often something came; workers look whether it is as it was
        self.active_rows = [0] * num_workers
        self.max_rows = 0  # of all workers; not known before the first of them asked
        self.open_sentences = 0
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)  # for those who wait until all is answered
        self.idle: list[threading.Condition] = []  # workers that wait, the one idle for the shortest time last
        self.draining = self.closed = False
        self.swept_at = time.monotonic()

    def submit(self, sentences: Sequence[Sentence], is_counted: bool = True) -> None:
        """Appends all or none; ``is_counted``: as check().

        Raises:
            Draining, Overloaded.
        """
        if not sentences:
            return
        now = time.monotonic()
        tokens = sum(len(sentence.source) for sentence in sentences)
        with self.changed:
            self.check(sentences[0].priority, sentences[0].deadline, len(sentences), tokens, is_counted)
            for sentence in sentences:
                sentence.submitted_at = now
                self.waiting.by_priority[sentence.priority].append(sentence)
            self.count(sentences, 1)
            self.load.submitted(sentences, now)
            self.open_sentences += len(sentences)
            self.arrivals += 1
            self.wake(len(sentences))

    def check(
        self,
        priority: Priority,
        deadline: float | None,
        num_sentences: int = 1,
        num_tokens: int = 1,
        is_counted: bool = True,
    ) -> None:
        """Whether so much would be taken now; callers ask before they split a text, which costs more than to refuse it.

        Args:
            is_counted: whether a refusal is told to the observer; whoever asks again and again is not refused.

        Raises:
            Draining, Overloaded.
        """
        if self.draining or self.closed:
            self.observer.rejected("draining")
            raise Draining("the server is shutting down")
        is_full = 0 < self.max_rows <= sum(self.active_rows) + self.num_rows
        delay_s = self.load.delay_s(priority) if is_full else self.load.shared_s()
        is_over = (
            len(self.waiting) + num_sentences > self.max_sentences or self.num_tokens + num_tokens > self.max_tokens
        )
        if is_over and len(self.waiting):
            if is_counted:
                self.observer.rejected("queue_full")
            raise Overloaded(
                f"{len(self.waiting)} sentences with {self.num_tokens} tokens wait already; at most "
                f"{self.max_sentences} and {self.max_tokens} may",
                retry_after_s=min(max(delay_s, MIN_RETRY_S), MAX_RETRY_S),
                waiting_sentences=len(self.waiting),
                max_queue_sentences=self.max_sentences,
                waiting_tokens=self.num_tokens,
                max_queue_tokens=self.max_tokens,
            )
        limit_s = self.max_delay_s if self.max_delay_s and priority is Priority.INTERACTIVE else math.inf
        if deadline is not None:
            limit_s = min(limit_s, deadline - time.monotonic())
        if 0 < limit_s < delay_s:
            if is_counted:
                self.observer.rejected("delay")
            raise Overloaded(
                f"an answer would take {round(delay_s, 3):g} s; at most {round(limit_s, 3):g} s are allowed",
                retry_after_s=min(max(delay_s - limit_s, MIN_RETRY_S), MAX_RETRY_S),
                delay_s=round(delay_s, 3),
                max_delay_s=round(limit_s, 3),
            )

    def count(self, sentences: Sequence[Sentence], sign: int) -> None:
        self.num_tokens += sign * sum(len(sentence.source) for sentence in sentences)
        self.num_rows += sign * sum(sentence.options.num_beams for sentence in sentences)
        self.observer.queued(len(self.waiting), self.num_tokens, self.oldest_age_s())

    def oldest_age_s(self) -> float:
        first = [line[0].submitted_at for line in self.waiting.by_priority.values() if line]
        return time.monotonic() - min(first) if first else 0.0

    def take(self, worker: int, active_rows: int, max_rows: int) -> Plan:
        """What ``worker`` starts now and what was dropped; returns at once, possibly with nothing.

        A worker fills up to its share of all rows, running and waiting, so that work divides evenly.
        """
        now = time.monotonic()
        with self.changed:
            self.active_rows[worker] = active_rows
            self.max_rows = max_rows * len(self.active_rows)
            self.load.stepped(now)
            if not len(self.waiting):
                return Plan()
            share = -(-(sum(self.active_rows) + self.num_rows) // len(self.active_rows))
            # Below its share a worker takes at least one sentence, however wide, so that none is left between two
            # shares.
            wanted = max(share - active_rows, self.first_width()) if active_rows < share else 0
            free = min(max_rows - active_rows, wanted)
            plan = plan_admission(self.waiting, free, now)
            if now - self.swept_at > SWEEP_EVERY_S:
                self.swept_at = now
                plan.drop += sweep(self.waiting, now)
                self.observer.queued(len(self.waiting), self.num_tokens, self.oldest_age_s())
            if plan.admit or plan.drop:
                self.active_rows[worker] += sum(s.options.num_beams for s in plan.admit)
                self.load.taken([*plan.admit, *plan.drop])
                self.count([*plan.admit, *plan.drop], -1)
        return plan

    def is_alone(self, worker: int) -> bool:
        """Whether no other worker has rows now."""
        return sum(self.active_rows) == self.active_rows[worker]

    def first_width(self) -> int:
        line = self.waiting.next_line()
        return line[0].options.num_beams if line else 0

    def wait(self, timeout_s: float) -> None:
        """Returns when something waits, when the queue is closed, or after the timeout."""
        with self.changed:
            if len(self.waiting) or self.closed:
                return
            me = threading.Condition(self.lock)
            self.idle.append(me)
            me.wait(timeout_s)
            if me in self.idle:
                self.idle.remove(me)

    def wake(self, most: int) -> None:
        """Wakes up to ``most`` idle workers, those first that worked last: their core's cache holds what they need."""
        for _ in range(min(most, len(self.idle))):
            self.idle.pop().notify()

    def answered(self, sentence: Sentence, was_done: bool) -> None:
        """A sentence taken from here was answered; ``was_done``: with a translation, not with an error."""
        with self.changed:
            self.open_sentences -= 1
            self.load.answered(sentence, was_done, time.monotonic())
            if self.open_sentences == 0:
                self.changed.notify_all()

    def drain(self, timeout_s: float) -> bool:
        """Refuses new work and waits until every sentence was answered; True if that came in time."""
        until = time.monotonic() + timeout_s
        with self.changed:
            self.draining = True
            while self.open_sentences and (left := until - time.monotonic()) > 0:
                self.changed.wait(left)
            return self.open_sentences == 0

    def close(self) -> list[Sentence]:
        """Refuses new work, wakes the workers, and returns what still waited."""
        with self.changed:
            self.draining = self.closed = True
            left = [sentence for line in self.waiting.by_priority.values() for sentence in line]
            for line in self.waiting.by_priority.values():
                line.clear()
            self.load.taken(left)
            self.count(left, -1)
            self.wake(len(self.idle))
            self.changed.notify_all()
            return left
