"""How much memory keys and values take, when it is given back, and how many bound shapes there are."""

from unittest.mock import Mock

import numpy as np
import pytest

from service.runtime import session
from service.runtime.bundle import Shape
from service.runtime.kv_cache import (
    FIRST_CAPACITY,
    RESTS_BEFORE_SHRINKING,
    USUAL_CAPACITY,
    EncodedSources,
    KVCache,
)
from service.runtime.session import MAX_SHAPES, StepBinding

SHAPE = Shape(vocab_size=100, model_width=8, num_heads=2, num_encoder_layers=1, num_decoder_layers=3)
ROWS, SENTENCES, SOURCE, TARGET = 5, 4, 200, 300
POSITION = 2 * 3 * 8  # numbers of one position: keys and values of three layers


def cache(dtype: type[np.generic] = np.float32) -> KVCache:
    return KVCache(SHAPE, ROWS, SENTENCES, SOURCE, TARGET, dtype)


def held_bytes(held: KVCache) -> int:
    return sum(block.nbytes for block in held.memory.values())


@pytest.mark.parametrize(("dtype", "size"), [(np.float32, 4), (np.int8, 1)])
def test_the_most_it_can_take_is_told_in_advance_and_taken(dtype: type[np.generic], size: int) -> None:
    held = cache(dtype)
    assert held.max_bytes == (ROWS * TARGET + SENTENCES * SOURCE) * POSITION * size
    for length in range(1, TARGET + 1):
        held.reserve_target(length, ROWS)
        held.reserve_source(min(length, SOURCE), SENTENCES)
        assert held_bytes(held) <= held.max_bytes
    assert (held.target_capacity, held.source_capacity) == (TARGET, SOURCE)
    assert held_bytes(held) == held.max_bytes


def test_no_more_than_the_limits_is_given() -> None:
    for reserve in (cache().reserve_target, cache().reserve_source):
        with pytest.raises(RuntimeError, match="301 positions were asked of a cache of at most"):
            reserve(TARGET + 1, 1)


@pytest.mark.parametrize("kind", ["target", "source"])
def test_memory_for_long_texts_is_given_back_at_rest(kind: str) -> None:
    held = cache()
    usual = held_bytes(held)
    assert usual == (ROWS + SENTENCES) * USUAL_CAPACITY * POSITION * 4
    getattr(held, f"reserve_{kind}")(USUAL_CAPACITY + 1, 1)
    long = held_bytes(held)
    assert long > usual
    held.reset()
    for rest in range(RESTS_BEFORE_SHRINKING):
        assert held_bytes(held) == long, f"after {rest} rests another long text may come"
        held.reset()
    assert held_bytes(held) == usual
    assert (held.target_capacity, held.source_capacity) == (FIRST_CAPACITY, FIRST_CAPACITY)


def test_memory_for_usual_texts_stays() -> None:
    held = cache()
    memory = {kind: block.ctypes.data for kind, block in held.memory.items()}
    held.reserve_target(USUAL_CAPACITY, 1)
    held.reserve_source(USUAL_CAPACITY, 1)
    held.reset()
    assert {kind: block.ctypes.data for kind, block in held.memory.items()} == memory


def test_what_rows_and_sentences_hold_outlives_growing() -> None:
    held, count = cache(), 3
    held.lengths[:count] = FIRST_CAPACITY
    random = np.random.default_rng(1)
    for block in held.blocks.values():
        block[...] = random.random(block.shape, np.float32)
    before = {name: buffer[:count].copy() for name, buffer in held.buffers.items()}
    held.reserve_target(FIRST_CAPACITY + 1, count)
    held.reserve_source(FIRST_CAPACITY + 9, count)
    assert held.buffers.keys() == before.keys()
    for name, wanted in before.items():
        assert (held.buffers[name][:count, :, :FIRST_CAPACITY] == wanted).all(), name


@pytest.mark.parametrize("places", [[1, 2], [3, 0]])
def test_chosen_sources_are_stored_where_they_are_wanted(places: list[int]) -> None:
    held = cache()
    arrays = [np.full((3, 2, 6, 4), layer, np.float32) + np.arange(3).reshape(3, 1, 1, 1) / 10 for layer in range(3)]
    values = [array + 100 for array in arrays]
    encoded = EncodedSources(list(arrays), list(values))
    held.write_sources(np.array(places), encoded, np.array([2, 0]), np.array([6, 4]))
    assert held.source_lengths_less_1[places].tolist() == [5, 3]
    for layer in range(3):
        for part, added in (("key", 0), ("value", 100)):
            stored = held.buffers[f"cross_{part}_{layer}"][places, :, :6]
            wanted = np.array([0.2, 0.0]).reshape(2, 1, 1, 1) + layer + added
            assert np.allclose(stored, np.broadcast_to(wanted, stored.shape)), (part, layer)


def filled() -> KVCache:
    """With other numbers at every place."""
    held = cache()
    for start, block in enumerate(held.blocks.values()):
        block[...] = np.arange(start, start + block.size).reshape(block.shape)
    return held


def test_rows_are_copied_with_all_their_positions() -> None:
    held = filled()
    held.lengths[:2] = 3, 5
    before = {name: buffer.copy() for name, buffer in held.buffers.items() if name.startswith("self")}
    held.copy_rows(np.array([0, 1]), np.array([3, 2]))
    assert held.lengths.tolist() == [3, 5, 5, 3, 0]
    assert len(before) == 6
    for name, was in before.items():
        for source, target in ((0, 3), (1, 2)):
            length = held.lengths[source]
            assert (held.buffers[name][target, :, :length] == was[source, :, :length]).all(), name


def test_a_sentence_moves_with_all_its_positions() -> None:
    held = filled()
    held.source_lengths_less_1[2] = 6
    before = {name: buffer.copy() for name, buffer in held.buffers.items() if name.startswith("cross")}
    held.move_sentence(2, 0)
    assert held.source_lengths_less_1[0] == 6
    assert len(before) == 6
    for name, was in before.items():
        assert (held.buffers[name][0, :, :7] == was[2, :, :7]).all(), name


def test_the_last_shapes_stay_bound_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    held = cache()
    monkeypatch.setattr(session, "BoundShape", Mock(side_effect=lambda *_: Mock()))
    decoder = Mock()
    binding = StepBinding(decoder, held)
    shapes = [binding.bound(decoder, num_rows, 1, 2) for num_rows in range(MAX_SHAPES + 5)]
    assert len(binding.shapes) == MAX_SHAPES
    assert [binding.bound(decoder, 5 + number, 1, 2) for number in range(MAX_SHAPES)] == shapes[5:]
    held.reserve_target(FIRST_CAPACITY + 1, 1)
    wider = binding.bound(decoder, MAX_SHAPES, 1, 2)
    assert wider is not shapes[MAX_SHAPES], "its rows lie elsewhere"
    held.reset()
    assert binding.bound(decoder, MAX_SHAPES, 1, 2) is shapes[MAX_SHAPES], "they lie there again"
    held.reserve_target(USUAL_CAPACITY + 1, 1)
    held.reset()
    assert binding.bound(decoder, MAX_SHAPES, 1, 2) is not shapes[MAX_SHAPES], "it was bound to memory that is gone"
    assert len(binding.shapes) == 1
