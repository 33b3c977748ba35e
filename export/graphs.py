"""The three graphs of a bundle: encoder, decoder step, score.

Knows: the Transformer's order of parts and each graph's inputs and outputs. Does not know: precisions, files.

Encoder        source (B, S) int64, source_lengths (B,) int64
               -> per decoder layer cross_key_i, cross_value_i (B, H, S, D): all the decoder ever needs of the source

Decoder step   tokens (R,) int64: the last token of each row; lengths (R,) int32: tokens before it
               source_lengths_less_1 (N,) int32, N sentences; query_rows (N * K,): which row is beam k of sentence n;
               row_queries (R,): the inverse; num_candidates (1,)
               self_key_i, self_value_i (R, H, T_max, D): written in place at position lengths[r]
               cross_key_i, cross_value_i (N, H, S_max, D)
               -> candidate_ids, candidate_log_probabilities (R, num_candidates), best first

Score          source, source_lengths, target_in (B, T): start token and target; target_out (B, T): target and end token
               -> log_probabilities (B, T); alignment (B, T, S): cross-attention of the last layer, mean over heads
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import onnx

from export.candidates import best_candidates
from export.graph_builder import CONTRIB, GraphBuilder, Shape
from export.layers import Array, Layers, Matrices
from export.packing import Packing
from export.weights_file import WeightsFile
from model.config import ModelConfig

Model = tuple[ModelConfig, Mapping[str, Array]]
NUM_UNUSED_INPUTS = 5  # of GroupQueryAttention, between the cache and its scales: rotations, positions, a bias, a sink


def source_places(graph: GraphBuilder, lengths: str, length: str) -> str:
    """(B, S) bool: true on real source tokens, false on padding."""
    zero, one = graph.constant(0, np.int64), graph.constant(1, np.int64)
    places = graph.op("Range", zero, graph.op("Squeeze", length), one)
    return graph.op("Less", places, graph.op("Unsqueeze", lengths, graph.constant([1], np.int64)))


def source_mask(graph: GraphBuilder, is_token: str) -> str:
    """(B, 1, 1, S): 0 on real source tokens, minus infinity on padding."""
    mask = graph.op("Where", is_token, graph.constant(0.0, np.float32), graph.constant(-np.inf, np.float32))
    return graph.op("Unsqueeze", mask, graph.constant([1, 2], np.int64))


def causal_mask(graph: GraphBuilder, length: str) -> str:
    """(T, T): 0 on and below the diagonal, minus infinity above."""
    zero, one = graph.constant(0, np.int64), graph.constant(1, np.int64)
    places = graph.op("Range", zero, graph.op("Squeeze", length), one)
    later = graph.op("Less", graph.op("Unsqueeze", places, graph.constant([1], np.int64)), places)  # key after query
    return graph.op("Where", later, graph.constant(-np.inf, np.float32), graph.constant(0.0, np.float32))


def embed_sequence(layers: Layers, ids: str, length: str, side: str) -> str:
    """(B, T) ids -> (B * T, M)."""
    graph = layers.graph
    zero, one = graph.constant(0, np.int64), graph.constant(1, np.int64)
    flat = graph.reshape(ids, [-1])
    places = graph.op("Range", zero, graph.op("Squeeze", graph.op("Shape", flat)), one)
    return layers.embed(flat, graph.op("Mod", places, length), side)


class Encoded(NamedTuple):
    """states (P, M), the shape [B, S], the padding mask (B, 1, 1, S), and how states are padded."""

    states: str
    shape: str
    mask: str
    packing: Packing


def encode(layers: Layers, source: str, lengths: str) -> Encoded:
    graph = layers.graph
    shape = graph.op("Shape", source)
    length = graph.op("Slice", shape, graph.constant([1], np.int64), graph.constant([2], np.int64))
    is_token = source_places(graph, lengths, length)
    mask, packing = layers.narrow(source_mask(graph, is_token)), Packing(graph, is_token)
    ids = packing.pack(graph.reshape(source, [-1]))
    x = layers.embed(ids, graph.op("Mod", packing.places, length), "source")
    for i in range(layers.config.num_encoder_layers):
        x = self_attention_block(layers, x, f"encoder.{i}", shape, mask, packing)
        name = f"encoder.{i}.feed_forward"
        x = layers.leave(x, layers.feed_forward(layers.enter(x, name), name), name)
    return Encoded(layers.final_norm(x, "encoder"), shape, mask, packing)


def self_attention_block(
    layers: Layers, x: str, layer: str, shape: str, mask: str, packing: Packing | None = None
) -> str:
    """x is (P, M) with ``packing``, else (B * T, M)."""
    name = f"{layer}.self_attention"
    joined = layers.linear(layers.enter(x, name), f"{name}.query", f"{name}.key", f"{name}.value")
    query, key, value = layers.split(packing.unpack(joined) if packing else joined, 3)
    if layer.startswith("decoder"):  # scores are those of a translation decoded step by step
        key, value = rounded(layers, key, f"{name}.key"), rounded(layers, value, f"{name}.value")
    context, _ = layers.attention(
        layers.heads(query, shape), layers.heads(key, shape, transposed=True), layers.heads(value, shape), mask
    )
    context = packing.pack(context) if packing else context
    return layers.leave(x, layers.linear(context, f"{name}.output"), name)


def rounded(layers: Layers, x: str, name: str) -> str:
    """What attention finds in the cache of what layer ``name`` has put there."""
    return layers.from_cache(layers.as_cached(x, name), name)


def cross_keys_values(layers: Layers, encoded: Encoded, layer: int, as_cached: bool = True) -> tuple[str, str]:
    """(B, H, S, D) each, in the numbers of the cache or of the states."""
    found = []
    for name in (f"decoder.{layer}.cross_attention.{part}" for part in ("key", "value")):
        made = layers.linear(encoded.states, name)
        made = layers.as_cached(made, name) if as_cached else rounded(layers, made, name)
        found.append(layers.heads(encoded.packing.unpack(made), encoded.shape))
    return found[0], found[1]


def encoder_graph(model: Model, matrices: Matrices, weights: WeightsFile) -> onnx.ModelProto:
    graph = GraphBuilder("encoder", weights)
    layers = Layers(graph, *model, matrices)
    source = graph.input("source", np.int64, ["B", "S"])
    lengths = graph.input("source_lengths", np.int64, ["B"])
    encoded = encode(layers, source, lengths)
    config = layers.config
    kv_shape: Shape = ["B", config.num_heads, "S", config.model_width // config.num_heads]
    for i in range(config.num_decoder_layers):
        key, value = cross_keys_values(layers, encoded, i)
        graph.output(key, f"cross_key_{i}", layers.matrices.cache_dtype, kv_shape)
        graph.output(value, f"cross_value_{i}", layers.matrices.cache_dtype, kv_shape)
    return graph.model()


class DecoderStep:
    """The decoder step graph for up to K beams a sentence.

    Self-attention and cross-attention are both GroupQueryAttention with one query token: its cost follows each row's
    real length, and each head of each row is computed on its own, so that no result depends on other rows. In
    cross-attention the K beams of a sentence are K groups of query heads over its one set of keys and values.

    States are (R, 1, M), one token of each row, which is how attention takes and gives them: a Reshape
    costs a microsecond, whatever it does.
    """

    def __init__(self, model: Model, matrices: Matrices, weights: WeightsFile, num_beams: int) -> None:
        self.graph = GraphBuilder(f"decoder_{num_beams}", weights)
        self.layers = Layers(self.graph, *model, matrices)
        self.config, self.num_beams = model[0], num_beams
        self.head_width = self.config.model_width // self.config.num_heads
        graph = self.graph
        self.tokens = graph.input("tokens", np.int64, ["R"])
        self.lengths = graph.input("lengths", np.int32, ["R"])
        self.source_lengths_less_1 = graph.input("source_lengths_less_1", np.int32, ["N"])
        self.query_rows = graph.input("query_rows", np.int64, ["Q"])
        self.row_queries = graph.input("row_queries", np.int64, ["R"])
        self.num_candidates = graph.input("num_candidates", np.int64, [1])
        self.self_capacity = graph.input("self_capacity", np.int32, [])
        self.cross_capacity = graph.input("cross_capacity", np.int32, [])
        self.no_keys = graph.input("no_keys", self.layers.dtype, ["N", 0, self.config.model_width])

    def attend(self, name: str, query: str, key: str, value: str, past: str, lengths: str, groups: int) -> str:
        """GroupQueryAttention of attention layer ``name`` over the buffers called ``past``.

        They leave the graph as what they came in as.
        """
        is_own, dtype = past.startswith("self"), self.layers.matrices.cache_dtype
        shape = ["R" if is_own else "N", self.config.num_heads, "C_" + past[:5], self.head_width]
        buffers = [self.graph.input(past.format(part), dtype, shape) for part in ("key", "value")]
        present = [f"present_{buffer}" for buffer in buffers]
        inputs = [query, key, value, *buffers, lengths, self.self_capacity if is_own else self.cross_capacity]
        attributes: dict[str, object] = {"num_heads": self.config.num_heads * groups}
        scales = [self.layers.matrices.cache_scale(f"{name}.{part}") for part in ("key", "value")]
        if dtype is np.int8:
            inputs += [*[""] * NUM_UNUSED_INPUTS, *(self.graph.constant([scale], np.float32) for scale in scales)]
            attributes |= {"kv_cache_bit_width": 8, "k_quant_type": "PER_TENSOR", "v_quant_type": "PER_TENSOR"}
        results = self.graph.ops(
            "GroupQueryAttention",
            *inputs,
            num_outputs=3,
            outputs=present,
            domain=CONTRIB,
            kv_num_heads=self.config.num_heads,
            **attributes,
        )
        for output in present:
            self.graph.output(output, output, dtype, shape)
        return results[0]

    def self_attention(self, x: str, layer: int) -> str:
        name = f"decoder.{layer}.self_attention"
        joined = self.layers.linear(self.layers.enter(x, name), f"{name}.query", f"{name}.key", f"{name}.value")
        context = self.attend(name, joined, "", "", f"self_{{}}_{layer}", self.lengths, groups=1)
        return self.layers.leave(x, self.layers.linear(context, f"{name}.output"), name)

    def cross_attention(self, x: str, layer: int) -> str:
        name, width = f"decoder.{layer}.cross_attention", self.config.model_width
        query = self.layers.linear(self.layers.enter(x, name), f"{name}.query")
        query = self.graph.op("Gather", query, self.query_rows)  # (N * K, 1, M)
        query = self.swap_beams_and_heads(query, self.num_beams, self.config.num_heads, self.num_beams * width)
        no_keys, past, lengths = self.no_keys, f"cross_{{}}_{layer}", self.source_lengths_less_1
        context = self.attend(name, query, no_keys, no_keys, past, lengths, groups=self.num_beams)
        context = self.swap_beams_and_heads(context, self.config.num_heads, self.num_beams, width)
        context = self.graph.op("Gather", context, self.row_queries)
        return self.layers.leave(x, self.layers.linear(context, f"{name}.output"), name)

    def swap_beams_and_heads(self, x: str, first: int, second: int, width: int) -> str:
        """(N, first, second, D) -> (N, second, first, D), as (..., 1, width); nothing to do for one beam."""
        if self.num_beams == 1:
            return x
        x = self.graph.reshape(x, [-1, first, second, self.head_width])
        return self.graph.reshape(self.graph.op("Transpose", x, perm=[0, 2, 1, 3]), [-1, 1, width])

    def build(self) -> onnx.ModelProto:
        graph, layers = self.graph, self.layers
        x = graph.reshape(layers.embed(self.tokens, self.lengths, "target"), [-1, 1, self.config.model_width])
        for i in range(self.config.num_decoder_layers):
            x = self.cross_attention(self.self_attention(x, i), i)
            name = f"decoder.{i}.feed_forward"
            x = layers.leave(x, layers.feed_forward(layers.enter(x, name), name), name)
        logits = layers.logits(layers.final_norm(x, "decoder"))
        log_probabilities = graph.op("LogSoftmax", logits, axis=-1)
        vocab_size = self.config.vocab_size if layers.matrices.candidate_blocks else 0
        values, ids = best_candidates(graph, log_probabilities, self.num_candidates, vocab_size)
        graph.output(ids, "candidate_ids", np.int64, ["R", "C"])
        graph.output(values, "candidate_log_probabilities", np.float32, ["R", "C"])
        return graph.model()


def score_graph(model: Model, matrices: Matrices, weights: WeightsFile) -> onnx.ModelProto:
    graph = GraphBuilder("score", weights)
    layers = Layers(graph, *model, matrices)
    source = graph.input("source", np.int64, ["B", "S"])
    lengths = graph.input("source_lengths", np.int64, ["B"])
    target_in = graph.input("target_in", np.int64, ["B", "T"])
    target_out = graph.input("target_out", np.int64, ["B", "T"])
    encoded = encode(layers, source, lengths)
    crossed = [cross_keys_values(layers, encoded, i, as_cached=False) for i in range(layers.config.num_decoder_layers)]
    graph.shared.clear()  # from here on rows are target positions
    shape = graph.op("Shape", target_in)
    length = graph.op("Slice", shape, graph.constant([1], np.int64), graph.constant([2], np.int64))
    causal = layers.narrow(causal_mask(graph, length))
    x = embed_sequence(layers, target_in, length, "target")
    attention = ""
    for i, (key, value) in enumerate(crossed):
        x = self_attention_block(layers, x, f"decoder.{i}", shape, causal)
        name = f"decoder.{i}.cross_attention"
        query = layers.heads(layers.linear(layers.enter(x, name), f"{name}.query"), shape)
        key = graph.op("Transpose", key, perm=[0, 1, 3, 2])
        context, attention = layers.attention(query, key, value, encoded.mask)
        x = layers.leave(x, layers.linear(context, f"{name}.output"), name)
        name = f"decoder.{i}.feed_forward"
        x = layers.leave(x, layers.feed_forward(layers.enter(x, name), name), name)
    logits = layers.logits(layers.final_norm(x, "decoder"))
    chosen = graph.op("Unsqueeze", graph.reshape(target_out, [-1]), graph.constant([1], np.int64))
    picked = graph.op("GatherElements", graph.op("LogSoftmax", logits, axis=-1), chosen, axis=1)
    graph.output(graph.op("Reshape", picked, shape), "log_probabilities", np.float32, ["B", "T"])
    alignment = graph.op("ReduceMean", attention, graph.constant([1], np.int64), keepdims=0)
    graph.output(layers.widen(alignment), "alignment", np.float32, ["B", "T", "S"])
    return graph.model()
