"""The operators of service/runtime/kernels, and what each means in ONNX's own operators.

Knows: names, inputs and outputs of both. Does not know: the order of a model's parts (graphs.py).

A step is some hundred small operators around a few matrix products, and half of its time is theirs. Where a machine has
the library, one operator takes the place of several; where it has not, ONNX Runtime puts their meaning in its place.
Both compute the same but for the last bits. Letters: export/graphs.py.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from export.candidates import best_candidates
from export.graph_builder import CONTRIB, GraphBuilder
from export.packing import Packing

MULTIPLE, MAX_HEAD_WIDTH = 16, 512  # of widths, as kernels.h says
NUM_UNUSED_INPUTS = 5  # of GroupQueryAttention, between the cache and its scales: rotations, positions, a bias, a sink

GROUP, MAX_DEPTH = 4, 65536  # of columns that the library multiplies, as kernels.h says

Rounding = tuple[str, str]  # scale and zero point of 8-bit numbers


def fits(model_width: int, num_heads: int) -> bool:
    """Whether the kernels take models of that shape."""
    head_width = model_width // num_heads
    return model_width % MULTIPLE == 0 and head_width % MULTIPLE == 0 and head_width <= MAX_HEAD_WIDTH


def rounded(graph: GraphBuilder, x: str, rounding: Sequence[str]) -> str:
    return graph.op("QuantizeLinear", x, *rounding) if rounding else x


class Columns(NamedTuple):
    """A matrix in signed bytes, from -127 to 127: the numbers (K, N), a scale for each column (N,), a bias (N,)."""

    depth: int
    numbers: str
    scales: str
    bias: str


def product(graph: GraphBuilder, x: str, rounding: Rounding, columns: Columns, then: Rounding | None) -> str:
    """x (..., K), which was rounded by ``rounding``, times ``columns``: (..., N), rounded by ``then`` or not."""

    def meaning(body: GraphBuilder, *inputs: str) -> list[str]:
        factors, bias, last = inputs[:5], inputs[5], inputs[6:]
        return [rounded(body, body.op("MatMulIntegerToFloat", *factors, "", bias, domain=CONTRIB), last)]

    scale, zero_point = rounding
    inputs = [x, columns.numbers, scale, columns.scales, zero_point, columns.bias, *(then or ())]
    if columns.depth % GROUP or columns.depth > MAX_DEPTH:
        return meaning(graph, *inputs)[0]
    result = f"{columns.numbers}_product_{len(graph.nodes)}"
    graph.function("ProductRound" if then else "Product", inputs, [result], meaning)
    return result


def scale_round(graph: GraphBuilder, x: str, width: int, factors: str, rounding: Rounding) -> str:
    """x (..., width) times ``factors`` (width,), if there are any, rounded."""

    def meaning(body: GraphBuilder, x: str, *more: str) -> list[str]:
        *factors, scale, zero_point = more
        return [rounded(body, body.op("Mul", x, *factors) if factors else x, (scale, zero_point))]

    inputs = [x, *([factors] if factors else []), *rounding]
    if width % MULTIPLE:
        return meaning(graph, *inputs)[0]
    result = f"{x}_rounded_{len(graph.nodes)}"
    graph.function("ScaleRound" if factors else "Round", inputs, [result], meaning)
    return result


def silu(graph: GraphBuilder, x: str) -> str:
    """x / (1 + e^-x), of any shape whose last dimension is a multiple of MULTIPLE."""
    result = f"{x}_silu"

    def meaning(body: GraphBuilder, x: str) -> list[str]:
        return [body.op("Mul", x, body.op("Sigmoid", x))]

    graph.function("Silu", [x], [result], meaning)
    return result


def embed(graph: GraphBuilder, ids: str, positions: str, table: Sequence[str], factor: float, places: str) -> str:
    """Rows ``ids`` (R,) of an embedding times ``factor``, plus rows ``positions`` (R,) int32 of ``places``: (R, 1, M).

    Args:
        table: the embedding (V, M); or its 8-bit numbers and their scales (V,).
    """

    def meaning(body: GraphBuilder, ids: str, positions: str, *more: str) -> list[str]:
        *table, factor, places = more
        vectors = body.op("Gather", table[0], ids)
        if len(table) > 1:
            vectors = body.op("DequantizeLinear", vectors, body.op("Gather", table[1], ids), axis=0)
        added = body.op("Add", body.op("Mul", vectors, factor), body.op("Gather", places, positions))
        return [body.op("Unsqueeze", added, body.constant([1], np.int64))]

    inputs = [ids, positions, *table, graph.constant(factor, np.float32), places]
    graph.function("EmbedInt8" if len(table) > 1 else "Embed", inputs, ["embedded"], meaning)
    return "embedded"


def embed_packed(graph: GraphBuilder, ids: str, lengths: str, table: Sequence[str], factor: float, places: str) -> str:
    """Rows ``ids`` (B, S) of an embedding times ``factor``, plus the places (S, M) in the sentence: (P, M)."""

    def meaning(body: GraphBuilder, ids: str, lengths: str, *more: str) -> list[str]:
        *table, factor, places = more
        packing = Packing(body, ids, lengths)
        packed = packing.pack(body.reshape(ids, [-1]))
        vectors = body.op("Gather", table[0], packed)
        if len(table) > 1:
            vectors = body.op("DequantizeLinear", vectors, body.op("Gather", table[1], packed), axis=0)
        places = body.op("Gather", places, packing.positions)
        return [body.op("Add", body.op("Mul", vectors, factor), places)]

    inputs = [ids, lengths, *table, graph.constant(factor, np.float32), places]
    graph.function("EmbedPackedInt8" if len(table) > 1 else "EmbedPacked", inputs, ["embedded"], meaning)
    return "embedded"


def norm_round(graph: GraphBuilder, x: str, norm: tuple[str, str, float], rounding: Rounding) -> str:
    """The norm of x, rounded. norm: weight, bias, epsilon."""
    weight, bias, epsilon = norm
    result = f"{x}_normed_{len(graph.nodes)}"

    def meaning(body: GraphBuilder, x: str, weight: str, bias: str, *rounding: str) -> list[str]:
        return [rounded(body, body.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=epsilon), rounding)]

    graph.function("NormRound", [x, weight, bias, *rounding], [result], meaning, epsilon=epsilon)
    return result


def add_norm(
    graph: GraphBuilder, x: str, update: str, norm: tuple[str, str, float], total: str, rounding: Rounding | None
) -> str:
    """``total`` becomes x + update; returns its norm, rounded or not. norm: weight, bias, epsilon."""
    weight, bias, epsilon = norm
    name, result = ("AddNormRound", f"{total}_rounded") if rounding else ("AddNorm", f"{total}_normed")

    def meaning(body: GraphBuilder, x: str, update: str, weight: str, bias: str, *rounding: str) -> list[str]:
        added = body.op("Add", x, update)
        normed = body.op("LayerNormalization", added, weight, bias, axis=-1, epsilon=epsilon)
        return [added, rounded(body, normed, rounding)]

    graph.function(name, [x, update, weight, bias, *(rounding or ())], [total, result], meaning, epsilon=epsilon)
    return result


class Buffers(NamedTuple):
    """The cache of one attention layer in a graph.

    Attributes:
        past, present: keys and values, as they enter and leave. lengths: of what is there. capacity: of the buffers.
        scales: of 8-bit numbers; none of others.
    """

    past: list[str]
    present: list[str]
    lengths: str
    capacity: str
    scales: list[str]


def group_query_attention(
    graph: GraphBuilder, query: str, key: str, value: str, buffers: Buffers, num_heads: int, groups: int
) -> list[str]:
    """The result and the buffers as they leave. With ``groups``, as many queries share a head's keys and values."""
    inputs = [query, key, value, *buffers.past, buffers.lengths, buffers.capacity]
    attributes: dict[str, object] = {"num_heads": num_heads * groups, "kv_num_heads": num_heads}
    if buffers.scales:
        inputs += [*[""] * NUM_UNUSED_INPUTS, *buffers.scales]
        attributes |= {"kv_cache_bit_width": 8, "k_quant_type": "PER_TENSOR", "v_quant_type": "PER_TENSOR"}
    return graph.ops(
        "GroupQueryAttention", *inputs, num_outputs=3, outputs=buffers.present, domain=CONTRIB, **attributes
    )


def kind_of(name: str, buffers: Buffers, rounding: Rounding | None) -> str:
    return name + ("Int8" if buffers.scales else "") + ("Round" if rounding else "")


def self_attention(
    graph: GraphBuilder, joined: str, buffers: Buffers, num_heads: int, rounding: Rounding | None
) -> str:
    """joined (R, 1, 3 * M): query, key and value of one token a row. Returns contexts (R, 1, M), rounded or not."""
    result = f"{buffers.present[0]}_context"

    def meaning(
        body: GraphBuilder, joined: str, key: str, value: str, lengths: str, capacity: str, *more: str
    ) -> list[str]:
        scales, rounding = list(more[: len(buffers.scales)]), more[len(buffers.scales) :]
        inner = Buffers([key, value], ["present_key", "present_value"], lengths, capacity, scales)
        context, *present = group_query_attention(body, joined, "", "", inner, num_heads, groups=1)
        return [rounded(body, context, rounding), *present]

    inputs = [joined, *buffers.past, buffers.lengths, buffers.capacity, *buffers.scales, *(rounding or ())]
    name = kind_of("SelfAttention", buffers, rounding)
    graph.function(name, inputs, [result, *buffers.present], meaning, num_heads=num_heads)
    return result


class BeamPlaces(NamedTuple):
    """Inputs of a step that say which row is which beam, and keys of no length (export/graphs.py)."""

    row_queries: str
    query_rows: str
    no_keys: str


def cross_attention(
    graph: GraphBuilder,
    query: str,
    buffers: Buffers,
    places: BeamPlaces,
    sizes: tuple[int, int, int],
    rounding: Rounding | None,
) -> str:
    """query (R, 1, M) over the sentence of each row; sizes: heads, beams, M. Contexts (R, 1, M), rounded or not."""
    num_heads, num_beams, _ = sizes
    result = f"{buffers.present[0]}_context"

    def meaning(
        body: GraphBuilder, query: str, key: str, value: str, lengths: str, capacity: str, *more: str
    ) -> list[str]:
        inner_places = BeamPlaces(*more[:3])
        scales, rounding = list(more[3 : 3 + len(buffers.scales)]), more[3 + len(buffers.scales) :]
        inner = Buffers([key, value], ["present_key", "present_value"], lengths, capacity, scales)
        context, *present = attend_by_groups(body, query, inner, inner_places, sizes)
        return [rounded(body, context, rounding), *present]

    inputs = [query, *buffers.past, buffers.lengths, buffers.capacity, *places, *buffers.scales, *(rounding or ())]
    name = kind_of("CrossAttention", buffers, rounding)
    attributes = {"num_heads": num_heads, "num_beams": num_beams}
    graph.function(name, inputs, [result, *buffers.present], meaning, **attributes)
    return result


def attend_by_groups(
    graph: GraphBuilder, query: str, buffers: Buffers, places: BeamPlaces, sizes: tuple[int, int, int]
) -> list[str]:
    """Cross-attention; the beams of a sentence are groups of query heads over its one set of keys and values."""
    num_heads, num_beams, width = sizes
    query, no_keys, head_width = graph.op("Gather", query, places.query_rows), places.no_keys, width // num_heads
    if num_beams > 1:
        query = swap_beams_and_heads(graph, query, (num_beams, num_heads, head_width), num_beams * width)
    context, *present = group_query_attention(graph, query, no_keys, no_keys, buffers, num_heads, num_beams)
    if num_beams > 1:
        context = swap_beams_and_heads(graph, context, (num_heads, num_beams, head_width), width)
    return [graph.op("Gather", context, places.row_queries), *present]


def swap_beams_and_heads(graph: GraphBuilder, x: str, sizes: tuple[int, int, int], width: int) -> str:
    """x of ``sizes`` (N, first, second, D) -> (N, second, first, D), as (..., 1, width)."""
    x = graph.reshape(x, [-1, *sizes])
    return graph.reshape(graph.op("Transpose", x, perm=[0, 2, 1, 3]), [-1, 1, width])


def packed_attention(
    graph: GraphBuilder, inputs: Sequence[str], num_heads: int, plain: Callable[..., str], rounding: Rounding | None
) -> str:
    """Self-attention of all tokens (P, 3 * M) of sentences: contexts (P, M), rounded or not.

    Args:
        inputs: the tokens' queries, keys and values; lengths (B,); ids (B, S), which only ``plain`` reads.
        plain: the same of ONNX's operators, of a builder and ``inputs``.
    """
    result = f"{inputs[0]}_context"

    def meaning(body: GraphBuilder, *more: str) -> list[str]:
        return [rounded(body, plain(body, *more[: len(inputs)]), more[len(inputs) :])]

    name = "PackedAttentionRound" if rounding else "PackedAttention"
    graph.function(name, [*inputs, *(rounding or ())], [result], meaning, num_heads=num_heads)
    return result


def unpack_heads(
    graph: GraphBuilder, inputs: Sequence[str], num_heads: int, plain: Callable[..., str], scale: str, result: str
) -> None:
    """Keys or values of all tokens as they are cached, (B, H, S, D), called ``result``.

    Args:
        inputs: keys or values (P, M), lengths (B,), ids (B, S), of which only the shape matters.
        plain: the same of ONNX's operators, of a builder and ``inputs``, but for the rounding.
        scale: of 8-bit numbers; empty for others.
    """

    def meaning(body: GraphBuilder, x: str, lengths: str, ids: str, *scale: str) -> list[str]:
        x = body.op("QuantizeLinear", x, *scale, body.constant(0, np.int8)) if scale else x
        return [plain(body, x, lengths, ids)]

    name = "UnpackHeadsInt8" if scale else "UnpackHeads"
    graph.function(name, [*inputs, scale] if scale else inputs, [result], meaning, num_heads=num_heads)


def likely_candidates(graph: GraphBuilder, logits: str, count: str, vocab_size: int, is_fused: bool) -> tuple[str, str]:
    """logits (R, 1, V) to the ``count`` best log-probabilities of each row and their ids, (R, C) each, best first."""

    def meaning(body: GraphBuilder, logits: str, count: str) -> tuple[str, str]:
        return best_candidates(body, body.op("LogSoftmax", logits, axis=-1), count, vocab_size)

    if not is_fused:
        return meaning(graph, logits, count)
    results = ("candidate_log_probabilities", "candidate_ids")
    graph.function("BestCandidates", [logits, count], results, meaning)
    return results
