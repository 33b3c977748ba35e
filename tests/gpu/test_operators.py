"""Each operator of the graphs for CUDA against numpy: on the CPU provider by default, on a GPU with -m gpu."""

import numpy as np
import onnxruntime as ort
import pytest

from export.cache_graphs import move_graph, store_graph
from export.matrices import Float16
from service.runtime import gpu
from tests.conftest import random_model
from tests.gpu.operators import CASES, Case
from tests.unit.export.test_cuda_graphs import graphs_of

NEEDS_GPU = [pytest.mark.gpu, pytest.mark.skipif(bool(gpu.missing()), reason="needs a GPU")]
KINDS = ["cpu", pytest.param("cuda", marks=NEEDS_GPU)]
ELSEWHERE = {"GroupQueryAttention"}  # test_attention.py


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES, ids=[f"{case.operator}-{i}" for i, case in enumerate(CASES)])
def test_an_operator_is_what_numpy_says(case: Case, kind: str) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    provider = gpu.PROVIDER if kind == "cuda" else "CPUExecutionProvider"
    session = ort.InferenceSession(case.model().SerializeToString(), options, providers=[provider])
    assert provider in session.get_providers()
    found = session.run(None, {f"input_{i}": array for i, array in enumerate(case.inputs)})
    for array, wanted in zip(found, case.wanted, strict=True):
        assert (array.dtype, array.shape) == (wanted.dtype, wanted.shape)
        if case.tolerance == 0:
            assert np.array_equal(array, wanted)
        else:
            assert np.abs(array.astype(float) - wanted.astype(float)).max() <= case.tolerance


def test_every_operator_of_the_graphs_is_here() -> None:
    models = [
        random_model(norm="pre", activation="relu"),
        random_model(norm="post", activation="silu", tie_embeddings=True),
        random_model(norm="pre", activation="gelu", output_bias=False),
    ]
    graphs = [graph for model in models for graph in graphs_of(model, Float16()).values()]
    graphs += [move_graph(np.float16, 16), store_graph(np.float16, 2, 16)]
    used = {node.op_type for graph in graphs for node in graph.graph.node}
    assert used - ELSEWHERE - {case.operator for case in CASES} == set()
