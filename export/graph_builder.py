"""Writes an ONNX graph one operator at a time.

Knows: ONNX's names and versions. Does not know: what a Transformer is.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from export.weights_file import WeightsFile

# onnx writes newer versions by default than ONNX Runtime reads.
OPSET, IR_VERSION = 21, 10
CONTRIB = "com.microsoft"
OWN = "dragoman"
SMALL_BYTES = 1024  # smaller initializers stay in the graph

Shape = Sequence[int | str]


class GraphBuilder:
    """Nodes, inputs, outputs and initializers of one graph; every method returns the name of what it made."""

    def __init__(self, name: str, weights: WeightsFile) -> None:
        self.name, self.weights = name, weights
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.initializers: dict[str, TensorProto] = {}
        self.shared: dict[str, str] = {}  # values that several layers use, by what they are
        self.functions: dict[str, onnx.FunctionProto] = {}

    def input(self, name: str, dtype: type[np.generic], shape: Shape) -> str:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self.inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def output(self, value: str, name: str, dtype: type[np.generic], shape: Shape) -> None:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self.outputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        if value != name:
            self.nodes.append(helper.make_node("Identity", [value], [name]))

    def constant(self, values: object, dtype: type[np.generic]) -> str:
        """A small constant; equal ones are shared."""
        array = np.asarray(values, dtype)
        name = f"const_{array.dtype.name}_{'x'.join(map(str, array.shape))}_{array.tobytes().hex()}"
        return self.weight(name, array)

    def weight(self, name: str, values: NDArray[np.generic], is_inside: bool = False) -> str:
        """An initializer; ``is_inside``: in the graph itself, whatever its size."""
        if name not in self.initializers:
            small = is_inside or values.nbytes <= SMALL_BYTES
            self.initializers[name] = (
                onnx.numpy_helper.from_array(np.ascontiguousarray(values), name)
                if small
                else self.weights.reference(name, values)
            )
        return name

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        return self.ops(kind, *inputs, num_outputs=1, domain=domain, **attributes)[0]

    def ops(
        self,
        kind: str,
        *inputs: str,
        num_outputs: int,
        domain: str = "",
        outputs: Sequence[str] = (),
        **attributes: Any,
    ) -> list[str]:
        """A node with several outputs; ``outputs`` names the last of them (those that leave the graph)."""
        stem = f"{kind}_{len(self.nodes)}"
        names = [f"{stem}_{i}" for i in range(num_outputs - len(outputs))] + list(outputs)
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=stem, domain=domain, **attributes))
        return names

    def function(
        self,
        name: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        meaning: Callable[..., Sequence[str]],
        **attributes: int | float,
    ) -> None:
        """A node of the operator ``name`` of service/runtime/kernels, whose results are called ``outputs``.

        ``meaning`` builds the same of ONNX's operators: it takes a builder and the inputs, and returns the outputs. It
        goes into the model as a function, which ONNX Runtime puts in the node's place where it knows no such operator.
        A graph may hold several nodes of a name; their meaning and attributes must be the same.
        """
        if name not in self.functions:
            body = FunctionBuilder(name)
            own_inputs = [f"input_{i}" for i in range(len(inputs))]
            results = list(meaning(body, *own_inputs))
            opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
            self.functions[name] = helper.make_function(
                OWN, name, own_inputs, results, body.nodes, opsets, list(attributes)
            )
        node = helper.make_node(name, list(inputs), list(outputs), name=f"{name}_{len(self.nodes)}", domain=OWN)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)

    def reshape(self, value: str, shape: Sequence[int]) -> str:
        return self.op("Reshape", value, self.constant(list(shape), np.int64))

    def model(self) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, self.name, self.inputs, self.outputs, list(self.initializers.values()))
        domains = {"": OPSET, CONTRIB: 1} | ({OWN: 1} if self.functions else {})
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid(domain, version) for domain, version in domains.items()],
            functions=list(self.functions.values()),
            ir_version=IR_VERSION,
            producer_name="dragoman",
        )


class FunctionBuilder(GraphBuilder):
    """The nodes of a function: its constants are nodes, since functions have no initializers."""

    def __init__(self, name: str) -> None:
        super().__init__(name, WeightsFile(""))

    def weight(self, name: str, values: NDArray[np.generic], is_inside: bool = False) -> str:
        if name not in self.shared:
            tensor = onnx.numpy_helper.from_array(np.ascontiguousarray(values), name)
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
            self.shared[name] = name
        return name
