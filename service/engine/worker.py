"""One engine thread: admit, run, answer, again and again.

Knows: the order of a turn. Does not know: why a sentence is next (scheduler), what a step is (batch_decoder.py), ONNX.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from service.decoding.rules import DecodingRules
from service.decoding.search import Found
from service.engine.batch_decoder import BatchDecoder, Steps
from service.engine.observer import EngineObserver
from service.engine.request import FinishReason, Hypothesis, Sentence, SentenceAnswer, SentenceResult, Timings
from service.engine.request_queue import RequestQueue
from service.engine.running_batch import Active
from service.engine.scheduler import group_by_length, is_over, some_over
from service.errors import Cancelled, DeadlineExceeded, EngineFailure, RequestError
from service.runtime.backend import Backend, Cache

log = logging.getLogger(__name__)

# Padded source tokens of one encoder run: enough to keep the products busy, few enough that rows are not kept waiting.
ENCODER_TOKENS = 1024
# Padding costs attention only, about a fifth of a token a place; from 2 to 16 places all are within 3 %.
ENCODER_PADDING = 8
IDLE_WAIT_S = 1.0


class Worker:
    """A cache, its rows and the loop that keeps them busy. Everything here happens on one thread, but for answer(): the
    engine calls it for what still waits when it ends."""

    def __init__(
        self,
        number: int,
        sessions: Backend,
        cache: Cache,
        queue: RequestQueue,
        special: tuple[int, int],
        observer: EngineObserver,
        rules: DecodingRules | None = None,
    ) -> None:
        self.number, self.sessions, self.cache, self.queue, self.observer = number, sessions, cache, queue, observer
        self.end_token = special[1]
        self.decoder = BatchDecoder(sessions, cache, special, rules)
        self.batch = self.decoder.batch
        self.fresh: list[Sentence] = []  # encoded, but without a token yet
        self.entering: list[Sentence] = []  # taken from the queue; only while they are encoded and given rows
        self.arrivals = 0
        self.is_warm = threading.Event()
        self.turn_at: float | None = None  # when the present turn began; None: it waits for work. Read by the watchdog

    def run(self) -> None:
        """Works until the queue is closed; what is left is for abandon()."""
        self.sessions.warm_up(self.cache)
        self.is_warm.set()
        while not self.queue.closed:
            self.turn_at = time.monotonic()
            if not self.turn():
                self.turn_at = None
                self.queue.wait(IDLE_WAIT_S)

    def abandon(self, make_error: Callable[[], RequestError]) -> None:
        """Answers every sentence taken from the queue with an error and frees its rows."""
        left, self.entering = self.entering, []
        left += [member.sentence for group in self.batch.groups.values() for member in group.members]
        left += [member.sentence for member, _ in self.decoder.ended]
        self.decoder.ended.clear()
        for beams, group in list(self.batch.groups.items()):
            self.decoder.drop(beams, np.ones(len(group.members), bool))
        for sentence in {id(sentence): sentence for sentence in left}.values():  # what failed may have been half done
            self.answer(sentence, make_error(), "error")
        self.report_rows()

    def turn(self) -> bool:
        """One round: drop what nobody waits for, admit, one decoder step. False where there was nothing to do."""
        self.drop_over()
        self.arrivals = self.queue.arrivals  # before it is asked: what comes meanwhile is seen after the next step
        plan = self.queue.take(self.number, self.batch.num_rows, self.cache.max_rows)
        now = time.monotonic()
        for sentence in plan.drop:
            self.refuse(sentence, "queued", now)
        if plan.admit:
            self.admit(plan.admit)
            self.report_rows()
            self.drop_over()
        self.decoder.compact()
        if not self.batch.groups:
            self.cache.reset()
            self.report_rows()
            return bool(plan.drop)
        self.step()
        return True

    def refuse(self, sentence: Sentence, stage: str, now: float) -> None:
        if sentence.cancelled:
            self.observer.cancelled(stage)
            self.answer(sentence, Cancelled("the request was cancelled"), "cancelled")
        else:
            waited = now - sentence.submitted_at
            late = f"the deadline passed after {waited:.3f} s, {stage}"
            self.answer(sentence, DeadlineExceeded(late, waited_s=round(waited, 3)), "deadline")

    def drop_over(self) -> None:
        now = time.monotonic()
        for beams, group in list(self.batch.groups.items()):
            over = [is_over(member.sentence, now) for member in group.members]
            if True in over:
                gone = [member.sentence for member, is_gone in zip(group.members, over, strict=True) if is_gone]
                self.decoder.drop(beams, np.array(over))
                for sentence in gone:
                    self.refuse(sentence, "encoding" if sentence in self.fresh else "decoding", now)
                self.fresh = [sentence for sentence in self.fresh if sentence not in gone]

    def admit(self, sentences: Sequence[Sentence]) -> None:
        """Encodes new sentences, similar lengths together, and gives them rows."""
        admitted_at = time.monotonic()
        self.entering = list(sentences)
        for sentence in sentences:
            self.observer.dequeued(admitted_at - sentence.submitted_at)
        for group in group_by_length(sentences, ENCODER_TOKENS, ENCODER_PADDING):
            self.encode(group, admitted_at)
        self.entering = []

    def encode(self, sentences: Sequence[Sentence], admitted_at: float) -> None:
        started = time.monotonic()
        lengths = np.array([len(sentence.source) for sentence in sentences], np.int64)
        longest = int(lengths.max())
        source = np.full((len(sentences), longest), self.end_token, np.int64)
        for row, sentence in zip(source, sentences, strict=True):
            row[: len(sentence.source)] = sentence.source
        encoded = self.sessions.encoder.run(source, lengths, self.queue.is_alone(self.number))
        self.cache.reserve_source(longest, self.batch.end_slot)
        now = time.monotonic()
        self.observer.encoded(len(sentences), int(lengths.sum()), source.size, now - started)
        for beams in sorted({sentence.options.num_beams for sentence in sentences}):
            chosen = [i for i, sentence in enumerate(sentences) if sentence.options.num_beams == beams]
            members = [Active(sentences[i], admitted_at, now) for i in chosen]
            self.decoder.add(members, encoded, chosen, lengths[chosen])
        self.fresh += sentences

    def step(self) -> None:
        queue, is_alone = self.queue, self.queue.is_alone(self.number)
        sentences = [member.sentence for group in self.batch.groups.values() for member in group.members]

        def goes_on(now: float) -> bool:
            self.turn_at = now
            is_same = queue.arrivals == self.arrivals and queue.is_alone(self.number) == is_alone
            return is_same and not queue.closed and not some_over(sentences, now)

        steps = self.decoder.step(is_alone, goes_on)
        # Rows are free before the answer is given: who has the answer may ask again at once.
        while self.decoder.ended:
            member, found = self.decoder.ended[0]
            hypotheses = self.hypotheses(found, member)
            self.decoder.ended.popleft()
            if hypotheses:
                self.finish(member, hypotheses, steps.moments[-1])
            else:
                log.error("a sentence of %d tokens gave no numbers", len(member.sentence.source))
                self.answer(member.sentence, EngineFailure(), "error")
        self.report(steps)

    def report(self, steps: Steps) -> None:
        for began_at, ended_at in pairwise(steps.moments):
            self.observer.step(steps.num_rows, steps.padding, ended_at - began_at)
            if steps.bucket:
                self.observer.bucket(steps.bucket, steps.was_replayed, ended_at - began_at)
        self.report_rows()
        for sentence in self.fresh:
            self.observer.first_token(steps.moments[1] - sentence.submitted_at)
        self.fresh.clear()

    def report_rows(self) -> None:
        self.queue.active_rows[self.number] = self.batch.num_rows
        self.observer.active_rows(sum(self.queue.active_rows))

    def hypotheses(self, found: Sequence[Found], member: Active) -> tuple[Hypothesis, ...]:
        # Of an end token that was forced nobody knows whether the model would have chosen it.
        rules = self.decoder.rules
        limit = member.sentence.max_length if rules and rules.force_end else 0
        wanted = found[: member.sentence.options.num_alternatives]
        return tuple(Hypothesis(f.ids, f.log_probability, f.score, reason_of(f, limit)) for f in wanted)

    def finish(self, member: Active, hypotheses: tuple[Hypothesis, ...], now: float) -> None:
        sentence = member.sentence
        timings = Timings(
            queue_s=member.admitted_at - sentence.submitted_at,
            encode_s=member.encoded_at - member.admitted_at,
            decode_s=now - member.encoded_at,
        )
        best = hypotheses[0]
        self.observer.finished(best.finish_reason.value, len(sentence.source), len(best.ids))
        self.reply(sentence, SentenceResult(hypotheses, timings))

    def answer(self, sentence: Sentence, error: RequestError, reason: str) -> None:
        self.observer.finished(reason, len(sentence.source), 0)
        self.reply(sentence, error)

    def reply(self, sentence: Sentence, answer: SentenceAnswer) -> None:
        try:
            sentence.on_done(answer)
        except Exception:
            log.exception("the receiver of an answer failed")
        self.queue.answered(sentence, isinstance(answer, SentenceResult))


def reason_of(found: Found, forced_end: int) -> FinishReason:
    if found.ended and len(found.ids) != forced_end:
        return FinishReason.END_TOKEN
    return FinishReason.REPETITION if found.repeats else FinishReason.LENGTH_LIMIT
