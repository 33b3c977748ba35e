"""The matrix products of a decoder step and nothing else: what the step would cost if everything around them were free.

Knows: which products a decoder graph holds. Does not know: what they mean.

Rounding what is multiplied is not counted: it belongs to "everything around". Numbers are such that a processor without
instructions for bytes multiplies them as fast as any (export/byte_products.py), none of them zero.
"""

import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto

from export import fused
from export.chain import nodes_of
from export.graph_builder import GraphBuilder
from export.weights_file import WeightsFile
from service.runtime.session import load_session


class Product(NamedTuple):
    """(rows, inner) times a weight (inner, columns), in float32 or in 8 bits."""

    inner: int
    columns: int
    is_int8: bool


def products_of(decoder: Path) -> list[Product]:
    """Every product with a weight in the graph; the weight may be transposed first.

    Raises:
        ValueError: it has none.
    """
    model = onnx.load(str(decoder), load_external_data=False)
    nodes = nodes_of(model)
    weights = {tensor.name: tensor for tensor in model.graph.initializer if len(tensor.dims) == 2}
    transposes = [node for node in nodes if node.op_type == "Transpose" and node.input[0] in weights]
    turned = {node.output[0]: weights[node.input[0]] for node in transposes}
    found = []
    for node in nodes:
        if not any(kind in node.op_type for kind in ("MatMul", "Gemm", "Product")):
            continue
        for name in node.input[1:2]:
            tensor = weights.get(name) or turned.get(name)
            if tensor is not None:
                inner, columns = tensor.dims if name in weights else reversed(tensor.dims)
                found.append(Product(int(inner), int(columns), tensor.data_type == TensorProto.INT8))
    if not found:
        raise ValueError(f"{decoder} has no product with a weight")
    return found


def products_graph(products: list[Product]) -> onnx.ModelProto:
    """A graph with one input for each width and kind, and one output for each product; of the operators of a step."""
    rng = np.random.default_rng(1)
    graph = GraphBuilder("products", WeightsFile("none"))
    rounding = graph.constant(0.01, np.float32), graph.constant(128, np.uint8)

    inputs: dict[str, str] = {}
    for i, product in enumerate(products):
        kind, dtype = ("u8", np.uint8) if product.is_int8 else ("f32", np.float32)
        name = f"{kind}_{product.inner}"
        x = inputs.get(name) or inputs.setdefault(name, graph.input(name, dtype, ["R", product.inner]))
        shape = (product.inner, product.columns)
        if product.is_int8:
            numbers = graph.weight(f"w{i}", rng.integers(-63, 64, shape, np.int8), is_inside=True)
            scales, bias = (
                graph.weight(f"{part}{i}", rng.random(product.columns, np.float32), is_inside=True)
                for part in ("scales", "bias")
            )
            y = fused.product(graph, x, rounding, fused.Columns(product.inner, numbers, scales, bias), None)
        else:
            y = graph.op("MatMul", x, graph.weight(f"w{i}", rng.standard_normal(shape, np.float32), is_inside=True))
        graph.output(y, f"y{i}", np.float32, ["R", product.columns])
    return graph.model()


class Products:
    """The products of a decoder graph, ready to run with any number of rows."""

    def __init__(self, decoder: Path, num_threads: int) -> None:
        self.products = products_of(decoder)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "products.onnx"
            onnx.save(products_graph(self.products), str(path))
            self.session = load_session(path, num_threads)

    def bind(self, num_rows: int) -> ort.IOBinding:
        rng = np.random.default_rng(2)
        binding = self.session.io_binding()
        for value in self.session.get_inputs():
            shape = (num_rows, value.shape[1])
            is_int8 = value.type == "tensor(uint8)"
            x = rng.integers(65, 193, shape, np.uint8) if is_int8 else rng.standard_normal(shape, np.float32)
            binding.bind_cpu_input(value.name, x)
        for product, value in zip(self.products, self.session.get_outputs(), strict=True):
            y = np.empty((num_rows, product.columns), np.float32)
            binding.bind_ortvalue_output(value.name, ort.OrtValue.ortvalue_from_numpy(y))
        return binding

    def times_s(self, num_rows: int, repeats: int) -> list[float]:
        """Seconds of each of ``repeats`` runs, after one that is not counted."""
        binding = self.bind(num_rows)
        times = []
        for _ in range(repeats + 1):
            started = time.perf_counter()
            self.session.run_with_iobinding(binding)
            times.append(time.perf_counter() - started)
        return times[1:]
