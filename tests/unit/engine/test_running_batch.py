"""Rows and slots: nobody shares one, nothing is lost when they move."""

from unittest.mock import Mock

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.decoding.options import DecodeOptions
from service.engine.request import Sentence
from service.engine.running_batch import NO_MOVES, Active, Group, RunningBatch


def member(beams: int) -> Active:
    sentence = Sentence((5, 2), DecodeOptions(num_beams=beams), 9, on_done=lambda _: None)
    return Active(sentence, 0.0, 0.0)


def search(beams: int) -> Mock:
    return Mock(num_beams=beams, num_candidates=2 * beams)


def test_the_first_child_keeps_its_parents_row() -> None:
    group = Group(search(4), [], np.array([[10, 11, 12, 13]]), np.array([0]))
    moves = RunningBatch.reorder(group, np.array([[0, 0, 1, 2]]))
    assert moves is not None
    assert group.rows.tolist() == [[10, 13, 11, 12]]
    assert (moves.sources.tolist(), moves.targets.tolist()) == ([10], [13])


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_after_a_reorder_every_beam_finds_its_parents_past(data: st.DataObject) -> None:
    n, beams = data.draw(st.integers(1, 4)), data.draw(st.integers(2, 6))
    rows = np.array(data.draw(st.permutations(range(n * beams)))).reshape(n, beams)
    numbers = st.lists(st.integers(0, beams - 1), min_size=beams, max_size=beams)
    parents = np.array([data.draw(numbers) for _ in range(n)])
    past = np.arange(n * beams)  # what each row holds
    wanted = past[np.take_along_axis(rows, parents, axis=1)]
    group = Group(search(beams), [], rows.copy(), np.arange(n))
    moves = RunningBatch.reorder(group, parents) or NO_MOVES
    assert not set(moves.sources) & set(moves.targets)
    past[moves.targets] = past[moves.sources]
    assert (past[group.rows] == wanted).all()
    assert sorted(group.rows.flat) == sorted(rows.flat)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([1, 2, 4]), st.integers(0, 3), st.randoms()), min_size=1, max_size=12))
def test_rows_and_slots_stay_a_gapless_front(steps: list[tuple[int, int, object]]) -> None:
    batch = RunningBatch(64)
    rows_hold, slots_hold = np.full(64, -1), np.full(64, -1)
    for beams, count, random in steps:
        for group_beams, group in list(batch.groups.items()):
            gone = np.array([random.random() < 0.4 for _ in group.members])  # type: ignore[attr-defined]
            if gone.any():
                batch.drop(group_beams, gone)
        members = [member(beams) for _ in range(count) if (count + 1) * beams <= 64 - batch.num_rows]
        if members:
            rows, slots = batch.add(search(beams), members)
            rows_hold[rows] = np.array([id(m) % 10**9 for m in members])[:, None]
            slots_hold[slots] = [id(m) % 10**9 for m in members]
        row_moves, slot_moves = batch.compact()
        rows_hold[row_moves.targets] = rows_hold[row_moves.sources]
        slots_hold[slot_moves.targets] = slots_hold[slot_moves.sources]
        used_rows = sorted(row for group in batch.groups.values() for row in group.rows.flat)
        used_slots = sorted(slot for group in batch.groups.values() for slot in group.slots)
        assert used_rows == list(range(batch.num_rows))
        assert used_slots == list(range(batch.num_sentences))
        for group in batch.groups.values():
            for place, one in enumerate(group.members):
                assert (rows_hold[group.rows[place]] == id(one) % 10**9).all()
                assert slots_hold[group.slots[place]] == id(one) % 10**9


def test_the_layout_pads_narrow_sentences_with_their_first_row() -> None:
    batch = RunningBatch(16)
    batch.add(search(1), [member(1)])
    batch.add(search(2), [member(2)])
    query_rows, row_queries = batch.layout(4)
    assert query_rows.tolist() == [0, 0, 0, 0, 1, 2, 1, 1]
    assert row_queries.tolist() == [0, 4, 5]
    assert query_rows[row_queries].tolist() == [0, 1, 2]
