"""The rows of one worker, step by step: run the graph, let the searches choose, move rows, report who is done.

Knows: how rows, searches, cache and graph fit together. Does not know: who is admitted or answered (worker.py).
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.decoding.beam import BeamSearch
from service.decoding.greedy import GreedySearch
from service.decoding.rules import DecodingRules
from service.decoding.search import Advance, Found, Search, is_any
from service.engine.running_batch import Active, Group, RunningBatch
from service.engine.unchanged_steps import SOME_DONE, SOME_LOOP, SOME_MOVED, UnchangedSteps, library_calls
from service.runtime.backend import Backend, Cache, Step
from service.runtime.kv_cache import EncodedSources, KVCache
from service.runtime.session import BoundShape, StepBinding, StepInputs

# No longer without a look at what else there is to do, in steps of a batch that stays as it is.
MAX_STRETCH_S = 0.02


class Ended(NamedTuple):
    """A sentence whose search is over. found: its hypotheses, best first; none where the model gave no numbers."""

    member: Active
    found: list[Found]


class Steps(NamedTuple):
    """What steps one after the other did.

    moments: when the first began and when each ended, by time.monotonic(). padding: the share of rows computed in vain.
    bucket, was_replayed: as Step says.
    """

    moments: list[float]
    num_rows: int
    padding: float
    bucket: int
    was_replayed: bool


class BatchDecoder:
    """Everything of a worker that changes with a step.

    Attributes:
        rules: what the model demands of every search; None: any token may stand anywhere.
        ended: who is done, for whoever answers to take out; their rows are free.
    """

    def __init__(
        self, sessions: Backend, cache: Cache, special: tuple[int, int], rules: DecodingRules | None = None
    ) -> None:
        self.sessions, self.cache, self.rules = sessions, cache, rules
        self.start_token, self.end_token = special
        self.batch = RunningBatch(cache.max_rows)
        self.tokens = np.zeros(cache.max_rows, np.int64)
        self.bindings: dict[int, Step] = {}
        self.layout_cache: tuple[int, NDArray[np.int64], NDArray[np.int64]] | None = None
        self.unchanged: UnchangedSteps | None = None  # of the batch as it is
        self.ended: deque[Ended] = deque()

    def add(
        self, members: Sequence[Active], encoded: EncodedSources, chosen: Sequence[int], lengths: NDArray[np.int64]
    ) -> None:
        """Gives new sentences of one beam width rows: the ``chosen`` of the encoded ones, of ``lengths`` (m,)."""
        beams = members[0].sentence.options.num_beams
        rows, slots = self.batch.add(self.search(beams), list(members))
        self.tokens[rows] = self.start_token
        self.cache.lengths[rows] = 0
        self.cache.write_sources(slots, encoded, np.array(chosen), lengths)
        self.layout_cache = self.unchanged = None

    def drop(self, beams: int, which: NDArray[np.bool_]) -> None:
        """Frees the rows of the sentences of width ``beams`` for which ``which`` (n,) is true."""
        self.batch.drop(beams, which)
        self.layout_cache = self.unchanged = None

    def search(self, beams: int) -> Search:
        if beams in self.batch.groups:
            return self.batch.groups[beams].search
        if beams == 1:
            return GreedySearch(self.end_token, self.cache.max_target_tokens)
        stop_at_beams = self.rules is not None and self.rules.stop_at_beams
        return BeamSearch(beams, self.end_token, self.cache.max_target_tokens, stop_at_beams)

    def compact(self) -> None:
        """Closes the holes that ended sentences left; once before a step."""
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
        self.unchanged = None

    def step(self, is_alone: bool, goes_on: Callable[[float], bool]) -> Steps:
        """One step; or more, where only the library in C is needed and ``goes_on``, asked with the time, says so."""
        began_at = time.monotonic()
        num_rows, num_sentences = self.batch.num_rows, self.batch.num_sentences
        decoder = self.sessions.decoder_for(max(self.batch.groups))
        binding = self.bindings.get(decoder.num_beams)
        if binding is None:
            binding = self.bindings[decoder.num_beams] = self.sessions.bind_step(decoder, self.cache)
        if self.layout_cache is None or self.layout_cache[0] != decoder.num_beams:
            self.layout_cache = (decoder.num_beams, *self.batch.layout(decoder.num_beams))
        longest = max(self.cache.lengths[:num_rows].tolist())
        self.cache.reserve_target(longest + 1, num_rows)
        inputs = StepInputs(self.tokens[:num_rows], *self.layout_cache[1:], self.num_candidates())
        if isinstance(binding, StepBinding) and (most := self.num_unchanged(inputs.num_candidates)) > 0:
            most = min(most, binding.cache.target_capacity - longest)
            shape = binding.prepared(inputs, num_sentences, is_alone)
            moments = self.run_unchanged(shape, binding.cache, most, [began_at], goes_on)
        else:
            self.run_once(binding, inputs, num_sentences, is_alone)
            moments = [began_at, time.monotonic()]
        padding = 1 - num_rows / (binding.bucket or num_sentences * decoder.num_beams)
        return Steps(moments, num_rows, padding, binding.bucket, binding.was_replayed)

    def num_candidates(self) -> int:
        """How many candidates of a row this step needs."""
        searches = [group.search for group in self.batch.groups.values()]
        most = max(search.num_candidates + search.penalties.num_more(search.lengths) for search in searches)
        return min(most + (len(self.rules.banned) if self.rules else 0), self.cache.shape.vocab_size)

    def run_once(self, binding: Step, inputs: StepInputs, num_sentences: int, is_alone: bool) -> None:
        """One step with the searches in numpy, which do all that may be asked, on every device."""
        candidates = binding.run(inputs, num_sentences, is_alone)
        self.unchanged = None
        self.cache.lengths[: len(inputs.tokens)] += 1
        for beams, group in list(self.batch.groups.items()):
            # take(): a quarter of what an index takes
            ids = candidates.ids.take(group.rows, axis=0)
            log_probabilities = candidates.log_probabilities.take(group.rows, axis=0)
            search = group.search
            if search.penalties.some:
                ids, log_probabilities = search.penalties.apply(ids, log_probabilities, search.prefixes, search.lengths)
            if self.rules:
                lengths = (search.lengths, search.max_lengths)
                ids, log_probabilities = self.rules.apply(ids, log_probabilities, *lengths, group.first())
            advance = search.advance(ids, log_probabilities)
            self.move(group, advance)
            self.take_ended(beams, group, advance.done, advance.failed)

    def move(self, group: Group, advance: Advance) -> None:
        """Moves beams to their parents' past and stores the new tokens."""
        if advance.parents is not None and (moves := self.batch.reorder(group, advance.parents)):
            if len(moves.sources):
                self.cache.copy_rows(moves.sources, moves.targets)
            self.layout_cache = None
        self.tokens[group.rows] = advance.tokens

    def take_ended(self, beams: int, group: Group, done: NDArray[np.bool_], failed: NDArray[np.bool_]) -> None:
        """Frees the rows of the sentences that are done."""
        if not is_any(done):
            return
        self.ended.extend([
            Ended(group.members[i], [] if failed[i] else group.search.found(i)) for i in done.nonzero()[0].tolist()
        ])  # fmt: skip
        self.drop(beams, done)

    def num_unchanged(self, num_candidates: int) -> int:
        """How many steps the library can do, but for the room in the cache; 0: none."""
        if library_calls() is None:
            return 0
        groups, rules = self.batch.groups.values(), self.rules
        num_banned = len(rules.banned) if rules else 0
        if any(group.search.penalties.some_repeat for group in groups):
            return 0
        if num_candidates < num_banned + max(group.search.num_candidates for group in groups):
            return 0  # a vocabulary that small
        most = self.cache.max_target_tokens
        if rules:
            searches = ((group.search.lengths, group.search.max_lengths, group.first()) for group in groups)
            most = min(most, *(rules.num_unruled(*search) for search in searches))
        return most

    def run_unchanged(
        self, shape: BoundShape, cache: KVCache, most: int, moments: list[float], goes_on: Callable[[float], bool]
    ) -> list[float]:
        """Up to ``most`` steps; ``moments`` and when each ended."""
        groups, found = list(self.batch.groups.items()), 0
        if self.unchanged is None or self.unchanged.shape is not shape:
            banned = self.rules.banned if self.rules else ()
            self.unchanged = UnchangedSteps(shape, cache, [group for _, group in groups], banned)
        steps = self.unchanged
        until = moments[0] + MAX_STRETCH_S
        while len(moments) <= most:
            found |= steps.run(most + 1 - len(moments), moments)
            if found & (SOME_DONE | SOME_LOOP) or moments[-1] > until or not goes_on(moments[-1]):
                break
        for _, group in groups:
            group.search.penalties.pass_steps(len(moments) - 1)
        self.tokens[: len(shape.tokens)] = shape.tokens
        if found & SOME_MOVED and self.layout_cache is not None:
            # New arrays: other shapes know the old ones.
            self.layout_cache = (self.layout_cache[0], shape.query_rows.copy(), shape.row_queries.copy())
            shape.laid_out = self.layout_cache[1]
        if found & (SOME_DONE | SOME_LOOP):
            for (beams, group), done, failed in zip(groups, steps.done, steps.failed, strict=True):
                if found & SOME_LOOP:
                    group.search.end_loops(done)
                self.take_ended(beams, group, done, failed)
        return moments
