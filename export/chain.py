"""One node for all of a graph whose parts are operators of service/runtime/kernels.

Knows: names and attributes of nodes. Does not know: what they do.

ONNX Runtime takes a microsecond or two from one node to the next, and as long to share the work of each among threads:
half of the time of a step of one row. A chain is called once. Its meaning is the nodes that it took the place of; how
the library runs them is said in its attribute ``parts``, in words of service/runtime/kernels/make_node.c:

    parts INPUTS OUTPUTS VALUES PARTS          how many of each there are
    NAME ATTRIBUTES INPUTS OUTPUTS             of each part, values by their number: first the chain's inputs, then its
                                               outputs, then what parts pass on to each other; floats as their bits
"""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper

from export.graph_builder import CONTRIB, OPSET, OWN, GraphBuilder

ATTRIBUTES = ("num_heads", "num_beams", "epsilon")
STEP, ENCODER = "StepChain", "EncoderChain"


def number_of(attribute: onnx.AttributeProto) -> int:
    if attribute.type == onnx.AttributeProto.FLOAT:
        return int(np.float32(attribute.f).view(np.int32))
    return int(attribute.i)


def parts_of(nodes: Sequence[onnx.NodeProto], inputs: Sequence[str], outputs: Sequence[str]) -> str:
    """The attribute ``parts``."""
    places = {name: place for place, name in enumerate([*inputs, *outputs])}
    lines = []
    for node in nodes:
        for name in node.output:
            places.setdefault(name, len(places))
        numbers = {attribute.name: number_of(attribute) for attribute in node.attribute}
        words = [numbers[name] for name in ATTRIBUTES if name in numbers]
        words += [places[name] for name in [*node.input, *node.output]]
        lines.append(" ".join([node.op_type, *map(str, words)]))
    return " ".join(["parts", *map(str, (len(inputs), len(outputs), len(places), len(nodes))), *lines])


def chain(graph: GraphBuilder, name: str, outputs: Sequence[str]) -> None:
    """Makes one node ``name`` of all nodes, if these are operators of the library and multiply matrices.

    outputs: the values that leave the graph, in the order that the operator has them in.
    """
    nodes = list(graph.nodes)
    is_own = all(node.domain == OWN for node in nodes)
    if not is_own or not any(node.op_type.startswith("Product") for node in nodes):
        return
    made = {value for node in nodes for value in node.output}
    inputs = list(dict.fromkeys(value for node in nodes for value in node.input if value not in made))
    opsets = [helper.make_opsetid(domain, version) for domain, version in (("", OPSET), (CONTRIB, 1), (OWN, 1))]
    graph.functions[name] = helper.make_function(OWN, name, inputs, outputs, nodes, opsets, ["parts"])
    parts = parts_of(nodes, inputs, outputs)
    graph.nodes[:] = [helper.make_node(name, inputs, outputs, name=name, domain=OWN, parts=parts)]


def nodes_of(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes of a graph, those of its chain instead of this, by the same names of values."""
    functions = {function.name: function for function in model.functions}
    found: list[onnx.NodeProto] = []
    for node in model.graph.node:
        is_chain = node.domain == OWN and node.op_type in (STEP, ENCODER)
        found += functions[node.op_type].node if is_chain else [node]
    return found
