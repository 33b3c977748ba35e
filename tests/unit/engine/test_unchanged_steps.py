"""Steps by the library in C against the same steps in numpy, on candidates drawn at random."""

import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.decoding.options import MAX_BEAMS, DecodeOptions
from service.decoding.rules import DecodingRules
from service.decoding.search import Search
from service.engine import unchanged_steps
from service.engine.batch_decoder import BatchDecoder
from service.engine.request import Sentence
from service.engine.running_batch import Active
from service.engine.unchanged_steps import SOME_DONE, SOME_LOOP, SOME_MOVED, UnchangedSteps, library_calls
from service.runtime.bundle import Shape
from service.runtime.kv_cache import EncodedSources, KVCache
from service.runtime.session import Candidates

pytestmark = pytest.mark.skipif(library_calls() is None, reason="no library: there was no C compiler to make it")

END, BANNED, VOCABULARY, SIZE = 2, 4, 48, 40
SHAPE = Shape(VOCABULARY, model_width=8, num_heads=2, num_encoder_layers=1, num_decoder_layers=2)
SOURCES = EncodedSources([np.zeros((1, 2, 3, 4), np.int8)] * 2, [np.zeros((1, 2, 3, 4), np.int8)] * 2)
Ended = list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]


class Plain:
    """A batch of a worker, whose graph is what the test says; steps in numpy."""

    def __init__(self, rules: DecodingRules, options: list[DecodeOptions]) -> None:
        rows = sum(each.num_beams for each in options)
        self.cache, self.rules = KVCache(SHAPE, rows, len(options), 8, 2 * SIZE, np.int8), rules
        self.decoder = BatchDecoder(None, self.cache, (1, END), rules)  # type: ignore[arg-type]
        for each in options:
            member = Active(Sentence((5, END), each, each.max_length, print), 0.0, 0.0)
            self.decoder.add([member], SOURCES, [0], np.array([3]))
        self.cache.reserve_target(SIZE, rows)

    @property
    def searches(self) -> list[Search]:
        return [group.search for group in self.decoder.batch.groups.values()]

    def remember(self, number: int) -> None:
        """What a graph does to the cache: each row has another number at its next position."""
        for row in range(self.decoder.batch.num_rows):
            self.cache.blocks["self"][:, row, :, self.cache.lengths[row]] = (7 * number + row) % 100

    def step(self, ids: NDArray[np.int64], values: NDArray[np.float32]) -> Ended:
        """Of each group, which sentences are done, and which of them failed."""
        self.cache.lengths[: len(ids)] += 1
        ended: Ended = []
        for group in self.decoder.batch.groups.values():
            search, candidates = group.search, (ids[group.rows], values[group.rows])
            candidates = search.penalties.apply(*candidates, search.prefixes, search.lengths)
            if self.rules.banned:
                candidates = self.rules.without_banned(*candidates)
            advance = search.advance(*candidates)
            self.decoder.move(group, advance)
            ended.append((advance.done, advance.failed))
        return ended

    def drop(self, which: list[NDArray[np.bool_]]) -> None:
        for beams, those in zip(list(self.decoder.batch.groups), which, strict=True):
            if those.any():
                self.decoder.drop(beams, those)

    def state(self) -> list[Any]:
        """What each beam holds, and what is finished."""
        block, found = self.cache.blocks["self"], []
        for group in self.decoder.batch.groups.values():
            for row in group.rows.ravel().tolist():
                found += [row, int(self.decoder.tokens[row]), block[:, row, :, : self.cache.lengths[row]].tolist()]
            search: Any = group.search
            for n, length in enumerate(search.lengths.tolist()):
                totals = search.totals if search.num_beams == 1 else search.live
                found += [length, search.prefixes[n, :, :length].tolist(), totals[n].tolist(), search.found(n)]
        return found


class Fast(Plain):
    """Steps by the library."""

    def shape(self, ids: NDArray[np.int64], values: NDArray[np.float32]) -> Any:
        """The batch as bound to a graph that gives these candidates."""
        batch = self.decoder.batch
        query_rows, row_queries = batch.layout(max(batch.groups))
        tokens = self.decoder.tokens[: len(ids)].copy()
        return SimpleNamespace(
            decoder=SimpleNamespace(num_beams=max(batch.groups)), candidates=Candidates(ids, values), run=bool,
            tokens=tokens, query_rows=query_rows, row_queries=row_queries, memory=None,
        )  # fmt: skip

    def step(self, ids: NDArray[np.int64], values: NDArray[np.float32]) -> Ended:
        groups, batch = list(self.decoder.batch.groups.values()), self.decoder.batch
        shape, before = self.shape(ids, values), [group.rows.tolist() for group in groups]
        steps = UnchangedSteps(shape, self.cache, groups, self.rules.banned)
        found = steps.run(1, [0.0])
        self.decoder.tokens[: len(ids)] = shape.tokens
        assert bool(found & SOME_DONE) == any(done.any() for done in steps.done)
        assert found & SOME_MOVED or before == [group.rows.tolist() for group in groups]
        layout = [part.tolist() for part in batch.layout(max(batch.groups))]
        assert [shape.query_rows.tolist(), shape.row_queries.tolist()] == layout
        for group, done in zip(groups, steps.done, strict=True):
            group.search.penalties.pass_steps(1)
            loops = group.search.loops.looping(group.search.prefixes[:, 0], group.search.lengths)
            assert not loops or found & SOME_LOOP
            group.search.end_loops(done)
        return list(zip(steps.done, steps.failed, strict=True))


def draw(rng: np.random.Generator, shape: tuple[int, int], kinds: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Candidates, best first; of few different numbers, so that some are equal."""
    ids = np.stack([rng.permutation(np.arange(1, VOCABULARY))[: shape[1]] for _ in range(shape[0])])
    if "loop" in kinds:
        ids[:, 0] = 9
    values = -np.sort(rng.integers(0, 6, shape), axis=1).astype(np.float32) / 3
    if "none" in kinds:
        values[rng.random(shape[0]) < 0.01] = np.nan
    return ids.astype(np.int64), values


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32), st.lists(st.sampled_from([1, 2, 4, 5, MAX_BEAMS]), min_size=1, max_size=5), st.booleans(),
    st.booleans(), st.sampled_from(["", "loop", "none", "loop none"]),
)  # fmt: skip
def test_the_library_does_what_numpy_does(seed: int, widths: list[int], bans: bool, stops: bool, kinds: str) -> None:
    """From the first token to the last, for sentences of several widths, limits and length penalties together."""
    rng = np.random.default_rng(seed)
    options = [
        DecodeOptions(
            width, float(rng.choice([0, 0.6, 1, 2])), max_length=int(limit), min_length=int(min(least, limit))
        )
        for width, limit, least in zip(sorted(widths), rng.integers(1, SIZE, 5), rng.integers(0, 5, 5), strict=False)
    ]
    rules = DecodingRules(END, (BANNED,) if bans else (), stop_at_beams=stops)
    plain, fast = Plain(rules, options), Fast(rules, options)
    for number in range(SIZE):
        if not plain.decoder.batch.groups:
            break
        most = (search.num_candidates + search.penalties.num_more(search.lengths) for search in plain.searches)
        width = max(most) + bans
        ids, values = draw(rng, (plain.decoder.batch.num_rows, width), kinds)
        ended = []
        for each in (plain, fast):
            each.remember(number)
            ended.append(each.step(ids.copy(), values.copy()))
        wanted, got = ([[part.tolist() for part in group] for group in each] for each in ended)
        assert wanted == got
        failed = [failed for _, failed in ended[0]]
        done = [done[~bad] for (done, _), bad in zip(ended[0], failed, strict=True) if not bad.all()]
        for each in (plain, fast):
            each.drop(failed)  # what they hold is nothing to compare
        assert plain.state() == fast.state()
        for each in (plain, fast):
            each.drop(done)
            each.decoder.compact()
    assert not fast.decoder.batch.groups


def test_a_shape_holds_none_of_the_caches_memory() -> None:
    """A cache gives back what long sentences took, while shapes stay bound."""
    fast = Fast(DecodingRules(END), [DecodeOptions(2, max_length=3)])
    ids, values = np.array([[3, 4, 5, 6]] * 2), np.zeros((2, 4), np.float32)
    shape, held = fast.shape(ids, values), weakref.ref(fast.cache.memory["self"])
    UnchangedSteps(shape, fast.cache, list(fast.decoder.batch.groups.values()))
    for part in (fast.cache.memory, fast.cache.blocks, fast.cache.buffers):
        part.clear()
    assert shape.memory
    assert held() is None


def test_a_library_of_another_version_is_told_and_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its structures would be read with other fields."""
    library_calls.cache_clear()
    monkeypatch.setattr(unchanged_steps, "_Step", unchanged_steps.structure("Step", "num_rows", "groups"))
    try:
        assert library_calls() is None
        assert "another version" in caplog.text
    finally:
        library_calls.cache_clear()
