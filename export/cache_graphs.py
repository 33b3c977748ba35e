"""Two small graphs by which a cache in device memory is changed in place.

Knows: operators. Does not know: models, who moves what. A block is all layers' keys and values of one kind as one
array: (P, H, C, D), P = 2 L x rows or sentences, C positions of room. The caller binds block and result to the same
memory, so that only what is written is touched.

Move      block, sources (m,), targets (m, 1) int64 -> block with its rows ``sources`` also at ``targets``
Store     block, cross_key_i, cross_value_i (B, H, S, D) of the encoder, chosen (m,): rows of their concatenation,
          pads (8,): what makes S positions C of them, targets (m, 1)
          -> block with the chosen ones at ``targets``
"""

from typing import Any

import numpy as np
import onnx

from export.graph_builder import GraphBuilder
from export.weights_file import WeightsFile

Dtype = type[np.floating[Any]]
BLOCK = ("P", "H", "C", "D")


def move_graph(dtype: Dtype) -> onnx.ModelProto:
    graph = GraphBuilder("move", WeightsFile("none"))
    block = graph.input("block", dtype, BLOCK)
    sources, targets = graph.input("sources", np.int64, ["m"]), graph.input("targets", np.int64, ["m", 1])
    return written(graph, block, targets, graph.op("Gather", block, sources), dtype)


def store_graph(dtype: Dtype, num_decoder_layers: int) -> onnx.ModelProto:
    graph = GraphBuilder("store", WeightsFile("none"))
    block = graph.input("block", dtype, BLOCK)
    names = [f"cross_{part}_{i}" for i in range(num_decoder_layers) for part in ("key", "value")]
    arrays = [graph.input(name, dtype, ["B", "H", "S", "D"]) for name in names]
    chosen, targets = graph.input("chosen", np.int64, ["m"]), graph.input("targets", np.int64, ["m", 1])
    pads = graph.input("pads", np.int64, [8])
    new = graph.op("Gather", graph.op("Concat", *arrays, axis=0), chosen)
    return written(graph, block, targets, graph.op("Pad", new, pads), dtype)


def written(graph: GraphBuilder, block: str, targets: str, values: str, dtype: Dtype) -> onnx.ModelProto:
    """ScatterND itself must give the result: a copy behind it would be of the whole block."""
    graph.ops("ScatterND", block, targets, values, num_outputs=1, outputs=["result"])
    graph.output("result", "result", dtype, BLOCK)
    return graph.model()
