"""Graphs for CUDA from int8 weights: the model's shape is read off the graphs, its weights are the rounded ones."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from export.cli import run_derive
from export.derive import SOURCE, bundle_weights, config_of, derive_cuda, pytorch_model, state_of
from export.write_bundle import ExportError, state_arrays
from model.transformer import Transformer
from service.cli import build_parser
from service.errors import BundleError
from service.runtime.bundle import Bundle
from tests.conftest import END, random_model, sentences

SHAPES = [
    {"norm": "pre", "activation": "relu", "tie_embeddings": False},
    {"norm": "post", "activation": "silu", "scale_embeddings": False, "output_bias": False, "num_encoder_layers": 1},
    {"norm": "pre", "activation": "gelu", "norm_epsilon": 1e-6, "num_decoder_layers": 1},
]


def int8_bundle(make_bundle: Callable[..., Path], model: Transformer, folder: Path, texts: tuple[str, ...]) -> Path:
    return make_bundle(model, folder, precisions=(SOURCE,), calibration_texts=texts)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape['norm']}-{shape['activation']}")
def test_the_shape_and_the_weights_are_read_back(
    shape: dict[str, object], make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    model = random_model(**shape)
    bundle = Bundle.open(int8_bundle(make_bundle, model, tmp_path / "int8", ()))
    tensors, nodes = bundle_weights(bundle, SOURCE)
    state = state_of(tensors)
    found, wanted = config_of(bundle.manifest, state, nodes), model.config
    seen = ("feed_forward_width", "activation", "norm", "scale_embeddings", "tie_embeddings", "output_bias")
    assert {name: getattr(found, name) for name in seen} == {name: getattr(wanted, name) for name in seen}
    assert (found.max_positions, found.norm_epsilon) == (wanted.max_positions, wanted.norm_epsilon)
    for name, values in state_arrays(model).items():
        step = np.abs(values).max() / 127
        assert np.abs(np.asarray(state[name], np.float32) - values).max() <= step * 0.51, name


@pytest.mark.parametrize("shape", [*SHAPES, {"vocab_size": 8190}], ids=str)
@torch.inference_mode()
def test_the_pytorch_model_of_a_calibrated_bundle_is_the_one_that_was_exported(
    shape: dict[str, object], make_bundle: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.candidates.MIN_BLOCKS", 8)
    model = random_model(**shape)
    for name, parameter in model.named_parameters():
        if "embedding" not in name and parameter.dim() == 2:
            parameter.mul_(0.3)  # so large weights make too much of the rounding
    source = int8_bundle(make_bundle, model, tmp_path / "int8", tuple(sentences(40)))
    found = pytorch_model(Bundle.open(source), SOURCE)
    ids, target = torch.tensor([[5, 270, 300, END]]), torch.tensor([[END, 280, 290, 310]])
    lengths = torch.tensor([4])
    wanted = model(ids, lengths, target).log_softmax(-1)
    gaps = (found(ids, lengths, target).log_softmax(-1) - wanted).abs()[torch.isfinite(wanted)]
    assert float(gaps.mean()) < 0.05


@pytest.mark.parametrize("shape", [{}, SHAPES[1]], ids=["makers-divide", "graph-divides"])
def test_calibrated_weights_become_graphs_for_cuda_beside_their_own(
    shape: dict[str, object], make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    source = int8_bundle(make_bundle, random_model(**shape), tmp_path / "int8", tuple(sentences(40)))
    arguments = build_parser("derive-cuda").parse_args(["derive-cuda", str(source), str(tmp_path / "both")])
    assert arguments.run is run_derive
    assert arguments.run(arguments) == 0
    bundle = Bundle.open(tmp_path / "both")
    assert list(bundle.manifest.precisions) == [SOURCE, "cuda-fp16"]
    assert arguments.run(arguments) == 1  # it is there already
    with pytest.raises(ExportError, match="exists"):
        derive_cuda(source, tmp_path / "both")
    with pytest.raises(ExportError, match="would be copied into itself"):
        derive_cuda(source, source / "both")
    assert not list(source.glob("both*"))


def test_a_zip_that_cannot_be_derived_from_leaves_nothing_behind(
    make_bundle: Callable[..., Path], random_transformer: Transformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_bundle(random_transformer, tmp_path / "float32", precisions=("cpu-fp32",))
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", source))
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    with pytest.raises(BundleError, match="has no precision"):
        derive_cuda(packed, tmp_path / "both")
    assert not list(place.iterdir())


def test_weights_that_are_not_the_models_are_found(
    make_bundle: Callable[..., Path], random_transformer: Transformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = int8_bundle(make_bundle, random_transformer, tmp_path / "int8", tuple(sentences(40)))

    def swapped(tensors: object) -> dict[str, object]:
        state = dict(state_of(tensors))  # type: ignore[arg-type]
        key, value = "decoder.0.self_attention.key.weight", "decoder.0.self_attention.value.weight"
        state[key], state[value] = state[value], state[key]
        return state  # type: ignore[return-value]

    monkeypatch.setattr("export.derive.state_of", swapped)
    with pytest.raises(ExportError, match="This is a bug"):
        derive_cuda(source, tmp_path / "both")
    assert not (tmp_path / "both").exists()
