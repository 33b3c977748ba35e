"""Each operator of the graphs for CUDA alone, with the types, attributes and shapes that they have there, beside numpy.

Knows: what each operator means. Does not know: providers (test_operators.py). Attention: test_attention.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import erf
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from export.graph_builder import IR_VERSION, OPSET

Array = NDArray[Any]
ROWS, WIDTH, VOCAB_SIZE = 24, 512, 8000
rng = np.random.default_rng(1)


@dataclass(frozen=True)
class Case:
    """One operator on some inputs. tolerance: of the largest difference; 0: bit for bit."""

    operator: str
    inputs: Sequence[Array]
    wanted: Sequence[Array]
    tolerance: float = 0.0
    attributes: dict[str, Any] = field(default_factory=dict)

    def model(self) -> onnx.ModelProto:
        kinds = [helper.np_dtype_to_tensor_dtype(array.dtype) for array in (*self.inputs, *self.wanted)]
        names = [f"input_{i}" for i in range(len(self.inputs))], [f"output_{i}" for i in range(len(self.wanted))]
        typed = zip([*names[0], *names[1]], kinds, strict=True)
        values = [helper.make_tensor_value_info(name, kind, None) for name, kind in typed]
        node = helper.make_node(self.operator, *names, **self.attributes)
        graph = helper.make_graph([node], "alone", values[: len(self.inputs)], values[len(self.inputs) :])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def half(*shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float16)


def single(*shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


def integers(*values: int) -> Array:
    return np.array(values, np.int64)


def scalar(value: int, dtype: type = np.int64) -> Array:
    return np.array(value, dtype)


def ids(count: int, limit: int, dtype: type = np.int64) -> Array:
    return rng.integers(0, limit, count).astype(dtype)


def as_half(values: Array) -> Array:
    return np.asarray(values, np.float64).astype(np.float16)


def wide(values: Array) -> Array:
    return values.astype(np.float64)


def softmax(values: Array) -> Array:
    powers = np.exp(wide(values) - wide(values).max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def products() -> list[Case]:
    """Of rows and weights, of attention's heads, and of states and the vocabulary, the last in float32."""
    x, weight = half(ROWS, WIDTH), as_half(rng.standard_normal((WIDTH, 1536)) * WIDTH**-0.5)
    query, key = as_half(half(3, 8, 20, 64) / 8), half(3, 8, 64, 20)
    states, table = half(ROWS, WIDTH).astype(np.float32), single(WIDTH, VOCAB_SIZE) * np.float32(WIDTH**-0.5)
    return [
        Case("MatMul", [x, weight], [as_half(wide(x) @ wide(weight))], 0.01),
        Case("MatMul", [x[:1], weight], [as_half(wide(x[:1]) @ wide(weight))], 0.01),
        Case("MatMul", [query, key], [as_half(wide(query) @ wide(key))], 0.01),
        # TF32 rounds the weights to 11 bits, as float16 would.
        Case("MatMul", [states, table], [(wide(states) @ wide(table)).astype(np.float32)], 0.01),
    ]


def sums() -> list[Case]:
    a, b, c = half(ROWS, WIDTH), half(ROWS, WIDTH), single(ROWS, WIDTH)
    numbers = rng.integers(0, 999, 7)
    is_token = rng.random((ROWS, 20)) < 0.5
    return [
        Case("Add", [a, b], [as_half(wide(a) + wide(b))], 0.01),
        Case("Add", [a, b[0]], [as_half(wide(a) + wide(b[0]))], 0.01),
        Case("Add", [c, c], [c + c]),
        Case("Add", [numbers[:, None], numbers], [numbers[:, None] + numbers]),
        Case("Mul", [a, as_half(np.array(0.125))], [as_half(wide(a) * 0.125)]),
        Case("Mul", [c, scalar(16, np.float32)], [c * 16]),
        Case("Mul", [a, b], [as_half(wide(a) * wide(b))], 0.01),
        Case("Sub", [numbers, scalar(1)], [numbers - 1]),
        Case("Mod", [numbers, integers(20)], [numbers % 20]),
        Case("CumSum", [numbers, scalar(0)], [np.cumsum(numbers)]),
        Case("Less", [np.arange(20), integers(3, 20, 1)[:, None]], [np.arange(20) < np.array([[3], [20], [1]])]),
        Case("ReduceMean", [a.reshape(3, 8, ROWS // 3, 64)[..., :20], integers(1)],
             [as_half(wide(a.reshape(3, 8, ROWS // 3, 64)[..., :20]).mean(axis=1))], 0.002, {"keepdims": 0}),
        Case("Cast", [a], [a.astype(np.float32)], 0.0, {"to": TensorProto.FLOAT}),
        Case("Cast", [c], [c.astype(np.float16)], 0.0, {"to": TensorProto.FLOAT16}),
        Case("Cast", [is_token], [is_token.astype(np.int64)], 0.0, {"to": TensorProto.INT64}),
        Case("NonZero", [is_token.reshape(-1)], [is_token.reshape(-1).nonzero()[0][None]]),
    ]  # fmt: skip


def functions() -> list[Case]:
    x, large = half(ROWS, WIDTH), as_half(rng.standard_normal((ROWS, WIDTH)) * 200)
    scale, bias = half(WIDTH), half(WIDTH)
    centred = wide(large) - wide(large).mean(axis=1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
    scores = half(3, 8, 20, 20)
    scores[0, :, :, 5:] = -np.inf  # padding, as the encoder masks it
    logits = single(ROWS, VOCAB_SIZE) * 8
    gelu = wide(x) * 0.5 * (1 + np.vectorize(erf)(wide(x) / np.sqrt(2)))
    return [
        # Sums of squares of such numbers do not fit into float16.
        Case("LayerNormalization", [large, scale, bias], [as_half(normed * wide(scale) + wide(bias))], 0.03,
             {"axis": -1, "epsilon": 1e-5}),
        Case("Relu", [x], [np.maximum(x, np.float16(0))]),
        Case("Sigmoid", [x], [as_half(1 / (1 + np.exp(-wide(x))))], 0.002),
        Case("Gelu", [x], [as_half(gelu)], 0.01, {"approximate": "none"}),
        Case("Softmax", [scores], [as_half(softmax(scores))], 0.002, {"axis": -1}),
        Case("LogSoftmax", [logits], [np.log(softmax(logits)).astype(np.float32)], 1e-4, {"axis": -1}),
    ]  # fmt: skip


def best(count: int) -> Case:
    numbers = single(ROWS, VOCAB_SIZE)
    order = np.argsort(-numbers, axis=-1, kind="stable")[:, :count]
    return Case("TopK", [numbers, integers(count)], [np.take_along_axis(numbers, order, 1), order], 0.0, {"axis": -1})


def places() -> list[Case]:
    x, table, block = half(ROWS, WIDTH), single(VOCAB_SIZE, 64), half(60, 128)
    heads = half(ROWS, 8, 4, 64)
    tokens, moved = ids(ROWS, VOCAB_SIZE), half(5, 128)
    targets = rng.permutation(60)[:5][:, None]
    written = block.copy()
    written[targets[:, 0]] = moved
    is_token, numbers = rng.random((3, 20)) < 0.5, single(ROWS, VOCAB_SIZE)
    sources = half(4, 8, 20, 64)
    masked = np.where(is_token, np.float32(0), np.float32(-np.inf))
    chosen = tokens[:, None]
    return [
        Case("Gather", [table, tokens], [table[tokens]]),
        Case("Gather", [table, tokens.astype(np.int32)], [table[tokens]]),
        Case("Gather", [x, ids(31, ROWS)], []),
        Case("Gather", [block, targets[:, 0]], [block[targets[:, 0]]]),
        Case("GatherElements", [numbers, chosen], [np.take_along_axis(numbers, chosen, 1)], 0.0, {"axis": 1}),
        Case("ScatterND", [block, targets, moved], [written]),
        Case("Concat", [sources, sources], [np.concatenate([sources, sources])], 0.0, {"axis": 0}),
        Case("Concat", [integers(3, 20), integers(8, 64)], [integers(3, 20, 8, 64)], 0.0, {"axis": 0}),
        Case("Pad", [sources, integers(0, 0, 0, 0, 0, 0, 12, 0)],
             [np.pad(sources, [(0, 0), (0, 0), (0, 12), (0, 0)])]),
        Case("Pad", [sources, integers(0, 0, 0, 0, 0, 0, 0, 0)], [sources]),
        Case("Split", [half(ROWS, 12), integers(4, 4, 4)], [], 0.0, {"axis": 1}),
        Case("Transpose", [heads], [heads.transpose(0, 2, 1, 3)], 0.0, {"perm": [0, 2, 1, 3]}),
        Case("Transpose", [heads], [heads.transpose(0, 2, 3, 1)], 0.0, {"perm": [0, 2, 3, 1]}),
        Case("Transpose", [heads], [heads.transpose(0, 1, 3, 2)], 0.0, {"perm": [0, 1, 3, 2]}),
        Case("Transpose", [table], [table.T], 0.0, {"perm": [1, 0]}),
        Case("Reshape", [x, integers(-1, 1, WIDTH)], [x[:, None]]),
        Case("Shape", [x], [integers(ROWS, WIDTH)]),
        Case("Slice", [integers(3, 20), integers(1), integers(2)], [integers(20)]),
        Case("Squeeze", [integers(20)], [scalar(20)]),
        Case("Unsqueeze", [masked, integers(1, 2)], [masked[:, None, None]]),
        Case("Range", [scalar(0), scalar(20), scalar(1)],
             [np.arange(20)]),
        Case("Where", [is_token, np.zeros((), np.float32), np.full((), -np.inf, np.float32)], [masked]),
        Case("Identity", [x], [x]),
    ]  # fmt: skip


def completed(case: Case) -> Case:
    """Those whose result is easier said from the inputs."""
    if case.wanted:
        return case
    first, second = case.inputs
    wanted = [first[second]] if case.operator == "Gather" else np.split(first, len(second), axis=1)
    return Case(case.operator, case.inputs, [np.ascontiguousarray(part) for part in wanted], 0.0, case.attributes)


CASES = [
    *products(),
    *sums(),
    *functions(),
    *(best(count) for count in (2, 8, 32, 128)),
    *map(completed, places()),
]
