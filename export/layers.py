"""The Transformer's parts as ONNX operators, in float32, int8 or float16.

Knows: operators and which of them are fast and exact on ONNX Runtime. Does not know: the order of the parts
(graphs.py). Dimension key: model/transformer.py. Here R is the number of rows of a decoder step.

int8: weights are signed, one scale per output column; activations unsigned, with a scale fixed by calibration or
**one per row**, so that no row's result depends on its neighbours; the products are summed in integers, where order
does not matter.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from export.calibrate import OUTPUT, InputScale
from export.graph_builder import CONTRIB, GraphBuilder
from model.config import ModelConfig

Array = NDArray[np.generic]
SMALLEST_SCALE = 1e-12  # an all-zero column of a matrix would divide by zero


class Matrices(Protocol):
    """How a precision stores and multiplies matrices."""

    dtype: type[np.floating[Any]]
    """What states between the products are numbers of."""
    cache_dtype: type[np.generic]
    """What the caches of keys and values hold."""
    candidate_blocks: bool
    """Whether the best candidates are found faster block by block (candidates.py)."""

    def linear(self, graph: GraphBuilder, x: str, weight: Array, bias: Array | None, name: str) -> str:
        """x (N, K) times ``weight`` (K, M_out), plus bias: (N, M_out)."""

    def gather(self, graph: GraphBuilder, ids: str, table: Array, name: str) -> str:
        """Rows ``ids`` (N,) of an embedding (V, M): (N, M) float32."""

    def transposed(self, graph: GraphBuilder, x: str, table: Array, name: str) -> str:
        """x (N, M) times the transpose of an embedding (V, M): logits (N, V)."""

    def clips_negative(self, name: str) -> bool:
        """Whether product ``name`` takes negative inputs for 0 anyway."""

    def cache_scale(self, name: str) -> float | None:
        """The scale of what layer ``name`` puts into the cache; None where that is kept as it is."""


class Plain:
    """What most precisions have in common."""

    dtype: type[np.floating[Any]] = np.float32
    cache_dtype: type[np.generic] = np.float32
    candidate_blocks = True

    def clips_negative(self, name: str) -> bool:
        return False

    def cache_scale(self, name: str) -> float | None:
        return None


class Float32(Plain):
    """Matrices as they were trained."""

    def linear(self, graph: GraphBuilder, x: str, weight: Array, bias: Array | None, name: str) -> str:
        product = graph.op("MatMul", x, graph.weight(f"{name}.weight", weight))
        return product if bias is None else graph.op("Add", product, graph.weight(f"{name}.bias", bias))

    def gather(self, graph: GraphBuilder, ids: str, table: Array, name: str) -> str:
        return graph.op("Gather", graph.weight(f"{name}.weight", table), ids)

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
    # TopK reads its count on the host; there it may come from the caller, but not from a node that CUDA runs.
    candidate_blocks = False

    def linear(self, graph: GraphBuilder, x: str, weight: Array, bias: Array | None, name: str) -> str:
        if name == OUTPUT:
            return super().linear(graph, graph.op("Cast", x, to=TensorProto.FLOAT), weight, bias, name)
        half = None if bias is None else bias.astype(np.float16)
        return super().linear(graph, x, weight.astype(np.float16), half, name)

    def transposed(self, graph: GraphBuilder, x: str, table: Array, name: str) -> str:
        return super().transposed(graph, graph.op("Cast", x, to=TensorProto.FLOAT), table, name)


class PerRowInt8(Plain):
    """8-bit weights and activations; about a quarter of the bytes and of the time of float32."""

    def quantize(self, weight: Array) -> tuple[Array, Array]:
        """Symmetric, by column: (K, N) float32 -> int8 in [-127, 127] and (N,) scales."""
        limit = np.abs(weight).max(axis=0)
        scale = np.maximum(limit, SMALLEST_SCALE).astype(np.float32) / np.float32(127)
        return np.clip(np.rint(weight / scale), -127, 127).astype(np.int8), scale

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

    def linear(self, graph: GraphBuilder, x: str, weight: Array, bias: Array | None, name: str) -> str:
        rounded, scale = self.quantize(weight)
        columns, scales = graph.weight(f"{name}.int8", rounded), graph.weight(f"{name}.scale", scale)
        product = self.multiply(graph, x, columns, scales)
        return product if bias is None else graph.op("Add", product, graph.weight(f"{name}.bias", bias))

    def gather(self, graph: GraphBuilder, ids: str, table: Array, name: str) -> str:
        rounded, scale = self.quantize(table.T)
        rows = graph.op("Gather", graph.weight(f"{name}.int8", np.ascontiguousarray(rounded.T)), ids)
        scales = graph.op("Gather", graph.weight(f"{name}.scale", scale), ids)
        return graph.op("DequantizeLinear", rows, scales, axis=0)

    def transposed(self, graph: GraphBuilder, x: str, table: Array, name: str) -> str:
        rounded, scale = self.quantize(table.T)
        rows = graph.weight(f"{name}.int8", np.ascontiguousarray(rounded.T))
        columns = graph.op("Transpose", rows, perm=[1, 0])  # folded when the session is made
        return self.multiply(graph, x, columns, graph.weight(f"{name}.scale", scale))


class StaticInt8(PerRowInt8):
    """8-bit products whose input scale was fixed by calibration: two operators each, bias and scales in the product;
    three where the graph divides the input's channels.

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

    def linear(self, graph: GraphBuilder, x: str, weight: Array, bias: Array | None, name: str) -> str:
        first = name.split("+")[0]
        if first not in self.scales:
            return super().linear(graph, x, weight, bias, name)
        chosen = self.scales[first]
        if chosen.factors is not None:
            x = graph.op("Mul", x, graph.weight(f"{name}.divisor", (1 / chosen.factors).astype(np.float32)))
            weight = np.asarray(weight, np.float32) * chosen.factors[:, None]
        scale, zero_point = graph.constant(chosen.scale, np.float32), graph.constant(chosen.zero_point, np.uint8)
        key = f"{x} rounded by {scale} around {zero_point}"
        if key not in graph.shared:
            graph.shared[key] = graph.op("QuantizeLinear", x, scale, zero_point)
        rounded, column_scale = self.quantize(weight)
        columns, scales = graph.weight(f"{name}.int8", rounded), graph.weight(f"{name}.scale", column_scale)
        more = ["", graph.weight(f"{name}.bias", bias)] if bias is not None else []
        inputs = (graph.shared[key], columns, scale, scales, zero_point, *more)
        return graph.op("MatMulIntegerToFloat", *inputs, domain=CONTRIB)


class Layers:
    """The parts of one model, added to one graph. ``state`` holds the PyTorch weights by name."""

    def __init__(
        self, graph: GraphBuilder, config: ModelConfig, state: Mapping[str, Array], matrices: Matrices
    ) -> None:
        self.graph, self.config, self.state, self.matrices = graph, config, state, matrices
        self.dtype = matrices.dtype

    def linear(self, x: str, *names: str) -> str:
        """One product for one or several linear layers that read the same input, side by side: (N, sum of widths)."""
        weight = np.concatenate([self.state[f"{name}.weight"].T for name in names], axis=1)
        bias = np.concatenate([self.state[f"{name}.bias"] for name in names])
        return self.matrices.linear(self.graph, x, weight, bias, "+".join(names))

    def split(self, x: str, parts: int) -> list[str]:
        """(N, parts * M) -> ``parts`` times (N, M)."""
        sizes = self.graph.constant([self.config.model_width] * parts, np.int64)
        return self.graph.ops("Split", x, sizes, num_outputs=parts, axis=1)

    def norm(self, x: str, name: str) -> str:
        scale = self.graph.weight(f"{name}.weight", self.state[f"{name}.weight"].astype(self.dtype))
        bias = self.graph.weight(f"{name}.bias", self.state[f"{name}.bias"].astype(self.dtype))
        return self.graph.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=self.config.norm_epsilon)

    def enter(self, x: str, name: str) -> str:
        return self.norm(x, f"{name}_residual.norm") if self.config.norm == "pre" else x

    def leave(self, x: str, update: str, name: str) -> str:
        total = self.graph.op("Add", x, update)
        return total if self.config.norm == "pre" else self.norm(total, f"{name}_residual.norm")

    def final_norm(self, x: str, name: str) -> str:
        return self.norm(x, f"{name}_norm") if self.config.norm == "pre" else x

    def embed(self, ids: str, positions: str, side: str) -> str:
        """Token ids (N,) and position numbers (N,) -> vectors (N, M)."""
        name = "source_embedding" if self.config.tie_embeddings else f"{side}_embedding"
        vectors = self.matrices.gather(self.graph, ids, self.state[f"{name}.weight"], name)
        if self.config.scale_embeddings:
            vectors = self.graph.op("Mul", vectors, self.graph.constant(self.config.model_width**0.5, np.float32))
        table = self.graph.weight("positions", self.state["positions"])
        return self.narrow(self.graph.op("Add", vectors, self.graph.op("Gather", table, positions)))

    def narrow(self, x: str) -> str:
        """float32 numbers as numbers of ``dtype``."""
        return x if self.dtype == np.float32 else self.graph.op("Cast", x, to=TensorProto.FLOAT16)

    def widen(self, x: str) -> str:
        """Numbers of ``dtype`` as float32."""
        return x if self.dtype == np.float32 else self.graph.op("Cast", x, to=TensorProto.FLOAT)

    def as_cached(self, x: str, name: str) -> str:
        """x (N, M) of layer ``name`` in the numbers that a cache holds."""
        scale = self.matrices.cache_scale(name)
        if scale is None:
            return x
        rounding = self.graph.constant(scale, np.float32), self.graph.constant(0, np.int8)
        return self.graph.op("QuantizeLinear", x, *rounding)

    def from_cache(self, x: str, name: str) -> str:
        """The opposite of as_cached(), but for the rounding."""
        scale = self.matrices.cache_scale(name)
        return x if scale is None else self.graph.op("DequantizeLinear", x, self.graph.constant(scale, np.float32))

    def logits(self, states: str) -> str:
        if f"{OUTPUT}.weight" in self.state:
            return self.linear(states, OUTPUT)
        name = "source_embedding" if self.config.tie_embeddings else "target_embedding"
        logits = self.matrices.transposed(self.graph, states, self.state[f"{name}.weight"], name)
        if self.config.output_bias:
            logits = self.graph.op("Add", logits, self.graph.weight("output_bias", self.state["output_bias"]))
        return logits

    def feed_forward(self, x: str, name: str) -> str:
        inner = self.linear(x, f"{name}.inner")
        if self.config.activation != "relu" or not self.matrices.clips_negative(f"{name}.outer"):
            inner = self.activation(inner)
        return self.linear(inner, f"{name}.outer")

    def activation(self, x: str) -> str:
        if self.config.activation == "relu":
            return self.graph.op("Relu", x)
        if self.config.activation == "gelu":
            return self.graph.op("Gelu", x, approximate="none")
        return self.graph.op("Mul", x, self.graph.op("Sigmoid", x))

    def heads(self, x: str, sentences_and_length: str, transposed: bool = False) -> str:
        """(B * S, M) -> (B, H, S, D), or (B, H, D, S) for the keys of a plain product."""
        heads, width = self.config.num_heads, self.config.model_width // self.config.num_heads
        shape = self.graph.op(
            "Concat", sentences_and_length, self.graph.constant([heads, width], np.int64), axis=0
        )  # [B, S, H, D]
        perm = [0, 2, 3, 1] if transposed else [0, 2, 1, 3]
        return self.graph.op("Transpose", self.graph.op("Reshape", x, shape), perm=perm)

    def attention(self, query: str, key: str, value: str, mask: str) -> tuple[str, str]:
        """Plain attention over whole sequences: (B, H, T, D), (B, H, D, S), (B, H, S, D) -> (B * T, M), weights.

        Padding adds exact zeros to every sum, so results do not depend on how far a batch is padded.
        """
        width = self.config.model_width // self.config.num_heads
        query = self.graph.op("Mul", query, self.graph.constant(width**-0.5, self.dtype))
        scores = self.graph.op("Add", self.graph.op("MatMul", query, key), mask)
        weights = self.graph.op("Softmax", scores, axis=-1)
        context = self.graph.op("Transpose", self.graph.op("MatMul", weights, value), perm=[0, 2, 1, 3])
        return self.graph.reshape(context, [-1, self.config.model_width]), weights
