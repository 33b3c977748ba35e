"""Which operators ONNX Runtime's CUDA provider computes, with which types: docs/OperatorKernels.md of ONNX Runtime.

Only what graphs of ours use, in the versions that opset 21 asks for, and only the types that matter here.
"""

HALF, FLOAT, INT32, INT64, BOOL = "float16", "float", "int32", "int64", "bool"
ANY = {HALF, FLOAT, INT32, INT64, BOOL}
REAL = {HALF, FLOAT}
NUMBER = {HALF, FLOAT, INT32, INT64}
INDEX = {INT32, INT64}

# Operator -> types of each input; the last stands for all further ones.
KERNELS: dict[str, list[set[str]]] = {
    "Add": [NUMBER],
    "Cast": [ANY],
    "Concat": [ANY],
    "CumSum": [NUMBER, INDEX],
    "Gather": [ANY, INDEX],
    "GatherElements": [ANY, INDEX],
    "Gelu": [REAL],
    "GroupQueryAttention": [{HALF}, {HALF}, {HALF}, {HALF}, {HALF}, {INT32}, {INT32}],
    "Identity": [ANY],
    "LayerNormalization": [REAL],
    "Less": [NUMBER],
    "LogSoftmax": [REAL],
    "MatMul": [REAL],
    "Mod": [NUMBER],
    "Mul": [NUMBER],
    "NonZero": [{BOOL, FLOAT, HALF, INT32, INT64}],
    "Pad": [{BOOL, FLOAT, HALF}, {INT64}, {BOOL, FLOAT, HALF}],
    "Range": [{FLOAT, INT32, INT64}],
    "ReduceMean": [{FLOAT, HALF, INT32}, {INT64}],
    "Relu": [REAL],
    "Reshape": [ANY, {INT64}],
    "ScatterND": [ANY, {INT64}, ANY],
    "Shape": [ANY],
    "Sigmoid": [REAL],
    "Slice": [ANY, INDEX],
    "Softmax": [REAL],
    "Split": [ANY, {INT64}],
    "Squeeze": [ANY, {INT64}],
    "Sub": [NUMBER],
    "TopK": [NUMBER, {INT64}],
    "Transpose": [ANY],
    "Unsqueeze": [ANY, {INT64}],
    "Where": [{BOOL}, NUMBER],
}
# Inputs that the kernel reads in the host's memory, by place.
ON_HOST = {
    "CumSum": {1},
    "GroupQueryAttention": {6},
    "Pad": {1},
    "Range": {0, 1, 2},
    "ReduceMean": {1},
    "Reshape": {1},
    "Slice": {1, 2, 3, 4},
    "Split": {1},
    "Squeeze": {1},
    "TopK": {1},
    "Unsqueeze": {1},
}
