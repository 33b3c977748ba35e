"""Small arrays on their way to a device, rows that move inside a block, and what is recorded."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import helper

from export.cache_graphs import move_graph, store_graph
from service.errors import BundleError
from service.runtime.bundle import Shape
from service.runtime.device_cache import Block, DeviceCache, DeviceSources, chunk_places, chunk_size
from service.runtime.device_memory import Device, Inbox
from service.runtime.device_session import DeviceDecoder, DeviceStep

SHAPE = Shape(vocab_size=40, model_width=8, num_heads=2, num_encoder_layers=1, num_decoder_layers=2)
ROWS, SOURCE, TARGET, CHUNK = 5, 6, 3, 2


@pytest.fixture(params=[np.float32, np.float16])
def cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DeviceCache:
    device, dtype = Device("cpu"), request.param
    monkeypatch.setattr("export.cache_graphs.CHUNK", CHUNK)
    (tmp_path / "move.onnx").write_bytes(move_graph(dtype, SHAPE.head_width).SerializeToString())
    (tmp_path / "store.onnx").write_bytes(store_graph(dtype, 2, SHAPE.head_width).SerializeToString())
    sessions = (device.load(tmp_path / "move.onnx"), device.load(tmp_path / "store.onnx"))
    made = DeviceCache(SHAPE, dtype, device, *sessions, (ROWS, SOURCE, TARGET))
    for block in made.blocks.values():
        numbers = np.arange(np.prod(block.shape)).reshape(block.shape) % 1000
        array_of(block)[:] = numbers
    return made


def array_of(block: Block) -> NDArray[Any]:
    """The block's memory itself, which is the host's here."""
    return block.memory.host.view(block.dtype).reshape(block.shape)


def test_an_inbox_carries_every_array_to_an_aligned_place_of_its_own() -> None:
    fields = {"a": ((3,), np.int64), "b": ((5,), np.int32), "c": ((65,), np.int64)}
    inbox = Inbox(Device("cpu"), fields)  # type: ignore[arg-type]
    for number, name in enumerate(fields):
        inbox.arrays[name][:] = 10 * number + np.arange(len(inbox.arrays[name]))
    inbox.send()
    there = np.array(inbox.there.numpy()).view(np.uint8)
    for number, name in enumerate(fields):
        part = inbox.parts[name]
        offset = part.address - inbox.there.data_ptr()
        assert offset % 256 == 0
        size = part.shape[0] * np.dtype(part.dtype).itemsize
        found = there[offset : offset + size].view(part.dtype)
        assert (found == 10 * number + np.arange(part.shape[0])).all()


def test_the_chunks_of_an_item_are_as_many_as_its_positions_need() -> None:
    assert chunk_places(np.array([3, 0, 1]), np.array([40, 5, 0]), 32, 4).tolist() == [12, 13, 0]


def test_capacities_are_whole_chunks(cache: DeviceCache) -> None:
    assert (cache.source_capacity, cache.target_capacity) == (6, 4)
    assert cache.blocks["self"].shape == (4 * ROWS, 2, 4, 4)


def by_layer(cache: DeviceCache, kind: str) -> NDArray[Any]:
    """(2 L, ROWS, H, capacity, D)"""
    block = cache.blocks[kind]
    return array_of(block).reshape(4, ROWS, *block.shape[1:]).copy()


def test_rows_move_in_place_in_every_layer_as_far_as_they_reach(
    cache: DeviceCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.runtime.device_cache.MAX_MOVED_NUMBERS", 64)  # one chunk at a time
    before = by_layer(cache, "self")
    cache.lengths[:] = [1, 2, 3, 1, 2]
    cache.copy_rows(np.array([2, 0]), np.array([1, 4]))
    wanted = before.copy()
    wanted[:, 1] = wanted[:, 2]  # 3 positions are 2 chunks of 2
    wanted[:, 4, :, :2] = wanted[:, 0, :, :2]  # 1 position is 1 chunk
    assert (by_layer(cache, "self") == wanted).all()
    assert cache.lengths.tolist() == [1, 3, 3, 1, 1]


@pytest.mark.parametrize("padded", [3, 4])
def test_sources_are_stored_for_the_chosen_sentences_and_move(cache: DeviceCache, padded: int) -> None:
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal((3, 2, padded, 4)).astype(cache.dtype) for _ in range(4)]
    sources = DeviceSources([ort.OrtValue.ortvalue_from_numpy(array) for array in arrays])
    before = by_layer(cache, "cross")
    cache.write_sources(np.array([4, 1]), sources, np.array([0, 2]), np.array([3, 2]))
    cache.move_sentence(4, 0)
    after = by_layer(cache, "cross")
    for i, array in enumerate(arrays):
        assert (after[i, 4, :, :3] == array[0, :, :3]).all()
        assert (after[i, 1, :, :2] == array[2, :, :2]).all()
        assert (after[i, 0, :, :4] == after[i, 4, :, :4]).all()
    # Nothing is written where no source of that length reaches.
    assert (after[:, [0, 4], :, 4:] == before[:, [0, 4], :, 4:]).all()
    assert (after[:, 1, :, 2:] == before[:, 1, :, 2:]).all()
    assert (after[:, [2, 3]] == before[:, [2, 3]]).all()
    assert cache.source_lengths_less_1.tolist() == [2, 1, 0, 0, 2]
    with pytest.raises(RuntimeError, match="This is a bug"):
        cache.reserve_source(SOURCE + 1, 1)


def test_graphs_of_an_older_form_are_refused(tmp_path: Path) -> None:
    block = helper.make_tensor_value_info("block", 10, ["P", "H", "C", "D"])
    result = helper.make_tensor_value_info("result", 10, ["P", "H", "C", "D"])
    graph = helper.make_graph([helper.make_node("Identity", ["block"], ["result"])], "store", [block], [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    (tmp_path / "store.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="make them again"):
        chunk_size(Device("cpu").load(tmp_path / "store.onnx"), 4)


def test_only_steps_with_the_usual_candidates_are_recorded_one_for_each_bucket(cache: DeviceCache) -> None:
    decoder = DeviceDecoder.__new__(DeviceDecoder)
    decoder.shape, decoder.num_beams, decoder.num_banned = SHAPE, 4, 0
    assert [decoder.candidates_for(n) for n in (1, 8, 9, 17, 33)] == [8, 8, 16, 32, 40]
    step = DeviceStep(decoder, cache)
    cache.device = Device("cuda", records=True)
    numbers = []
    for bucket, num_candidates in [(1, 8), (4, 8), (4, 16), (1, 8)]:
        step.bucket = bucket
        numbers.append(step.graph_number(num_candidates))
    assert numbers == [1, 3, -1, 1]
    cache.device = Device("cpu")
    assert step.graph_number(8) == -1


def test_banned_tokens_are_no_reason_not_to_record() -> None:
    """Each needs a candidate more than the search, in every step."""
    decoder = DeviceDecoder.__new__(DeviceDecoder)
    decoder.shape, decoder.num_beams, decoder.num_banned = SHAPE, 4, 1
    assert [decoder.candidates_for(n) for n in (8, 9, 10)] == [9, 9, 18]
    assert decoder.usual_candidates == 9


def test_what_was_given_back_is_given_back_once(monkeypatch: pytest.MonkeyPatch) -> None:
    given_back: list[int] = []
    monkeypatch.setattr("service.runtime.gpu.allocate", lambda num_bytes: num_bytes)
    monkeypatch.setattr("service.runtime.gpu.give_back", given_back.append)
    memory = Device("cuda").reserve(4096)
    assert (memory.address, memory.num_bytes) == (4096, 4096)
    memory.release()
    memory.release()
    assert given_back == [4096]


def test_a_file_that_is_no_graph_is_named(tmp_path: Path) -> None:
    (tmp_path / "move.onnx").write_bytes(b"nothing")
    with pytest.raises(BundleError, match=r"move\.onnx cannot be loaded"):
        Device("cpu").load(tmp_path / "move.onnx")
