"""The Transformer's parts as ONNX operators.

Knows: operators, and which of them service/runtime/kernels has in one (fused.py). Does not know: how matrices are
multiplied (matrices.py), the order of the parts (graphs.py). Dimension key: model/transformer.py.
"""

from collections.abc import Mapping

import numpy as np
from onnx import TensorProto

from export import fused
from export.calibrate import OUTPUT
from export.graph_builder import GraphBuilder
from export.matrices import Array, Linear, Matrices
from model.config import ModelConfig


class Layers:
    """The parts of one model, added to one graph. ``state`` holds the PyTorch weights by name.

    is_fused: whether what stands between the products may be operators of service/runtime/kernels; products always may.
    """

    def __init__(
        self,
        graph: GraphBuilder,
        config: ModelConfig,
        state: Mapping[str, Array],
        matrices: Matrices,
        is_fused: bool = True,
    ) -> None:
        self.graph, self.config, self.state, self.matrices = graph, config, state, matrices
        self.dtype = matrices.dtype
        self.is_fused = is_fused and matrices.fuses and fused.fits(config.model_width, config.num_heads)
        self.sums: dict[str, tuple[str, str]] = {}  # those not made yet: residual and update by the name of their sum

    def linear(self, x: str, *names: str, reader: str = "") -> str:
        """One product for one or several linear layers that read the same input, side by side: (N, sum of widths).

        reader: a product that is all that reads it, so that it may be rounded at once.
        """
        weight = np.concatenate([self.state[f"{name}.weight"].T for name in names], axis=1)
        bias = np.concatenate([self.state[f"{name}.bias"] for name in names])
        then = self.matrices.rounding(self.graph, reader) if reader else None
        layer = Linear("+".join(names), weight, bias)
        return self.as_read(self.matrices.linear(self.graph, x, layer, then), then)

    def split(self, x: str, parts: int) -> list[str]:
        """(N, parts * M) -> ``parts`` times (N, M)."""
        sizes = self.graph.constant([self.config.model_width] * parts, np.int64)
        return self.graph.ops("Split", x, sizes, num_outputs=parts, axis=1)

    def norm(self, x: str, name: str) -> str:
        scale = self.graph.weight(f"{name}.weight", self.state[f"{name}.weight"].astype(self.dtype))
        bias = self.graph.weight(f"{name}.bias", self.state[f"{name}.bias"].astype(self.dtype))
        return self.graph.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=self.config.norm_epsilon)

    def enter(self, x: str, name: str, reader: str) -> str:
        """What block ``name`` reads of the residual; ``reader``: the product that reads it, and nothing else does."""
        return self.norm_for(x, f"{name}_residual.norm", reader) if self.config.norm == "pre" else x

    def leave(self, x: str, update: str, name: str) -> str:
        """The residual after block ``name``. Before a norm the sum is made with it: it must be entered, or normed."""
        total = f"{name}_total"
        if not self.is_fused:
            total = self.graph.op("Add", x, update)
        else:
            self.sums[total] = x, update
        return total if self.config.norm == "pre" else self.norm_for(total, f"{name}_residual.norm", "")

    def final_norm(self, x: str, name: str, reader: str = "") -> str:
        return self.norm_for(x, f"{name}_norm", reader) if self.config.norm == "pre" else x

    def norm_for(self, x: str, name: str, reader: str) -> str:
        """norm(x); together with the sum that x is, and rounded for the product ``reader`` if that does it."""
        rounding, is_sum = self.matrices.rounding(self.graph, reader), x in self.sums
        if not is_sum and (rounding is None or not self.is_fused):
            return self.norm(x, name)
        weight, bias = (
            self.graph.weight(f"{name}.{part}", self.state[f"{name}.{part}"]) for part in ("weight", "bias")
        )
        norm = weight, bias, self.config.norm_epsilon
        if rounding and not is_sum:
            result = fused.norm_round(self.graph, x, norm, rounding)
        else:
            result = fused.add_norm(self.graph, *self.sums.pop(x), norm, x, rounding)
        return self.as_read(result, rounding)

    def as_read(self, result: str, rounding: fused.Rounding | None) -> str:
        """A name for what ``result`` is rounded from, for products to read."""
        if rounding is None:
            return result
        self.matrices.keep_rounded(self.graph, f"{result}_exact", rounding, result)
        return f"{result}_exact"

    def embedding_of(self, side: str) -> str:
        """The name of the embedding of the ``side`` source or target."""
        return "source_embedding" if self.config.tie_embeddings else f"{side}_embedding"

    def embed(self, ids: str, positions: str, side: str) -> str:
        """Token ids (N,) and position numbers (N,) -> vectors (N, M)."""
        name = self.embedding_of(side)
        vectors = self.matrices.gather(self.graph, ids, self.state[f"{name}.weight"], name)
        if self.config.scale_embeddings:
            vectors = self.graph.op("Mul", vectors, self.graph.constant(self.config.model_width**0.5, np.float32))
        table = self.graph.weight("positions", self.state["positions"])
        return self.narrow(self.graph.op("Add", vectors, self.graph.op("Gather", table, positions)))

    def embed_step(self, ids: str, positions: str) -> str:
        """One target token a row, ids (R,) and position numbers (R,) int32 -> vectors (R, 1, M)."""
        if not self.is_fused:
            return self.graph.reshape(self.embed(ids, positions, "target"), [-1, 1, self.config.model_width])
        return fused.embed(self.graph, ids, positions, *self.tables("target"))

    def embed_packed(self, ids: str, lengths: str) -> str:
        """Source token ids (B, S) of sentences of ``lengths`` (B,) -> vectors (P, M)."""
        return fused.embed_packed(self.graph, ids, lengths, *self.tables("source"))

    def tables(self, side: str) -> tuple[list[str], float, str]:
        """The embedding of a side as it is stored, what it is multiplied by, and the positions."""
        name = self.embedding_of(side)
        table = self.matrices.table(self.graph, self.state[f"{name}.weight"], name)
        factor = self.config.model_width**0.5 if self.config.scale_embeddings else 1.0
        return table, factor, self.graph.weight("positions", self.state["positions"])

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
        name = self.embedding_of("target")
        logits = self.matrices.transposed(self.graph, states, self.state[f"{name}.weight"], name)
        if self.config.output_bias:
            logits = self.graph.op("Add", logits, self.graph.weight("output_bias", self.state["output_bias"]))
        return logits

    def feed_forward(self, x: str, name: str) -> str:
        outer = f"{name}.outer"
        if self.config.activation == "relu" and self.matrices.clips_negative(outer):
            return self.linear(self.linear(x, f"{name}.inner", reader=outer), outer)
        return self.linear(self.activation(self.linear(x, f"{name}.inner")), outer)

    def activation(self, x: str) -> str:
        """Of the numbers between two feed-forward matrices."""
        if self.config.activation == "relu":
            return self.graph.op("Relu", x)
        if self.config.activation == "gelu":
            return self.graph.op("Gelu", x, approximate="none")
        if self.is_fused and self.config.feed_forward_width % fused.MULTIPLE == 0:
            return fused.silu(self.graph, x)
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
