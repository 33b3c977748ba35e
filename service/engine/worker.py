"""One engine thread: schedule, run, postprocess, again and again.

Knows: the order of a step. Does not know: why a sentence is next (scheduler), how tokens are chosen (decoding), ONNX.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from service.decoding.beam import BeamSearch
from service.decoding.greedy import GreedySearch
from service.decoding.rules import DecodingRules
from service.decoding.search import Advance, Found, Search, is_any
from service.engine.observer import EngineObserver
from service.engine.request import FinishReason, Hypothesis, Sentence, SentenceAnswer, SentenceResult, Timings
from service.engine.request_queue import RequestQueue
from service.engine.running_batch import Active, Group, RunningBatch
from service.engine.scheduler import group_by_length, is_over
from service.errors import Cancelled, DeadlineExceeded, EngineFailure, RequestError
from service.runtime.backend import Backend, Cache, Step
from service.runtime.session import StepInputs

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
        self.start_token, self.end_token = special
        self.rules = rules  # None: any token may stand anywhere
        self.batch = RunningBatch(cache.max_rows)
        self.tokens = np.zeros(cache.max_rows, np.int64)
        self.bindings: dict[int, Step] = {}
        self.layout_cache: tuple[int, NDArray[np.int64], NDArray[np.int64]] | None = None
        self.fresh: list[Sentence] = []  # encoded, but without a token yet
        self.entering: list[Sentence] = []  # taken from the queue; only while they are encoded and given rows
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
        running = {id(member.sentence) for group in self.batch.groups.values() for member in group.members}
        entering, self.entering = self.entering, []
        for sentence in entering:
            if id(sentence) not in running:
                self.answer(sentence, make_error(), "error")
        for beams, group in list(self.batch.groups.items()):
            members = list(group.members)
            self.batch.drop(beams, np.ones(len(members), bool))
            for member in members:
                self.answer(member.sentence, make_error(), "error")
        self.report_rows()

    def turn(self) -> bool:
        """One round: drop what nobody waits for, admit, one decoder step. False where there was nothing to do."""
        self.drop_over()
        plan = self.queue.take(self.number, self.batch.num_rows, self.cache.max_rows)
        now = time.monotonic()
        for sentence in plan.drop:
            self.refuse(sentence, "queued", now)
        if plan.admit:
            self.admit(plan.admit)
            self.drop_over()
        self.compact()
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
                self.batch.drop(beams, np.array(over))
                self.layout_cache = None
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
        self.cache.reserve_source(longest, int(self.batch.slot_used.nonzero()[0].max(initial=-1)) + 1)
        now = time.monotonic()
        self.observer.encoded(len(sentences), int(lengths.sum()), source.size, now - started)
        for beams in sorted({sentence.options.num_beams for sentence in sentences}):
            chosen = [i for i, sentence in enumerate(sentences) if sentence.options.num_beams == beams]
            members = [Active(sentences[i], admitted_at, now) for i in chosen]
            rows, slots = self.batch.add(self.search(beams), members)
            self.tokens[rows] = self.start_token
            self.cache.lengths[rows] = 0
            self.cache.write_sources(slots, encoded, np.array(chosen), lengths[chosen])
        self.fresh += sentences
        self.layout_cache = None

    def search(self, beams: int) -> Search:
        if beams in self.batch.groups:
            return self.batch.groups[beams].search
        if beams == 1:
            return GreedySearch(self.end_token, self.cache.max_target_tokens)
        stop_at_beams = self.rules is not None and self.rules.stop_at_beams
        return BeamSearch(beams, self.end_token, self.cache.max_target_tokens, stop_at_beams)

    def compact(self) -> None:
        if not self.batch.has_holes:
            return
        row_moves, slot_moves = self.batch.compact()
        if len(row_moves.sources):
            self.cache.copy_rows(row_moves.sources, row_moves.targets)
            self.tokens[row_moves.targets] = self.tokens[row_moves.sources]
            self.layout_cache = None
        for source, target in zip(slot_moves.sources, slot_moves.targets, strict=True):
            self.cache.move_sentence(int(source), int(target))
            self.layout_cache = None

    def step(self) -> None:
        started = time.monotonic()
        batch = self.batch
        num_rows, num_sentences = batch.num_rows, batch.num_sentences
        decoder = self.sessions.decoder_for(max(batch.groups))
        binding = self.bindings.get(decoder.num_beams)
        if binding is None:
            binding = self.bindings[decoder.num_beams] = self.sessions.bind_step(decoder, self.cache)
        if self.layout_cache is None or self.layout_cache[0] != decoder.num_beams:
            self.layout_cache = (decoder.num_beams, *batch.layout(decoder.num_beams))
        self.cache.reserve_target(max(self.cache.lengths[:num_rows].tolist()) + 1, num_rows)
        inputs = StepInputs(self.tokens[:num_rows], *self.layout_cache[1:], self.num_candidates())
        candidates = binding.run(inputs, num_sentences, self.queue.is_alone(self.number))
        self.cache.lengths[:num_rows] += 1
        for beams, group in list(batch.groups.items()):
            # take(): a quarter of what an index takes
            ids = candidates.ids.take(group.rows, axis=0)
            log_probabilities = candidates.log_probabilities.take(group.rows, axis=0)
            search = group.search
            if search.penalties.some:
                ids, log_probabilities = search.penalties.apply(ids, log_probabilities, search.prefixes, search.lengths)
            if self.rules:
                first = [member.sentence.first for member in group.members]
                lengths = (search.lengths, search.max_lengths)
                ids, log_probabilities = self.rules.apply(ids, log_probabilities, *lengths, first)
            self.postprocess(beams, group, search.advance(ids, log_probabilities))
        self.report_step(started, num_rows, 1 - num_rows / (binding.bucket or num_sentences * decoder.num_beams))
        if binding.bucket:
            self.observer.bucket(binding.bucket, binding.was_replayed, time.monotonic() - started)

    def num_candidates(self) -> int:
        """How many candidates of a row this step needs."""
        searches = [group.search for group in self.batch.groups.values()]
        most = max(search.num_candidates + search.penalties.num_more(search.lengths) for search in searches)
        return min(most + (len(self.rules.banned) if self.rules else 0), self.cache.shape.vocab_size)

    def report_step(self, started: float, num_rows: int, padding: float) -> None:
        now = time.monotonic()
        self.observer.step(num_rows, padding, now - started)
        self.report_rows()
        for sentence in self.fresh:
            self.observer.first_token(now - sentence.submitted_at)
        self.fresh.clear()

    def report_rows(self) -> None:
        self.queue.active_rows[self.number] = self.batch.num_rows
        self.observer.active_rows(sum(self.queue.active_rows))

    def postprocess(self, beams: int, group: Group, advance: Advance) -> None:
        """Moves beams to their parents' past, stores the new tokens, answers the sentences that are done."""
        if advance.parents is not None and (moves := self.batch.reorder(group, advance.parents)):
            if len(moves.sources):
                self.cache.copy_rows(moves.sources, moves.targets)
            self.layout_cache = None
        self.tokens[group.rows] = advance.tokens
        if not is_any(advance.done):
            return
        members = [group.members[i] for i in np.flatnonzero(advance.done)]
        found = [self.hypotheses(group.search, int(i), group.members[i]) for i in np.flatnonzero(advance.done)]
        failed = advance.failed[advance.done]
        # Rows are free before the answer is given: who has the answer may ask again at once.
        self.batch.drop(beams, advance.done)
        self.layout_cache = None
        now = time.monotonic()
        for member, hypotheses, has_failed in zip(members, found, failed, strict=True):
            if has_failed:
                log.error("a sentence of %d tokens gave no numbers", len(member.sentence.source))
                self.answer(member.sentence, EngineFailure(), "error")
            else:
                self.finish(member, hypotheses, now)

    def hypotheses(self, search: Search, index: int, member: Active) -> tuple[Hypothesis, ...]:
        found = search.found(index)[: member.sentence.options.num_alternatives]
        # Of an end token that was forced nobody knows whether the model would have chosen it.
        limit = member.sentence.max_length if self.rules and self.rules.force_end else 0
        return tuple(Hypothesis(f.ids, f.log_probability, f.score, reason_of(f, limit)) for f in found)

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
