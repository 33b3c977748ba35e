"""Per-row int8 against numpy, on the rows that could go wrong."""

from pathlib import Path

import numpy as np
import onnxruntime as ort

from export.graph_builder import GraphBuilder
from export.matrices import Linear, PerRowInt8
from export.weights_file import WeightsFile


def run(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, folder: Path) -> np.ndarray:
    weights = WeightsFile("weights.bin")
    graph = GraphBuilder("linear", weights)
    graph.input("x", np.float32, ["N", x.shape[1]])
    result = PerRowInt8().linear(graph, "x", Linear("layer", weight, bias))
    graph.output(result, "y", np.float32, ["N", weight.shape[1]])
    weights.write(folder)
    (folder / "linear.onnx").write_bytes(graph.model().SerializeToString())
    options = ort.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")  # as services do where sums could saturate
    session = ort.InferenceSession(str(folder / "linear.onnx"), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["y"], {"x": x})[0])


def test_per_row_int8_is_near_the_product_and_exact_on_zero_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    weight = rng.standard_normal((64, 96)).astype(np.float32)
    weight[:, 7] = 0
    bias = rng.standard_normal(96).astype(np.float32)
    x = rng.standard_normal((9, 64)).astype(np.float32) * np.array([1e-30, 1e-3, 1, 1e3, 1e6, 1, 1, 1, 1])[:, None]
    x = x.astype(np.float32)
    x[5] = 0
    x[6] = 0
    x[6, 3] = 100.0  # one outlier makes a coarse scale for its own row, for no other
    y = run(x, weight, bias, tmp_path)
    wanted = x @ weight + bias
    assert (y[5] == bias).all()
    assert np.isfinite(y).all()
    limits = np.abs(x).max(axis=1, keepdims=True) * np.sqrt(64) * 0.05 + 1e-6
    assert (np.abs(y - wanted) <= limits).all()
    for row in range(len(x)):
        assert (run(x[row : row + 1], weight, bias, tmp_path) == y[row]).all()
