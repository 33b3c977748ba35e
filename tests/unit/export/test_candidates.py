"""The best candidates block by block are those of one look at all, and what pads a vocabulary has no part in them."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from export import write_bundle
from export.candidates import best_candidates, block_size, padded_size
from export.graph_builder import GraphBuilder
from export.graph_runner import GraphRunner
from export.matrices import Float32, PerRowInt8
from export.weights_file import WeightsFile
from model.transformer import Transformer
from tests.conftest import random_model

PRIME = 4099


def candidate_session(vocab_size: int) -> ort.InferenceSession:
    """``vocab_size`` 0: without blocks."""
    graph = GraphBuilder("candidates", WeightsFile("weights.bin"))
    graph.input("numbers", np.float32, ["R", 1, vocab_size or "V"])
    graph.input("count", np.int64, [1])
    values, ids = best_candidates(graph, "numbers", "count", vocab_size)
    graph.output(values, "values", np.float32, ["R", "C"])
    graph.output(ids, "ids", np.int64, ["R", "C"])
    return ort.InferenceSession(graph.model().SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("vocab_size", [4096, 8000, padded_size(62518), padded_size(9777)])
def test_blocks_give_the_same_as_one_look_at_all(vocab_size: int) -> None:
    rng = np.random.default_rng(vocab_size)
    numbers = rng.standard_normal((5, vocab_size)).astype(np.float32).round(1)  # many are equal
    numbers[3, 100:] = -np.inf
    blocks, plain = candidate_session(vocab_size), candidate_session(0)
    for count in (1, 2, 12, 40):
        feeds = {"numbers": numbers[:, None], "count": np.array([count])}
        for found, wanted in zip(blocks.run(None, feeds), plain.run(None, feeds), strict=True):
            assert (found == wanted).all()


def test_sizes_of_real_vocabularies() -> None:
    """Helsinki's and NLLB-200's; a fraction of a thousandth is added at most, and only where there is no good block."""
    for size in (58101, 59514, 62518, 64110, 65001, 128112, 256206):
        assert 0.5 <= block_size(padded_size(size)) / size**0.5 <= 2
        assert padded_size(size) - size < 10
    assert padded_size(8000) == 8000
    assert padded_size(318) == 318


def runner(model: Transformer, matrices: Float32 | PerRowInt8, folder: Path) -> GraphRunner:
    state = write_bundle.state_arrays(model)
    graphs = write_bundle.write_graphs(model, state, matrices, folder, "cpu")
    return GraphRunner(folder, graphs, write_bundle.shape_of(model), start=1)


@pytest.mark.parametrize("matrices", [Float32(), PerRowInt8()], ids=["fp32", "int8"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"tie_embeddings": False, "source_vocab_size": 301}, {"output_bias": False}],
    ids=["tied", "separate", "no bias"],
)
def test_padding_changes_no_number(
    changes: dict[str, object], matrices: Float32 | PerRowInt8, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model(vocab_size=PRIME, num_encoder_layers=1, num_decoder_layers=1, **changes)
    longer = runner(model, matrices, tmp_path / "longer")
    monkeypatch.setattr(write_bundle, "padded_size", lambda size: size)
    plain = runner(model, matrices, tmp_path / "plain")
    assert (tmp_path / "longer/cpu/weights.bin").stat().st_size > (tmp_path / "plain/cpu/weights.bin").stat().st_size
    results = []
    for each in (longer, plain):
        cross, lengths = each.encode([[5, 270, 300, 2], [290, 2]])
        for count in (8, PRIME):
            tokens, past = np.array([1, 7]), np.zeros(2)
            results.append(each.step(1, tokens, past, each.empty(2, 4), cross, lengths, 1, count)[:2])
        results.append(each.score([[5, 270, 2]], [[280, 4000, 2]]))
    for found, wanted in zip(results[:3], results[3:], strict=True):
        for ours, theirs in zip(found, wanted, strict=True):
            assert np.allclose(ours, theirs, rtol=0, atol=2e-6)
    assert int(results[1][0].max()) == PRIME - 1
