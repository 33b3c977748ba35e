"""Small arrays on their way to a device, rows that move inside a block, and what is recorded."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from export.cache_graphs import move_graph, store_graph
from service.errors import BundleError
from service.runtime.bundle import Shape
from service.runtime.device_cache import DeviceCache, DeviceSources
from service.runtime.device_memory import Device, Inbox
from service.runtime.device_session import DeviceDecoder, DeviceStep

SHAPE = Shape(vocab_size=40, model_width=8, num_heads=2, num_encoder_layers=1, num_decoder_layers=2)
ROWS, SOURCE, TARGET = 5, 6, 3


@pytest.fixture(params=[np.float32, np.float16])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> DeviceCache:
    device, dtype = Device("cpu"), request.param
    (tmp_path / "move.onnx").write_bytes(move_graph(dtype).SerializeToString())
    (tmp_path / "store.onnx").write_bytes(store_graph(dtype, 2).SerializeToString())
    sessions = (device.load(tmp_path / "move.onnx"), device.load(tmp_path / "store.onnx"))
    made = DeviceCache(SHAPE, dtype, device, *sessions, (ROWS, SOURCE, TARGET))
    for block in made.blocks.values():
        numbers = np.arange(np.prod(block.shape)).reshape(block.shape) % 1000
        block.there.update_inplace(numbers.astype(dtype))
    return made


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


def test_rows_move_in_place_in_every_layer(cache: DeviceCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.runtime.device_cache.MAX_MOVED_NUMBERS", 50)  # two places at a time
    block = cache.blocks["self"]
    before, address = np.array(block.there.numpy()), block.there.data_ptr()
    cache.lengths[:] = [1, 2, 3, 1, 2]
    cache.copy_rows(np.array([2, 0]), np.array([1, 4]))
    wanted = before.reshape(4, ROWS, *block.shape[1:]).copy()
    wanted[:, [1, 4]] = wanted[:, [2, 0]]
    assert (np.array(block.there.numpy()).reshape(wanted.shape) == wanted).all()
    assert block.there.data_ptr() == address
    assert cache.lengths.tolist() == [1, 3, 3, 1, 1]


def test_sources_are_stored_for_the_chosen_sentences_and_move(cache: DeviceCache) -> None:
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal((3, 2, 4, 4)).astype(cache.dtype) for _ in range(4)]
    sources = DeviceSources([ort.OrtValue.ortvalue_from_numpy(array) for array in arrays])
    block = cache.blocks["cross"]
    before = np.array(block.there.numpy()).reshape(4, ROWS, 2, SOURCE, 4)
    cache.write_sources(np.array([4, 1]), sources, np.array([0, 2]), np.array([4, 2]))
    cache.move_sentence(4, 0)
    after = np.array(block.there.numpy()).reshape(before.shape)
    for i, array in enumerate(arrays):
        assert (after[i, 4, :, :4] == array[0]).all()
        assert (after[i, 1, :, :4] == array[2]).all()
        assert (after[i, 0] == after[i, 4]).all()
    assert (after[:, [2, 3]] == before[:, [2, 3]]).all()
    assert cache.source_lengths_less_1.tolist() == [3, 1, 0, 0, 3]
    with pytest.raises(RuntimeError, match="This is a bug"):
        cache.reserve_source(SOURCE + 1, 1)


def test_only_steps_with_the_usual_candidates_are_recorded_one_for_each_bucket(cache: DeviceCache) -> None:
    decoder = DeviceDecoder.__new__(DeviceDecoder)
    decoder.shape, decoder.num_beams = SHAPE, 4
    assert [decoder.candidates_for(n) for n in (1, 8, 9, 17, 33)] == [8, 8, 16, 32, 40]
    step = DeviceStep(decoder, cache)
    cache.device = Device("cuda", records=True)
    seen = []
    for bucket, num_candidates in [(1, 8), (4, 8), (4, 8), (4, 16), (1, 8)]:
        step.bucket = bucket
        number = step.run_options(num_candidates).get_run_config_entry("gpu_graph_id")
        seen.append((number, step.was_replayed))
    assert seen == [("1", False), ("3", False), ("3", True), ("-1", False), ("1", True)]
    cache.device = Device("cpu")
    assert step.run_options(8).get_run_config_entry("gpu_graph_id") == "-1"


def test_a_file_that_is_no_graph_is_named(tmp_path: Path) -> None:
    (tmp_path / "move.onnx").write_bytes(b"nothing")
    with pytest.raises(BundleError, match=r"move\.onnx cannot be loaded"):
        Device("cpu").load(tmp_path / "move.onnx")
