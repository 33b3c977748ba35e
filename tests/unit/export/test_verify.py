"""Verification passes on what was exported, and fails on each planted mistake."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from export import fused, write_bundle
from export.chain import ENCODER, STEP, nodes_of
from export.graph_builder import CONTRIB, GraphBuilder
from export.layers import Layers
from export.matrices import PerRowInt8
from export.packing import Packing
from export.verify import VerificationError
from export.write_bundle import ExportError, whole_or_nothing
from model.transformer import Transformer
from service.runtime.bundle import Bundle
from service.runtime.kv_cache import KVCache
from service.runtime.session import Sessions
from tests.conftest import random_model, sentences

Make = Callable[..., Path]
Plant = Callable[[pytest.MonkeyPatch], None]


@pytest.mark.parametrize(
    "changes",
    [
        {"norm": "post", "activation": "gelu"},
        {"activation": "silu", "num_encoder_layers": 3, "num_decoder_layers": 1},
        {"tie_embeddings": False, "output_bias": False, "scale_embeddings": False},
        {"num_heads": 4, "position_formula": "paper", "position_offset": 0},
    ],
)
def test_every_kind_of_model_is_exported_exactly(changes: dict[str, object], make_bundle: Make, tmp_path: Path) -> None:
    make_bundle(random_model(**changes), tmp_path / "bundle")
    Bundle.open(tmp_path / "bundle")


def plant_wrong_source_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    original: Any = Packing.mask.func

    def no_mask(packing: Packing) -> str:
        return packing.graph.op("Max", original(packing), packing.graph.constant(0.0, np.float32))

    monkeypatch.setattr(Packing, "mask", property(no_mask))


def plant_no_causal_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    from export import graphs

    original = graphs.causal_mask
    monkeypatch.setattr(
        graphs,
        "causal_mask",
        lambda graph, length: graph.op("Max", original(graph, length), graph.constant(0.0, np.float32)),
    )


def plant_shifted_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    original = write_bundle.state_arrays
    monkeypatch.setattr(
        write_bundle,
        "state_arrays",
        lambda model: original(model) | {"positions": np.roll(original(model)["positions"], 1, 0)},
    )


def plant_swapped_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    def swapped(graph: GraphBuilder, x: str, sizes: tuple[int, int, int], width: int) -> str:
        return graph.reshape(x, [-1, 1, width])  # beams and heads stay in the order of the queries

    monkeypatch.setattr(fused, "swap_beams_and_heads", swapped)


def plant_swapped_keys_and_values(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Layers.linear

    def linear(self: Layers, x: str, *names: str) -> str:
        order = [names[0], names[2], names[1]] if len(names) == 3 else list(names)
        return original(self, x, *order)

    monkeypatch.setattr(Layers, "linear", linear)


def plant_one_scale_for_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The obvious int8: one activation scale for all rows, so that a row depends on its neighbours."""

    def multiply(self: PerRowInt8, graph: object, x: str, columns: str, scales: str) -> str:
        return graph.op("DynamicQuantizeMatMul", x, columns, scales, domain=CONTRIB)  # type: ignore[attr-defined]

    monkeypatch.setattr(PerRowInt8, "multiply", multiply)


@pytest.mark.parametrize("precision", ["cpu-fp32", "cpu-int8"])
@pytest.mark.parametrize(
    "plant",
    [
        plant_wrong_source_mask,
        plant_no_causal_mask,
        plant_shifted_positions,
        plant_swapped_heads,
        plant_swapped_keys_and_values,
    ],
)
def test_a_planted_mistake_is_found(
    plant: Plant,
    precision: str,
    random_transformer: Transformer,
    make_bundle: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch)
    with pytest.raises(VerificationError):
        make_bundle(random_transformer, tmp_path / "bundle", precisions=(precision,))
    assert not (tmp_path / "bundle").exists()
    assert not list(tmp_path.glob("*.partial"))


def test_int8_that_depends_on_its_batch_is_found(
    random_transformer: Transformer, make_bundle: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant_one_scale_for_the_batch(monkeypatch)
    with pytest.raises(VerificationError, match="otherwise in a batch"):
        make_bundle(random_transformer, tmp_path / "bundle", precisions=("cpu-int8",))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"precisions": ("cpu-int4",)}, "cpu-int4"),
        ({"max_source_tokens": 97}, r"max_source_tokens \(97\)"),
        ({"max_target_tokens": 1}, r"max_target_tokens \(1\)"),
    ],
)
def test_options_out_of_range_are_refused(
    options: dict[str, object], complaint: str, random_transformer: Transformer, make_bundle: Make, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=complaint):
        make_bundle(random_transformer, tmp_path / "bundle", **options)


def test_a_folder_of_something_else_is_not_overwritten(
    random_transformer: Transformer, make_bundle: Make, tmp_path: Path
) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    with pytest.raises(ExportError, match="is not a bundle"):
        make_bundle(random_transformer, tmp_path / "precious")
    assert (tmp_path / "precious" / "thesis.txt").exists()


def test_fixed_scales_are_exact_enough_and_planted_mistakes_are_still_found(
    random_transformer: Transformer, make_bundle: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = tuple(sentences(40))
    bundle = make_bundle(random_transformer, tmp_path / "bundle", precisions=("cpu-int8",), calibration_texts=texts)
    assert cache_of(bundle, "cpu-int8").dtype == np.int8
    plant_shifted_positions(monkeypatch)
    with pytest.raises(VerificationError):
        make_bundle(random_transformer, tmp_path / "other", precisions=("cpu-int8",), calibration_texts=texts)


PRODUCTS = {"Product", "ProductRound"}
ROUNDINGS = {"Round", "ScaleRound"}  # of their inputs, where nothing before does it


@pytest.mark.parametrize("shape", [{}, {"norm": "post", "activation": "silu"}], ids=["pre", "post"])
@pytest.mark.parametrize("num_heads", [2, 4])
def test_graphs_have_our_operators_where_the_kernels_take_the_model(
    num_heads: int, shape: dict[str, object], make_bundle: Make, tmp_path: Path
) -> None:
    """Heads of 16 numbers and of 8, which the checks of an export pass with few operators that are not ONNX's. Where
    all that is multiplied is rounded with fixed scales it is one node."""
    texts = tuple(sentences(40))
    model = random_model(3.0, num_heads=num_heads, **shape)
    make_bundle(model, tmp_path / "bundle", calibration_texts=texts)
    products = PRODUCTS - ({"ProductRound"} if shape else set())
    for precision in ("cpu-int8", "cpu-fp32"):
        for graph in ("encoder", "decoder-1", "decoder-4"):
            made = onnx.load(str(tmp_path / "bundle" / precision / f"{graph}.onnx"), load_external_data=False)
            outside = {node.op_type for node in made.graph.node if node.domain == "dragoman"}
            kinds = {node.op_type for node in nodes_of(made) if node.domain == "dragoman"}
            assert kinds & PRODUCTS == (products if precision == "cpu-int8" else set())
            assert bool(kinds - PRODUCTS - ROUNDINGS) == (num_heads == 2)
            assert outside | kinds == {function.name for function in made.functions}
            is_chain = num_heads == 2 and precision == "cpu-int8"
            assert (len(made.graph.node) == 1) == is_chain
            if is_chain:
                assert outside == {ENCODER if graph == "encoder" else STEP}


@pytest.mark.parametrize("shape", [{}, {"norm": "post", "activation": "silu"}], ids=["pre", "post"])
def test_widths_that_the_kernels_do_not_take(shape: dict[str, object], make_bundle: Make, tmp_path: Path) -> None:
    """Not even products of them: there are no groups of four."""
    model = random_model(2.0, feed_forward_width=30, **shape)
    make_bundle(model, tmp_path / "bundle", precisions=("cpu-int8",), calibration_texts=tuple(sentences(40)))


def test_keys_and_values_stay_as_they_are_where_nothing_says_how_large_they_are(
    random_transformer: Transformer, make_bundle: Make, tmp_path: Path
) -> None:
    bundle = make_bundle(random_transformer, tmp_path / "bundle", precisions=("cpu-int8", "cpu-fp32"))
    assert [cache_of(bundle, precision).dtype for precision in ("cpu-int8", "cpu-fp32")] == [np.float32, np.float32]


def cache_of(bundle: Path, precision: str) -> KVCache:
    """The cache that a worker has for the graphs of a bundle."""
    opened = Bundle.open(bundle)
    return Sessions(opened, precision, num_threads=1).make_cache(2, 16, 16)


@pytest.mark.parametrize("stopped_at", [None, "before", "after"])
def test_a_bundle_takes_the_place_of_another_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped_at: str | None
) -> None:
    """Also where somebody stops it while the old one is put aside."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "old").touch()
    rename = Path.rename

    def stopped(path: Path, target: Path) -> Path:
        if path == folder and stopped_at == "before":
            raise KeyboardInterrupt
        renamed = rename(path, target)
        if path == folder and stopped_at == "after":
            monkeypatch.undo()
            raise KeyboardInterrupt
        return renamed

    monkeypatch.setattr(Path, "rename", stopped)
    with contextlib.suppress(KeyboardInterrupt), whole_or_nothing(folder) as partial:
        (partial / "new").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert [path.name for path in folder.iterdir()] == ["old" if stopped_at else "new"]


def test_a_bundle_that_a_kill_left_aside_comes_back(tmp_path: Path) -> None:
    aside = tmp_path / ".bundle.replaced"
    aside.mkdir()
    (aside / "old").touch()
    with pytest.raises(ExportError), whole_or_nothing(tmp_path / "bundle"):
        raise ExportError("nothing new came of it")
    assert [path.name for path in (tmp_path / "bundle").iterdir()] == ["old"]
