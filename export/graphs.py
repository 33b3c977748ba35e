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

from export import fused
from export.calibrate import OUTPUT
from export.chain import ENCODER, STEP, chain
from export.graph_builder import GraphBuilder, Shape
from export.layers import Layers
from export.matrices import Array, Matrices
from export.packing import Packing
from export.weights_file import WeightsFile
from model.config import ModelConfig

Model = tuple[ModelConfig, Mapping[str, Array]]


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
    """states (P, M), and how sentences are padded."""

    states: str
    packing: Packing


def encode(layers: Layers, source: str, lengths: str) -> Encoded:
    packing, num_layers = Packing(layers.graph, source, lengths), layers.config.num_encoder_layers
    if layers.is_fused:
        x = layers.embed_packed(source, lengths)
        for i in range(num_layers):
            x = packed_attention_block(layers, x, f"encoder.{i}", packing)
            x = feed_forward_block(layers, x, f"encoder.{i}")
    else:
        ids, mask = packing.pack(layers.graph.reshape(source, [-1])), layers.narrow(packing.mask)
        x = layers.embed(ids, packing.positions, "source")
        for i in range(num_layers):
            x = self_attention_block(layers, x, f"encoder.{i}", packing.shape, mask, packing)
            x = feed_forward_block(layers, x, f"encoder.{i}")
    return Encoded(layers.final_norm(x, "encoder", reader_of_states(layers)), packing)


def reader_of_states(layers: Layers) -> str:
    """A product that reads what the encoder makes, if all that do round it alike."""
    names = [name for i in range(layers.config.num_decoder_layers) for name in cross_names(i)]
    return names[0] if len({layers.matrices.rounding(layers.graph, name) for name in names}) == 1 else ""


def feed_forward_block(layers: Layers, x: str, layer: str) -> str:
    name = f"{layer}.feed_forward"
    return layers.leave(x, layers.feed_forward(layers.enter(x, name, f"{name}.inner"), name), name)


def joined_query_key_value(layers: Layers, x: str, name: str) -> str:
    entered = layers.enter(x, name, f"{name}.query")
    return layers.linear(entered, f"{name}.query", f"{name}.key", f"{name}.value")


def packed_attention_block(layers: Layers, x: str, layer: str, packing: Packing) -> str:
    """x is (P, M)."""
    name, config = f"{layer}.self_attention", layers.config
    joined = joined_query_key_value(layers, x, name)

    def plain(graph: GraphBuilder, joined: str, lengths: str, ids: str) -> str:
        inner, packing = Layers(graph, config, {}, layers.matrices), Packing(graph, ids, lengths)
        query, key, value = inner.split(packing.unpack(joined), 3)
        query, value = inner.heads(query, packing.shape), inner.heads(value, packing.shape)
        context, _ = inner.attention(query, inner.heads(key, packing.shape, transposed=True), value, packing.mask)
        return packing.pack(context)

    rounding = layers.matrices.rounding(layers.graph, f"{name}.output")
    inputs = [joined, packing.lengths, packing.ids]
    context = fused.packed_attention(layers.graph, inputs, config.num_heads, plain, rounding)
    return layers.leave(x, layers.linear(layers.as_read(context, rounding), f"{name}.output"), name)


def self_attention_block(
    layers: Layers, x: str, layer: str, shape: str, mask: str, packing: Packing | None = None
) -> str:
    """x is (P, M) with ``packing``, else (B * T, M)."""
    name = f"{layer}.self_attention"
    joined = joined_query_key_value(layers, x, name)
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


def cross_keys_values(layers: Layers, encoded: Encoded, layer: int) -> list[str]:
    """What attention finds in the cache of the decoder's ``layer``: (B, H, S, D) each, in the numbers of the states."""
    found = []
    for name in cross_names(layer):
        made = rounded(layers, layers.linear(encoded.states, name), name)
        found.append(layers.heads(encoded.packing.unpack(made), encoded.packing.shape))
    return found


def cross_names(layer: int) -> tuple[str, str]:
    return f"decoder.{layer}.cross_attention.key", f"decoder.{layer}.cross_attention.value"


def cached_heads(layers: Layers, encoded: Encoded, name: str, result: str) -> None:
    """The keys or values that layer ``name`` makes, as they are cached, called ``result``: (B, H, S, D)."""
    made, packing = layers.linear(encoded.states, name), encoded.packing
    if not layers.is_fused:
        heads = layers.heads(packing.unpack(layers.as_cached(made, name)), packing.shape)
        layers.graph.output(heads, result, layers.matrices.cache_dtype, cached_shape(layers.config))
        return

    def plain(graph: GraphBuilder, x: str, lengths: str, ids: str) -> str:
        packing = Packing(graph, ids, lengths)
        return Layers(graph, layers.config, {}, layers.matrices).heads(packing.unpack(x), packing.shape)

    scale = layers.matrices.cache_scale(name)
    stored = "" if scale is None else layers.graph.constant(scale, np.float32)
    inputs = [made, packing.lengths, packing.ids]
    fused.unpack_heads(layers.graph, inputs, layers.config.num_heads, plain, stored, result)
    layers.graph.output(result, result, layers.matrices.cache_dtype, cached_shape(layers.config))


def cached_shape(config: ModelConfig) -> Shape:
    return ["B", config.num_heads, "S", config.model_width // config.num_heads]


def encoder_graph(model: Model, matrices: Matrices, weights: WeightsFile) -> onnx.ModelProto:
    graph = GraphBuilder("encoder", weights)
    layers = Layers(graph, *model, matrices)
    source = graph.input("source", np.int64, ["B", "S"])
    lengths = graph.input("source_lengths", np.int64, ["B"])
    encoded = encode(layers, source, lengths)
    for i in range(layers.config.num_decoder_layers):
        for part, name in zip(("key", "value"), cross_names(i), strict=True):
            cached_heads(layers, encoded, name, f"cross_{part}_{i}")
    chain(graph, ENCODER, [output.name for output in graph.outputs])
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

    def buffers(self, name: str, past: str) -> fused.Buffers:
        """Those of attention layer ``name``, called ``past``; they leave the graph as what they came in as."""
        is_own, dtype = past.startswith("self"), self.layers.matrices.cache_dtype
        shape = ["R" if is_own else "N", self.config.num_heads, "C_" + past[:5], self.head_width]
        names = [self.graph.input(past.format(part), dtype, shape) for part in ("key", "value")]
        present = [f"present_{buffer}" for buffer in names]
        for output in present:
            self.graph.output(output, output, dtype, shape)
        scales = [self.layers.matrices.cache_scale(f"{name}.{part}") for part in ("key", "value")]
        return fused.Buffers(
            past=names,
            present=present,
            lengths=self.lengths if is_own else self.source_lengths_less_1,
            capacity=self.self_capacity if is_own else self.cross_capacity,
            scales=[self.graph.constant([scale], np.float32) for scale in scales if dtype is np.int8],
        )

    def self_attention(self, x: str, layer: int) -> str:
        name, layers = f"decoder.{layer}.self_attention", self.layers
        joined = joined_query_key_value(layers, x, name)
        buffers, num_heads = self.buffers(name, f"self_{{}}_{layer}"), self.config.num_heads
        if layers.is_fused:
            rounding = layers.matrices.rounding(self.graph, f"{name}.output")
            context = fused.self_attention(self.graph, joined, buffers, num_heads, rounding)
            context = layers.as_read(context, rounding)
        else:
            context = fused.group_query_attention(self.graph, joined, "", "", buffers, num_heads, groups=1)[0]
        return layers.leave(x, layers.linear(context, f"{name}.output"), name)

    def cross_attention(self, x: str, layer: int) -> str:
        name, layers = f"decoder.{layer}.cross_attention", self.layers
        query = layers.linear(layers.enter(x, name, f"{name}.query"), f"{name}.query")
        buffers = self.buffers(name, f"cross_{{}}_{layer}")
        places = fused.BeamPlaces(self.row_queries, self.query_rows, self.no_keys)
        sizes = self.config.num_heads, self.num_beams, self.config.model_width
        if layers.is_fused:
            rounding = layers.matrices.rounding(self.graph, f"{name}.output")
            context = fused.cross_attention(self.graph, query, buffers, places, sizes, rounding)
            context = layers.as_read(context, rounding)
        else:
            context = fused.attend_by_groups(self.graph, query, buffers, places, sizes)[0]
        return layers.leave(x, layers.linear(context, f"{name}.output"), name)

    def build(self) -> onnx.ModelProto:
        graph, layers = self.graph, self.layers
        x = layers.embed_step(self.tokens, self.lengths)
        for i in range(self.config.num_decoder_layers):
            x = self.cross_attention(self.self_attention(x, i), i)
            x = feed_forward_block(layers, x, f"decoder.{i}")
        logits = layers.logits(layers.final_norm(x, "decoder", OUTPUT))
        vocab_size = self.config.vocab_size if layers.matrices.candidate_blocks else 0
        values, ids = fused.likely_candidates(graph, logits, self.num_candidates, vocab_size, is_fused=layers.is_fused)
        present = [output.name for output in graph.outputs]
        graph.output(ids, "candidate_ids", np.int64, ["R", "C"])
        graph.output(values, "candidate_log_probabilities", np.float32, ["R", "C"])
        chain(graph, STEP, [values, ids, *present])
        return graph.model()


def score_graph(model: Model, matrices: Matrices, weights: WeightsFile) -> onnx.ModelProto:
    graph = GraphBuilder("score", weights)
    layers = Layers(graph, *model, matrices, is_fused=False)
    source = graph.input("source", np.int64, ["B", "S"])
    lengths = graph.input("source_lengths", np.int64, ["B"])
    target_in = graph.input("target_in", np.int64, ["B", "T"])
    target_out = graph.input("target_out", np.int64, ["B", "T"])
    encoded = encode(layers, source, lengths)
    crossed = [cross_keys_values(layers, encoded, i) for i in range(layers.config.num_decoder_layers)]
    graph.shared.clear()  # from here on rows are target positions
    shape = graph.op("Shape", target_in)
    length = graph.op("Slice", shape, graph.constant([1], np.int64), graph.constant([2], np.int64))
    causal = layers.narrow(causal_mask(graph, length))
    x = embed_sequence(layers, target_in, length, "target")
    attention = ""
    for i, (key, value) in enumerate(crossed):
        x = self_attention_block(layers, x, f"decoder.{i}", shape, causal)
        name = f"decoder.{i}.cross_attention"
        entered = layers.enter(x, name, f"{name}.query")
        query = layers.heads(layers.linear(entered, f"{name}.query"), shape)
        key = graph.op("Transpose", key, perm=[0, 1, 3, 2])
        context, attention = layers.attention(query, key, value, layers.narrow(encoded.packing.mask))
        x = layers.leave(x, layers.linear(context, f"{name}.output"), name)
        x = feed_forward_block(layers, x, f"decoder.{i}")
    logits = layers.logits(layers.final_norm(x, "decoder"))
    chosen = graph.op("Unsqueeze", graph.reshape(target_out, [-1]), graph.constant([1], np.int64))
    picked = graph.op("GatherElements", graph.op("LogSoftmax", logits, axis=-1), chosen, axis=1)
    graph.output(graph.op("Reshape", picked, shape), "log_probabilities", np.float32, ["B", "T"])
    alignment = graph.op("ReduceMean", attention, graph.constant([1], np.int64), keepdims=0)
    graph.output(layers.widen(alignment), "alignment", np.float32, ["B", "T", "S"])
    return graph.model()
