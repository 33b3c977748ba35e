"""Two small graphs by which a cache in device memory is changed in place.

Knows: operators. Does not know: models, who moves what. A block is all layers' keys and values of one kind, seen as an
array of chunks (n, w): CHUNK positions of one head, one after the other, w = CHUNK x D numbers. So what is moved is as
long as the sentence, not as the room it may take. The caller binds block and result to the same memory, so that only
what is written is touched. A place is the number of a chunk; what is done is done in A arrays (heads of layers' keys
and values) alike, whose first chunks are ``starts``.

CUDA's ScatterND gives each index one thread, which copies number by number. So it is given pieces of PIECE numbers, and
the result is the block seen as an array of these.

Move      block, starts (A, 1), sources (c,), targets (c,) -> block with its chunks ``sources`` also at ``targets``
Store     block, cross_key_i, cross_value_i (B, H, S, D) of the encoder, pads (8,): what makes S whole chunks;
          source_starts (A, 1), sources (c,): places in their concatenation; starts, targets as above
          -> block with these chunks at ``targets``
"""

from typing import Any

import numpy as np
import onnx

from export.graph_builder import GraphBuilder
from export.weights_file import WeightsFile

Dtype = type[np.floating[Any]]
CHUNK = 32  # positions; most sentences are shorter
PIECE = 16  # numbers: 32 bytes of float16, what the memory of a GPU moves at a time


def move_graph(dtype: Dtype, head_width: int) -> onnx.ModelProto:
    graph, block = with_block("move", dtype, head_width)
    starts = graph.input("starts", np.int64, ["A", 1])
    chunks = graph.op("Gather", block, places(graph, starts, "sources", [-1]))
    return written(graph, block, starts, chunks, dtype, head_width)


def store_graph(dtype: Dtype, num_decoder_layers: int, head_width: int) -> onnx.ModelProto:
    graph, block = with_block("store", dtype, head_width)
    names = [f"cross_{part}_{i}" for i in range(num_decoder_layers) for part in ("key", "value")]
    arrays = [graph.input(name, dtype, ["B", "H", "S", head_width]) for name in names]
    pads = graph.input("pads", np.int64, [8])
    source_starts, starts = (graph.input(name, np.int64, ["A", 1]) for name in ("source_starts", "starts"))
    padded = graph.op("Pad", graph.op("Concat", *arrays, axis=0), pads)
    chunks = graph.op(
        "Gather", graph.reshape(padded, [-1, CHUNK * head_width]), places(graph, source_starts, "sources", [-1])
    )
    return written(graph, block, starts, chunks, dtype, head_width)


def with_block(name: str, dtype: Dtype, head_width: int) -> tuple[GraphBuilder, str]:
    graph = GraphBuilder(name, WeightsFile("none"))
    return graph, graph.input("block", dtype, ["n", CHUNK * head_width])


def places(graph: GraphBuilder, starts: str, name: str, shape: list[int]) -> str:
    """Input ``name`` (c,) in each of the arrays: A * c places, in ``shape``."""
    return graph.reshape(graph.op("Add", starts, graph.input(name, np.int64, ["c"])), shape)


def written(
    graph: GraphBuilder, block: str, starts: str, chunks: str, dtype: Dtype, head_width: int
) -> onnx.ModelProto:
    """ScatterND itself must give the result: a copy behind it would be of the whole block."""
    piece = np.gcd(CHUNK * head_width, PIECE)
    count = CHUNK * head_width // piece
    pieces = graph.reshape(block, [-1, piece])  # the same memory
    firsts = graph.op("Mul", places(graph, starts, "targets", [-1, 1]), graph.constant(count, np.int64))
    numbers = graph.weight("piece_numbers", np.arange(count, dtype=np.int64), is_inside=True)
    targets = graph.reshape(graph.op("Add", firsts, numbers), [-1, 1])
    updates = graph.reshape(chunks, [-1, piece])
    graph.ops("ScatterND", pieces, targets, updates, num_outputs=1, outputs=["result"])
    graph.output("result", "result", dtype, ["p", int(piece)])
    return graph.model()
