"""The thread that scores given translations, beside the workers that search for them.

Knows: batches of pairs, and when nobody waits for one. Does not know: texts, characters, gRPC, who looks at its turns.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from service.engine.observer import EngineObserver, SilentObserver
from service.engine.request import Sentence
from service.engine.request_queue import RequestQueue
from service.engine.scheduler import is_over
from service.engine.scoring import Pair, ScoredAnswer
from service.engine.settings import EngineSettings
from service.errors import Cancelled, DeadlineExceeded, Draining, EngineFailure
from service.runtime.cpus import step_aside
from service.runtime.score_session import Scored, ScoreSession

log = logging.getLogger(__name__)

# Padded target tokens of one run: its largest arrays are those of every token's logits over the whole vocabulary.
RUN_TOKENS = 256
# Pairs taken from the queue at a time; of similar lengths among them a run is made.
TAKE_PAIRS = 64
IDLE_WAIT_S = 1.0
CLOSING = "the server is shutting down"


class Refusals(SilentObserver):
    """Of what the scorer's queue tells, refusals only: the gauges of a queue are those of the engine's."""

    def __init__(self, observer: EngineObserver) -> None:
        self.observer = observer

    def rejected(self, reason: str) -> None:
        self.observer.rejected(reason)


class Scorer:
    """Scores pairs in batches on a thread of its own, with the bounds and priorities of the engine's queue.

    Args:
        on_failure: called once if the thread cannot go on; whatever waited has been answered with EngineFailure.

    Attributes:
        turn_at: when the present run of the graph began, monotonic seconds; None: there is none.
    """

    def __init__(
        self, session: ScoreSession, settings: EngineSettings, on_failure: Callable[[BaseException], None]
    ) -> None:
        self.session, self.on_failure, self.niceness = session, on_failure, settings.niceness
        self.turn_at: float | None = None
        self.taken: set[Sentence] = set()  # from the queue, and not answered yet
        self.has_failed = False
        self.observer: EngineObserver = SilentObserver()
        self.queue = RequestQueue(settings.max_queue_sentences, settings.max_queue_tokens, 1, self.observer)
        self.thread = threading.Thread(target=self.run, name="scorer", daemon=True)

    def start(self) -> None:
        self.thread.start()

    def observe(self, observer: EngineObserver) -> None:
        """From now on tells ``observer`` what is refused and given up."""
        self.observer, self.queue.observer = observer, Refusals(observer)

    def submit(self, pairs: Sequence[Pair]) -> None:
        """Queues all pairs or none. Raises Overloaded, Draining, EngineFailure."""
        if self.has_failed:
            raise EngineFailure()
        self.queue.submit(pairs)

    def run(self) -> None:
        """Works until the queue is closed."""
        try:
            step_aside(self.niceness)
            while not self.queue.closed:
                self.work()
        except BaseException as error:
            log.exception("the scorer failed; the process should be restarted")
            self.has_failed = True
            for pair in [*self.taken, *self.queue.close()]:
                self.reply(pair, EngineFailure())
            self.on_failure(error)

    def work(self) -> None:
        """Scores what waits, or else waits for something."""
        plan = self.queue.take(0, 0, TAKE_PAIRS)
        self.taken.update(plan.admit, plan.drop)
        for pair in plan.drop:
            self.refuse(pair)
        for batch in batches([pair for pair in plan.admit if isinstance(pair, Pair)], RUN_TOKENS):
            now = time.monotonic()  # of many batches the last wait long
            for pair in batch:
                if self.queue.closed:
                    self.reply(pair, Draining(CLOSING))
                elif is_over(pair, now):
                    self.refuse(pair)
            if waited_for := [pair for pair in batch if pair in self.taken]:
                self.score(waited_for)
        if not plan.admit and not plan.drop:
            self.queue.wait(IDLE_WAIT_S)

    def refuse(self, pair: Sentence) -> None:
        if pair.is_cancelled:
            self.observer.cancelled("queued")
            self.reply(pair, Cancelled("the request was cancelled"))
        else:
            waited = time.monotonic() - pair.submitted_at
            late = f"the deadline passed after {waited:.3f} s, queued for scoring"
            self.reply(pair, DeadlineExceeded(late, waited_s=round(waited, 3)))

    def score(self, batch: Sequence[Pair]) -> None:
        answers: Sequence[ScoredAnswer]
        self.turn_at = started = time.monotonic()
        for pair in batch:
            pair.started_at = started
        try:
            answers = self.session.run([pair.source for pair in batch], [pair.target for pair in batch])
        except Exception:
            log.exception("%d pairs could not be scored", len(batch))
            answers = [EngineFailure() for _ in batch]
        self.turn_at = None
        for pair, answer in zip(batch, answers, strict=True):
            if isinstance(answer, Scored) and np.isnan(answer.log_probabilities).any():
                log.error("a pair of %d and %d tokens gave no numbers", len(pair.source), len(pair.target))
                answer = EngineFailure()
            self.reply(pair, answer)

    def reply(self, pair: Sentence, answer: ScoredAnswer) -> None:
        self.taken.discard(pair)
        try:
            if isinstance(pair, Pair):
                pair.on_scored(pair, answer)
        except Exception:
            log.exception("the receiver of a score failed")
        self.queue.answered(pair, isinstance(answer, Scored))

    def drain(self, timeout_s: float) -> bool:
        """Takes nothing new and waits for what was taken; True if all of it was answered in time."""
        return self.queue.drain(timeout_s)

    def close(self, timeout_s: float | None = None) -> bool:
        """Ends after the present run; what still waits is answered with Draining. False where the run lasts longer."""
        for pair in self.queue.close():
            self.reply(pair, Draining(CLOSING))
        if self.thread.ident is not None:
            self.thread.join(timeout_s)
        return not self.thread.is_alive()


def batches(pairs: Sequence[Pair], max_tokens: int) -> list[list[Pair]]:
    """Groups of similar target lengths of at most ``max_tokens`` padded target tokens; one pair may have more."""
    groups: list[list[Pair]] = []
    for pair in sorted(pairs, key=lambda pair: -len(pair.target)):
        if groups and len(groups[-1][0].target) * (len(groups[-1]) + 1) <= max_tokens:
            groups[-1].append(pair)
        else:
            groups.append([pair])
    return groups
