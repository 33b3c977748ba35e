"""Graphs for CUDA, as far as they can be checked without a GPU: every node has a kernel, nothing is copied on the way,
and what the CPU provider computes of them is the PyTorch model."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from export.graph_runner import GraphRunner
from export.graphs import DecoderStep, encoder_graph, score_graph
from export.matrices import Float16, Float32, Matrices
from export.verify import verify
from export.weights_file import WeightsFile
from export.write_bundle import state_arrays
from model.transformer import Transformer
from service.runtime.bundle import Bundle
from tests.conftest import END, random_model
from tests.unit.export.cuda_kernels import KERNELS, ON_HOST

TYPE_NAMES = {
    TensorProto.FLOAT16: "float16",
    TensorProto.FLOAT: "float",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
    TensorProto.BOOL: "bool",
}


def types_of(graph: onnx.GraphProto) -> dict[str, str]:
    """The type of every value, by name."""
    types = {value.name: TYPE_NAMES[value.type.tensor_type.elem_type] for value in graph.input}
    types |= {tensor.name: TYPE_NAMES[tensor.data_type] for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Cast":
            kinds = [TYPE_NAMES[onnx.helper.get_node_attr_value(node, "to")]]
        elif node.op_type in ("Shape", "NonZero"):
            kinds = ["int64"]
        elif node.op_type == "Less":
            kinds = ["bool"]
        elif node.op_type == "TopK":
            kinds = [types[node.input[0]], "int64"]
        else:
            first = 1 if node.op_type == "Where" else 0
            kinds = [types[node.input[first]]] * len(node.output)
        types |= dict(zip(node.output, kinds, strict=True))
    return types


def without_kernel(model: onnx.ModelProto) -> Iterator[str]:
    """What CUDA cannot compute, in words."""
    types = types_of(model.graph)
    for node in model.graph.node:
        known = KERNELS.get(node.op_type)
        if known is None:
            yield f"{node.name}: no kernel"
            continue
        for place, name in enumerate(node.input):
            allowed = known[min(place, len(known) - 1)]
            if name and types[name] not in allowed:
                yield f"{node.name}: input {place} is {types[name]}, kernels are for {sorted(allowed)}"
        floats = {types[name] for name in node.input if name and types[name] in ("float", "float16")}
        if len(floats) > 1:
            yield f"{node.name}: mixes {sorted(floats)}"


def copied_to_host(model: onnx.ModelProto) -> Iterator[str]:
    """Inputs read on the host that a node computes: each would wait for the device, and no CUDA graph may."""
    computed = {name for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        for place in ON_HOST.get(node.op_type, ()):
            if place < len(node.input) and node.input[place] in computed:
                yield f"{node.name}: input {place}"


def graphs_of(model: Transformer, matrices: Matrices) -> dict[str, onnx.ModelProto]:
    parts, weights = (model.config, state_arrays(model)), WeightsFile("weights.bin")
    graphs = {"encoder": encoder_graph(parts, matrices, weights), "score": score_graph(parts, matrices, weights)}
    return graphs | {f"decoder-{k}": DecoderStep(parts, matrices, weights, k).build() for k in (1, 4)}


@pytest.fixture(scope="module")
def half_bundle(make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("half") / "bundle"
    return make_bundle(random_model(), folder, precisions=("cuda-fp16",))


@pytest.mark.parametrize(
    "changes",
    [
        {"norm": "pre", "activation": "relu"},
        {"norm": "post", "activation": "silu", "tie_embeddings": True},
        {"norm": "pre", "activation": "gelu", "scale_embeddings": False, "output_bias": False},
    ],
)
def test_every_node_has_a_cuda_kernel(changes: dict[str, object]) -> None:
    for name, graph in graphs_of(random_model(vocab_size=8000, **changes), Float16()).items():
        assert list(without_kernel(graph)) == [], name


def test_the_bundle_has_only_nodes_with_kernels_and_a_step_copies_nothing(half_bundle: Path) -> None:
    bundle = Bundle.open(half_bundle)
    graphs = bundle.graphs("cuda-fp16")
    assert {"cuda-fp16/move.onnx", "cuda-fp16/store.onnx"} < graphs.files
    for name in graphs.files - {graphs.weights}:
        model = onnx.load(str(bundle.path(name)), load_external_data=False)
        assert list(without_kernel(model)) == [], name
        if name not in (graphs.encoder, graphs.score):
            assert list(copied_to_host(model)) == [], name
            assert not any(node.op_type == "Shape" for node in model.graph.node), name


def test_the_check_finds_what_cuda_cannot_compute() -> None:
    class Unfused(Float32):
        fuses = False

    single = graphs_of(random_model(vocab_size=8000), Unfused())
    assert any("GroupQueryAttention" in words for words in without_kernel(single["decoder-1"]))
    assert any("TopK" in words for words in copied_to_host(single["decoder-1"]))


def test_half_is_the_pytorch_model_on_the_cpu(half_bundle: Path) -> None:
    bundle = Bundle.open(half_bundle)
    runner = GraphRunner(bundle.root, bundle.graphs("cuda-fp16"), bundle.manifest.shape, start=1)
    assert runner.dtype == np.float16
    report = verify(random_model(), runner, END, exact=False)
    assert 0 < report.step_difference < 0.05
