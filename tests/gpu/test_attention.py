"""GroupQueryAttention as the decoder step uses it, against numpy: ragged rows, in place, and over a source's keys."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from export.graph_builder import CONTRIB, GraphBuilder
from export.weights_file import WeightsFile
from service.runtime.device_memory import Device, Part
from tests.gpu.test_operators import KINDS

Array = NDArray[Any]
HEADS, CAPACITY = 8, 64
# Nothing said yet, the last free place, and lengths around the kernels' blocks.
LENGTHS = np.array([0, 1, 31, 32, 33, 62, 63], np.int32)


class Attention:
    """One GroupQueryAttention over buffers of keys and values (R, H, CAPACITY, D), bound as a step binds them."""

    def __init__(self, folder: Path, kind: str, head_width: int, groups: int, brings_keys: bool) -> None:
        self.device, self.width, self.groups = Device(kind), head_width, groups
        rng = np.random.default_rng(2)
        shape = (len(LENGTHS), HEADS, CAPACITY, head_width)
        self.key, self.value = (rng.standard_normal(shape).astype(np.float16) for _ in "kv")
        parts = 3 if brings_keys else groups
        self.query = rng.standard_normal((len(LENGTHS), 1, parts * HEADS * head_width)).astype(np.float16)
        path = folder / "attention.onnx"
        path.write_bytes(self.graph(brings_keys))
        self.session = self.device.load(path, records=True)
        self.brings_keys = brings_keys

    def graph(self, brings_keys: bool) -> bytes:
        graph = GraphBuilder("attention", WeightsFile("none"))
        query = graph.input("query", np.float16, ["R", 1, self.query.shape[2]])
        no_keys = "" if brings_keys else graph.input("no_keys", np.float16, ["R", 0, HEADS * self.width])
        shape = ["R", HEADS, "C", self.width]
        past = [graph.input(f"past_{name}", np.float16, shape) for name in ("key", "value")]
        lengths, capacity = graph.input("lengths", np.int32, ["R"]), graph.input("capacity", np.int32, [])
        graph.ops(
            "GroupQueryAttention", query, no_keys, no_keys, *past, lengths, capacity,
            num_outputs=3, outputs=["context", "present_key", "present_value"], domain=CONTRIB,
            num_heads=HEADS * self.groups, kv_num_heads=HEADS,
        )  # fmt: skip
        graph.output("context", "context", np.float16, ["R", 1, HEADS * self.groups * self.width])
        for name in ("present_key", "present_value"):
            graph.output(name, name, np.float16, shape)
        data: bytes = graph.model().SerializeToString()
        return data

    def run(self) -> tuple[Array, Array, Array]:
        """Context (R, groups * H, D), and the buffers afterwards."""
        device, binding = self.device, self.session.io_binding()
        there = {
            name: ort.OrtValue.ortvalue_from_numpy(array.copy(), device.kind, 0)
            for name, array in (("key", self.key), ("value", self.value), ("query", self.query), ("lengths", LENGTHS))
        }
        for name in ("key", "value"):
            part = Part.of(device, there[name], np.float16)
            part.bind_input(binding, f"past_{name}")
            part.bind_output(binding, f"present_{name}")
        binding.bind_ortvalue_input("query", there["query"])
        binding.bind_ortvalue_input("lengths", there["lengths"])
        capacity = np.array([CAPACITY], np.int32)
        Part(Device("cpu"), capacity.ctypes.data, (), np.int32).bind_input(binding, "capacity")
        nothing = device.empty((1,), np.float16)
        if not self.brings_keys:
            empty = (len(LENGTHS), 0, HEADS * self.width)
            Part.of(device, nothing, np.float16).at(0, empty, np.float16).bind_input(binding, "no_keys")
        context = device.empty((len(LENGTHS), 1, HEADS * self.groups * self.width), np.float16)
        binding.bind_ortvalue_output("context", context)
        self.session.run_with_iobinding(binding)
        shape = (len(LENGTHS), HEADS * self.groups, self.width)
        return context.numpy().reshape(shape), np.array(there["key"].numpy()), np.array(there["value"].numpy())


def attended(query: Array, key: Array, value: Array) -> Array:
    """query (D,) over key and value (n, D), in float64."""
    scores = key.astype(float) @ query.astype(float) / np.sqrt(len(query))
    powers = np.exp(scores - scores.max())
    result: Array = powers / powers.sum() @ value.astype(float)
    return result


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head_width", [32, 64, 128])
def test_attention_over_what_was_said_appends_and_reads_each_rows_length(
    tmp_path: Path, kind: str, head_width: int
) -> None:
    attention = Attention(tmp_path, kind, head_width, groups=1, brings_keys=True)
    context, key, value = attention.run()
    query, new_key, new_value = attention.query.reshape(len(LENGTHS), 3, HEADS, head_width).transpose(1, 0, 2, 3)
    wanted_key, wanted_value = attention.key.copy(), attention.value.copy()
    for row, length in enumerate(LENGTHS):
        wanted_key[row, :, length], wanted_value[row, :, length] = new_key[row], new_value[row]
    assert (key == wanted_key).all()
    assert (value == wanted_value).all()
    for row, length in enumerate(LENGTHS):
        for head in range(HEADS):
            n = length + 1
            wanted = attended(query[row, head], wanted_key[row, head, :n], wanted_value[row, head, :n])
            assert np.abs(context[row, head] - wanted).max() < 0.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("groups", [1, 4, 16])
@pytest.mark.parametrize("head_width", [32, 64])
def test_attention_over_a_source_reads_its_length_and_changes_nothing(
    tmp_path: Path, kind: str, groups: int, head_width: int
) -> None:
    """A sentence's beams are groups of query heads over its one set of keys: head h of beam g is h * groups + g."""
    attention = Attention(tmp_path, kind, head_width, groups, brings_keys=False)
    context, key, value = attention.run()
    assert (key == attention.key).all()
    assert (value == attention.value).all()
    query = attention.query.reshape(len(LENGTHS), HEADS * groups, head_width)
    for row, less_1 in enumerate(LENGTHS):
        for head in range(HEADS * groups):
            n, of = less_1 + 1, head // groups
            wanted = attended(query[row, head], key[row, of, :n], value[row, of, :n])
            assert np.abs(context[row, head] - wanted).max() < 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_a_rows_neighbours_change_nothing(tmp_path: Path, kind: str) -> None:
    attention = Attention(tmp_path, kind, 64, groups=4, brings_keys=False)
    before = attention.run()[0].copy()
    attention.query[1:] = attention.query[1:][::-1]
    attention.key[1:], attention.value[1:] = 0, 1
    assert (attention.run()[0][0] == before[0]).all()
