"""Matrix products as ONNX operators, in float32, int8 or float16.

Knows: how each precision stores and multiplies matrices, and which operators are fast and exact on ONNX Runtime. Does
not know: the parts of a model (layers.py). Dimension key: model/transformer.py. Here R is the number of rows of a step.

int8: weights are signed, one scale per output column; activations unsigned, with a scale fixed by calibration or
**one per row**, so that no row's result depends on its neighbours; the products are summed in integers, where order
does not matter.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from export import fused
from export.byte_products import LIMIT, SMALLEST_SCALE, column_scales
from export.calibrate import OUTPUT
from export.graph_builder import CONTRIB, GraphBuilder
from export.input_scales import InputScale

Array = NDArray[np.generic]


class Linear(NamedTuple):
    """A linear layer, or several side by side, whose names are joined by ``+``. weight (K, M_out), bias (M_out,)."""

    name: str
    weight: Array
    bias: Array


class Matrices(Protocol):
    """How a precision stores and multiplies matrices."""

    dtype: type[np.floating[Any]]
    """What states between the products are numbers of."""
    cache_dtype: type[np.generic]
    """What the caches of keys and values hold."""
    candidate_blocks: bool
    """Whether the best candidates are found faster block by block (candidates.py)."""

    def linear(self, graph: GraphBuilder, x: str, layer: Linear, then: fused.Rounding | None = None) -> str:
        """x (N, K) times the layer's weight, plus its bias: (N, M_out), rounded by ``then`` or not."""

    def gather(self, graph: GraphBuilder, ids: str, table: Array, name: str) -> str:
        """Rows ``ids`` (N,) of an embedding (V, M): (N, M) float32."""

    def table(self, graph: GraphBuilder, table: Array, name: str) -> list[str]:
        """An embedding (V, M) as it is stored: its numbers, and with 8 bits their scales (V,)."""

    def transposed(self, graph: GraphBuilder, x: str, table: Array, name: str) -> str:
        """x (N, M) times the transpose of an embedding (V, M): logits (N, V)."""

    def clips_negative(self, name: str) -> bool:
        """Whether product ``name`` takes negative inputs for 0 anyway."""

    def cache_scale(self, name: str) -> float | None:
        """The scale of what layer ``name`` puts into the cache; None where that is kept as it is."""

    fuses: bool
    """Whether service/runtime/kernels has operators for these numbers."""

    def rounding(self, graph: GraphBuilder, name: str) -> fused.Rounding | None:
        """How product ``name`` rounds its input before anything else; None where it does not."""

    def keep_rounded(self, graph: GraphBuilder, x: str, rounding: fused.Rounding, result: str) -> None:
        """``result`` is ``x`` rounded, which products of ``x`` read from now on; then nothing need make ``x``."""


def rounded_name(x: str, rounding: fused.Rounding) -> str:
    """Under which a graph shares ``x`` rounded among the products that read it."""
    return f"{x} rounded by {rounding[0]} around {rounding[1]}"


class Plain:
    """What most precisions have in common."""

    dtype: type[np.floating[Any]] = np.float32
    cache_dtype: type[np.generic] = np.float32
    candidate_blocks = True
    fuses = True

    def rounding(self, graph: GraphBuilder, name: str) -> fused.Rounding | None:
        return None

    def keep_rounded(self, graph: GraphBuilder, x: str, rounding: fused.Rounding, result: str) -> None:
        graph.shared[rounded_name(x, rounding)] = result

    def clips_negative(self, name: str) -> bool:
        return False

    def cache_scale(self, name: str) -> float | None:
        return None


class Float32(Plain):
    """Matrices as they were trained."""

    def linear(self, graph: GraphBuilder, x: str, layer: Linear, then: fused.Rounding | None = None) -> str:
        product = graph.op("MatMul", x, graph.weight(f"{layer.name}.weight", layer.weight))
        product = graph.op("Add", product, graph.weight(f"{layer.name}.bias", layer.bias))
        return fused.rounded(graph, product, then or ())

    def table(self, graph: GraphBuilder, table: Array, name: str) -> list[str]:
        return [graph.weight(f"{name}.weight", table)]

    def gather(self, graph: GraphBuilder, ids: str, table: Array, name: str) -> str:
        return graph.op("Gather", *self.table(graph, table, name), ids)

    def transposed(self, graph: GraphBuilder, x: str, table: Array, name: str) -> str:
        columns = graph.op("Transpose", graph.weight(f"{name}.weight", table), perm=[1, 0])
        return graph.op("MatMul", x, columns)


class Float16(Float32):
    """Half the bytes, for CUDA. Sums inside a product, a norm or a softmax are float32 in its kernels anyway.

    The logits are a float32 product: rounded to 16 bits, of two tokens that are nearly equal either could win. What
    they are made of has 11 significant bits, which TF32 units multiply exactly, so the product costs no more time.
    """

    dtype = np.float16
    cache_dtype: type[np.generic] = np.float16
    fuses = False
    # TopK reads its count on the host; there it may come from the caller, but not from a node that CUDA runs.
    candidate_blocks = False

    def linear(self, graph: GraphBuilder, x: str, layer: Linear, then: fused.Rounding | None = None) -> str:
        if layer.name == OUTPUT:
            return super().linear(graph, graph.op("Cast", x, to=TensorProto.FLOAT), layer, then)
        half = Linear(layer.name, layer.weight.astype(np.float16), layer.bias.astype(np.float16))
        return super().linear(graph, x, half, then)

    def transposed(self, graph: GraphBuilder, x: str, table: Array, name: str) -> str:
        return super().transposed(graph, graph.op("Cast", x, to=TensorProto.FLOAT), table, name)


class PerRowInt8(Plain):
    """8-bit weights and activations; about a quarter of the bytes and of the time of float32."""

    def quantize(self, weight: Array) -> tuple[Array, Array]:
        """Symmetric, by column: (K, N) float32 -> int8 in [-127, 127] and (N,) scales."""
        limit = np.abs(weight).max(axis=0)
        scale = np.maximum(limit, SMALLEST_SCALE).astype(np.float32) / np.float32(LIMIT)
        return np.clip(np.rint(weight / scale), -LIMIT, LIMIT).astype(np.int8), scale

    def multiply(self, graph: GraphBuilder, x: str, columns: str, scales: str) -> str:
        # An all-zero row has scale 0: whatever its quotients 0 / 0 round to, the product is multiplied by 0 again.
        limit = graph.op("ReduceMax", graph.op("Abs", x), graph.constant([-1], np.int64), keepdims=1)
        scale = graph.op("Mul", limit, graph.constant(1 / 127, np.float32))  # (N, 1), or (R, 1, 1)
        flat = graph.reshape(scale, [-1])
        rounded = graph.op("QuantizeLinear", x, flat, self.centres(graph, flat), axis=0)
        one, zero_point = graph.constant(1.0, np.float32), graph.constant(128, np.uint8)
        product = graph.op("MatMulIntegerToFloat", rounded, columns, one, scales, zero_point, domain=CONTRIB)
        return graph.op("Mul", product, scale)

    def centres(self, graph: GraphBuilder, rows: str) -> str:
        """The zero point 128 once for each row; all products of a graph have the same rows, so it is made once."""
        if "centres" not in graph.shared:
            graph.shared["centres"] = graph.op("Expand", graph.constant([128], np.uint8), graph.op("Shape", rows))
        return graph.shared["centres"]

    def linear(self, graph: GraphBuilder, x: str, layer: Linear, then: fused.Rounding | None = None) -> str:
        rounded, scale = self.quantize(layer.weight)
        columns, scales = graph.weight(f"{layer.name}.int8", rounded), graph.weight(f"{layer.name}.scale", scale)
        product = self.multiply(graph, x, columns, scales)
        product = graph.op("Add", product, graph.weight(f"{layer.name}.bias", layer.bias))
        return fused.rounded(graph, product, then or ())

    def table(self, graph: GraphBuilder, table: Array, name: str) -> list[str]:
        rounded, scale = self.quantize(table.T)
        return [graph.weight(f"{name}.int8", np.ascontiguousarray(rounded.T)), graph.weight(f"{name}.scale", scale)]

    def gather(self, graph: GraphBuilder, ids: str, table: Array, name: str) -> str:
        rows, scales = (graph.op("Gather", stored, ids) for stored in self.table(graph, table, name))
        return graph.op("DequantizeLinear", rows, scales, axis=0)

    def transposed(self, graph: GraphBuilder, x: str, table: Array, name: str) -> str:
        rows, scales = self.table(graph, table, name)
        columns = graph.op("Transpose", rows, perm=[1, 0])  # folded when the session is made
        return self.multiply(graph, x, columns, scales)


class StaticInt8(PerRowInt8):
    """8-bit products whose input scale was fixed by calibration, with bias and scales in the product. Most find their
    input rounded by the operator before; the others have one that rounds it, and divides its channels where the graph
    has to.

    A fixed scale, like one per row, makes no row depend on another. Inputs without one are scaled per row. Keys and
    values are cached in signed 8-bit numbers with a fixed scale: attention over many rows waits for memory.
    """

    cache_dtype: type[np.generic] = np.int8

    def __init__(self, scales: Mapping[str, InputScale], cache_scales: Mapping[str, float]) -> None:
        self.scales, self.cache_scales = scales, cache_scales

    def clips_negative(self, name: str) -> bool:
        """The input of product ``name`` is rounded to numbers from 0 on: a ReLU before it changes nothing."""
        return name in self.scales and self.scales[name].zero_point == 0

    def cache_scale(self, name: str) -> float | None:
        return self.cache_scales[name]

    def rounding(self, graph: GraphBuilder, name: str) -> fused.Rounding | None:
        chosen = self.scales.get(name)
        if chosen is None or chosen.factors is not None:
            return None
        return graph.constant(chosen.scale, np.float32), graph.constant(chosen.zero_point, np.uint8)

    def linear(self, graph: GraphBuilder, x: str, layer: Linear, then: fused.Rounding | None = None) -> str:
        name, weight, bias = layer
        first = name.split("+")[0]
        if first not in self.scales:
            return super().linear(graph, x, layer, then)
        chosen = self.scales[first]
        rounding = graph.constant(chosen.scale, np.float32), graph.constant(chosen.zero_point, np.uint8)
        divisor, key = "", rounded_name(x, rounding)
        if chosen.factors is not None:
            divisor = graph.weight(f"{name}.divisor", (1 / chosen.factors).astype(np.float32))
            weight, key = np.asarray(weight, np.float32) * chosen.factors[:, None], f"{key}, divided by {divisor}"
        if key not in graph.shared:
            graph.shared[key] = fused.scale_round(graph, x, weight.shape[0], divisor, rounding)
        column_scale = column_scales(weight)
        rounded = np.rint(np.divide(weight, column_scale)).astype(np.int8)
        columns, scales = graph.weight(f"{name}.int8", rounded), graph.weight(f"{name}.scale", column_scale)
        stored = fused.Columns(weight.shape[0], columns, scales, graph.weight(f"{name}.bias", bias))
        return fused.product(graph, graph.shared[key], rounding, stored, then)
