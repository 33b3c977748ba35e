"""Each operator of service/runtime/kernels computes what its meaning in ONNX's operators does, whatever the batch."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from export import fused
from export.graph_builder import GraphBuilder
from export.weights_file import WeightsFile
from service.runtime import kernels

Arrays = dict[str, np.ndarray]
HEADS = 4
needs_kernels = pytest.mark.skipif(
    kernels.library() is None,
    reason="built without libdragoman.so (no C compiler), or no AVX2, or DRAGOMAN_KERNELS=none",
)
pytestmark = needs_kernels


def session(model: bytes, with_kernels: bool, num_threads: int = 1) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = num_threads
    options.add_session_config_entry("session.x64quantprecision", "1")
    if with_kernels:
        options.register_custom_ops_library(str(kernels.LIBRARY))
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class Case:
    """A graph of one operator, run with the kernels and by its meaning."""

    def __init__(self, build: Callable[[GraphBuilder], Sequence[tuple[str, type]]]) -> None:
        graph = GraphBuilder("case", WeightsFile("none"))
        for name, dtype in build(graph):
            graph.output(name, name, dtype, [])
        proto = graph.model()
        for output in proto.graph.output:
            output.type.tensor_type.ClearField("shape")
        self.model = proto.SerializeToString()
        self.own, self.plain = session(self.model, True), session(self.model, False)
        self.names = [output.name for output in proto.graph.output]

    def both(self, feeds: Arrays) -> tuple[Arrays, Arrays]:
        return self.run(self.own, feeds), self.run(self.plain, feeds)

    def run(self, chosen: ort.InferenceSession, feeds: Arrays) -> Arrays:
        return dict(zip(self.names, chosen.run(self.names, feeds), strict=True))


def assert_near(found: Arrays, wanted: Arrays, steps: int = 1, atol: float = 2e-5) -> None:
    """Floats nearly equal; of 8-bit numbers one in fifty may be one step off, where a quotient is near a middle."""
    assert found.keys() == wanted.keys()
    for name, values in found.items():
        assert values.shape == wanted[name].shape, name
        assert values.dtype == wanted[name].dtype, name
        if values.dtype in (np.int8, np.uint8):
            gaps = np.abs(values.astype(int) - wanted[name].astype(int))
            assert gaps.max(initial=0) <= steps, name
            assert (gaps > 0).mean() <= 0.02, name
        else:
            np.testing.assert_allclose(values, wanted[name], atol=atol, rtol=1e-5, err_msg=name)


def rounding_of(graph: GraphBuilder, rounds: bool) -> fused.Rounding | None:
    return (graph.constant(0.02, np.float32), graph.constant(131, np.uint8)) if rounds else None


def result_type(rounds: bool) -> type:
    return np.uint8 if rounds else np.float32


@pytest.mark.parametrize("rounds", [False, True])
@pytest.mark.parametrize("width", [16, 48, 256])
def test_add_norm(width: int, rounds: bool) -> None:
    def build(graph: GraphBuilder) -> list[tuple[str, type]]:
        x, update = (graph.input(name, np.float32, ["R", 1, width]) for name in ("x", "update"))
        weight, bias = (graph.input(name, np.float32, [width]) for name in ("weight", "bias"))
        norm = (weight, bias, 1e-5)
        result = fused.add_norm(graph, x, update, norm, "total", rounding_of(graph, rounds))
        return [("total", np.float32), (result, result_type(rounds))]

    rng, case = np.random.default_rng(width), Case(build)
    feeds = {name: rng.normal(0, 2, (5, 1, width)).astype(np.float32) for name in ("x", "update")}
    feeds |= {name: rng.normal(1, 0.5, width).astype(np.float32) for name in ("weight", "bias")}
    found, wanted = case.both(feeds)
    assert_near(found, wanted)
    alone = case.run(case.own, feeds | {name: feeds[name][2:3] for name in ("x", "update")})
    for name, values in alone.items():
        assert np.array_equal(values, found[name][2:3])


@pytest.mark.parametrize("width", [16, 256])
def test_norm_round(width: int) -> None:
    def build(graph: GraphBuilder) -> list[tuple[str, type]]:
        x = graph.input("x", np.float32, ["R", 1, width])
        weight, bias = (graph.input(name, np.float32, [width]) for name in ("weight", "bias"))
        rounding = graph.constant(0.02, np.float32), graph.constant(131, np.uint8)
        return [(fused.norm_round(graph, x, (weight, bias, 1e-5), rounding), np.uint8)]

    rng, case = np.random.default_rng(width), Case(build)
    feeds: Arrays = {"x": rng.normal(0, 2, (5, 1, width)).astype(np.float32)}
    feeds |= {name: rng.normal(1, 0.5, width).astype(np.float32) for name in ("weight", "bias")}
    found, wanted = case.both(feeds)
    assert_near(found, wanted)
    (alone,), (together,) = case.run(case.own, feeds | {"x": feeds["x"][2:3]}).values(), found.values()
    assert np.array_equal(alone, together[2:3])


@pytest.mark.parametrize("width", [16, 2048])
@pytest.mark.parametrize("scales", [False, True])
def test_scale_round(scales: bool, width: int) -> None:
    """Exactly: what ONNX rounds up is rounded up."""

    def build(graph: GraphBuilder) -> list[tuple[str, type]]:
        x = graph.input("x", np.float32, ["R", 1, width])
        factors = graph.input("factors", np.float32, [width]) if scales else ""
        rounding = graph.constant(0.25, np.float32), graph.constant(131, np.uint8)
        return [(fused.scale_round(graph, x, width, factors, rounding), np.uint8)]

    rng, case = np.random.default_rng(width), Case(build)
    x = rng.integers(-300, 300, (37, 1, width)).astype(np.float32) / 8  # half of them in the middle between two
    x[0, 0, :3] = np.inf, -np.inf, np.nan
    feeds: Arrays = {"x": x} | ({"factors": 2.0 ** rng.integers(-2, 2, width).astype(np.float32)} if scales else {})
    found, wanted = case.both(feeds)
    (mine,), (others,) = found.values(), wanted.values()
    mine[0, 0, 2] = others[0, 0, 2]  # ONNX says nothing of what is not a number
    assert np.array_equal(mine, others)
    assert {0, 255} <= set(mine.ravel().tolist())


def test_silu() -> None:
    def build(graph: GraphBuilder) -> list[tuple[str, type]]:
        return [(fused.silu(graph, graph.input("x", np.float32, ["R", 48])), np.float32)]

    rng, case = np.random.default_rng(3), Case(build)
    x = rng.normal(0, 6, (40, 48)).astype(np.float32)
    x[0, :6] = 0, 80, -80, 200, -200, np.inf
    x[1, :2] = -1e38, -3e38
    found, wanted = case.both({"x": x})
    assert_near(found, wanted)
    (alone,), (together,) = case.run(case.own, {"x": x[2:3]}).values(), found.values()
    assert np.array_equal(alone, together[2:3])
    assert np.isnan(next(iter(case.run(case.own, {"x": np.full((1, 48), np.nan, np.float32)}).values()))).all()


@pytest.mark.parametrize("kind", [np.float32, np.int8])
def test_embed(kind: type) -> None:
    def build(graph: GraphBuilder) -> list[tuple[str, type]]:
        ids, positions = graph.input("ids", np.int64, ["R"]), graph.input("positions", np.int32, ["R"])
        table = [graph.input("table", kind, ["V", 48])]
        if kind is np.int8:
            table.append(graph.input("scales", np.float32, ["V"]))
        places = graph.input("places", np.float32, ["P", 48])
        return [(fused.embed(graph, ids, positions, table, 48**0.5, places), np.float32)]

    rng, case = np.random.default_rng(3), Case(build)
    feeds: Arrays = {
        "ids": np.array([0, 99, 7, 7], np.int64),
        "positions": np.array([0, 3, 19, 0], np.int32),
        "table": buffer(rng, kind, (100, 48)),
        "places": rng.normal(0, 1, (20, 48)).astype(np.float32),
    }
    if kind is np.int8:
        feeds["scales"] = rng.uniform(0.001, 0.1, 100).astype(np.float32)
    assert_near(*case.both(feeds))
    for name, value in (("ids", 100), ("ids", -1), ("positions", 20), ("positions", -1)):
        wrong = feeds | {name: np.full_like(feeds[name], value)}
        with pytest.raises(Exception, match="dragoman: not so"):
            case.run(case.own, wrong)


def buffers_of(graph: GraphBuilder, kind: type, places: str, width: int) -> fused.Buffers:
    names = [graph.input(name, kind, [places, HEADS, "C", width]) for name in ("key", "value")]
    scales = [graph.constant([scale], np.float32) for scale in (0.02, 0.03) if kind is np.int8]
    lengths, capacity = graph.input("lengths", np.int32, [places]), graph.input("capacity", np.int32, [])
    return fused.Buffers(names, ["present_key", "present_value"], lengths, capacity, scales)


def buffer(rng: np.random.Generator, kind: type, shape: tuple[int, ...]) -> np.ndarray:
    if kind is np.int8:
        return rng.integers(-127, 128, shape).astype(np.int8)
    return rng.normal(0, 1, shape).astype(np.float32)


def written_at(feeds: Arrays, found: Arrays) -> Arrays:
    """Of the present buffers only what a step may read; what lies behind a row's length says nothing."""
    kept = {name: values for name, values in found.items() if not name.startswith("present")}
    for name in ("present_key", "present_value"):
        rows = [found[name][r, :, : length + 1] for r, length in enumerate(feeds["lengths"])]
        kept[name] = np.concatenate([values.ravel() for values in rows])
    return kept


KINDS = [(np.float32, False), (np.int8, False), (np.int8, True)]


@pytest.mark.parametrize(("kind", "rounds"), KINDS)
@pytest.mark.parametrize("width", [16, 32, 48, 64])
def test_self_attention(kind: type, rounds: bool, width: int) -> None:
    def build(graph: GraphBuilder) -> list[tuple[str, type]]:
        joined = graph.input("joined", np.float32, ["R", 1, 3 * HEADS * width])
        result = fused.self_attention(
            graph, joined, buffers_of(graph, kind, "R", width), HEADS, rounding_of(graph, rounds)
        )
        return [(result, result_type(rounds)), ("present_key", kind), ("present_value", kind)]

    rng, case = np.random.default_rng(width), Case(build)
    lengths = np.array([0, 1, 7, 15, 16, 17, 31, 46, 3], np.int32)
    shape = (len(lengths), HEADS, 47, width)
    feeds: Arrays = {
        "joined": rng.normal(0, 1.5, (len(lengths), 1, 3 * HEADS * width)).astype(np.float32),
        "key": buffer(rng, kind, shape),
        "value": buffer(rng, kind, shape),
        "lengths": lengths,
        "capacity": np.array(47, np.int32),
    }
    found, wanted = case.both(feeds)
    assert_near(written_at(feeds, found), written_at(feeds, wanted), atol=1e-4)
    rows = [3, 8]
    alone = case.run(case.own, feeds | {name: feeds[name][rows] for name in ("joined", "key", "value", "lengths")})
    for name, values in alone.items():
        assert np.array_equal(values, found[name][rows]), name


@pytest.mark.parametrize(("kind", "rounds"), KINDS)
@pytest.mark.parametrize("beams", [1, 4])
def test_cross_attention(kind: type, rounds: bool, beams: int) -> None:
    width, sentences, capacity = 32, 3, 40

    def build(graph: GraphBuilder) -> list[tuple[str, type]]:
        query = graph.input("query", np.float32, ["R", 1, HEADS * width])
        places = fused.BeamPlaces(
            graph.input("row_queries", np.int64, ["R"]),
            graph.input("query_rows", np.int64, ["Q"]),
            graph.input("no_keys", np.float32, ["N", 0, HEADS * width]),
        )
        sizes, buffers = (HEADS, beams, HEADS * width), buffers_of(graph, kind, "N", width)
        result = fused.cross_attention(graph, query, buffers, places, sizes, rounding_of(graph, rounds))
        return [(result, result_type(rounds)), ("present_key", kind), ("present_value", kind)]

    rng, case = np.random.default_rng(beams), Case(build)
    # Rows of beams of sentences, in no order; the second sentence has one beam only.
    owners = [n for n in range(sentences) for k in range(beams if n != 1 else 1)]
    order = rng.permutation(len(owners))
    row_queries = np.empty(len(owners), np.int64)
    query_rows = np.zeros(sentences * beams, np.int64)
    place = dict.fromkeys(range(sentences), 0)
    for row, owner in zip(order, owners, strict=True):
        row_queries[row] = owner * beams + place[owner]
        query_rows[row_queries[row]] = row
        place[owner] += 1
    shape = (sentences, HEADS, capacity, width)
    feeds: Arrays = {
        "query": rng.normal(0, 1.5, (len(owners), 1, HEADS * width)).astype(np.float32),
        "row_queries": row_queries,
        "query_rows": query_rows,
        "no_keys": np.zeros((sentences, 0, HEADS * width), np.float32),
        "key": buffer(rng, kind, shape),
        "value": buffer(rng, kind, shape),
        "lengths": np.array([39, 0, 16], np.int32),
        "capacity": np.array(capacity, np.int32),
    }
    found, wanted = case.both(feeds)
    assert_near(written_at(feeds, found), written_at(feeds, wanted), atol=1e-4)


def candidates_case() -> Case:
    def build(graph: GraphBuilder) -> list[tuple[str, type]]:
        logits, count = graph.input("logits", np.float32, ["R", 1, "V"]), graph.input("count", np.int64, [1])
        values, ids = fused.likely_candidates(graph, logits, count, 0, is_fused=True)
        return [(values, np.float32), (ids, np.int64)]

    return Case(build)


@pytest.mark.parametrize("size", [3, 64, 65, 1000, 8000])
@pytest.mark.parametrize("count", [1, 3, 32])
def test_best_candidates(size: int, count: int) -> None:
    count = min(count, size)
    rng, case = np.random.default_rng(size), candidates_case()
    logits = rng.normal(0, 5, (7, 1, size)).astype(np.float32)
    logits[1] = np.round(logits[1])  # many are equal: the first is the better
    logits[2] = 0.25
    logits[3, 0, 1:] = -np.inf
    found, wanted = case.both({"logits": logits, "count": np.array([count], np.int64)})
    assert np.array_equal(found["candidate_ids"], wanted["candidate_ids"])
    assert_near({"v": found["candidate_log_probabilities"]}, {"v": wanted["candidate_log_probabilities"]})


def test_what_is_not_a_number_stays_so() -> None:
    logits = np.zeros((2, 1, 500), np.float32)
    logits[0, 0, 17] = np.nan
    case = candidates_case()
    found = case.run(case.own, {"logits": logits, "count": np.array([2], np.int64)})
    assert np.isnan(found["candidate_log_probabilities"][0]).all()
    assert ((found["candidate_ids"] >= 0) & (found["candidate_ids"] < 500)).all()
    np.testing.assert_allclose(found["candidate_log_probabilities"][1], -np.log(500), rtol=1e-5)


def test_candidates_of_what_is_not_a_number_are_each_another() -> None:
    logits = np.zeros((1, 1, 40), np.float32)
    logits[0, 0, 16:32] = np.nan
    case = candidates_case()
    found = case.run(case.own, {"logits": logits, "count": np.array([36], np.int64)})
    assert len(set(found["candidate_ids"][0])) == 36
    assert np.isnan(found["candidate_log_probabilities"]).all()


def test_equal_on_any_number_of_threads() -> None:
    case, rng = candidates_case(), np.random.default_rng(1)
    feeds: Arrays = {"logits": rng.normal(0, 5, (64, 1, 8000)).astype(np.float32), "count": np.array([8], np.int64)}
    found, again = case.run(case.own, feeds), case.run(session(case.model, True, num_threads=2), feeds)
    assert all(np.array_equal(found[name], again[name]) for name in found)


def bad_inputs() -> list[Any]:
    good: Arrays = {
        "joined": np.zeros((2, 1, 3 * HEADS * 16), np.float32),
        "key": np.zeros((2, HEADS, 8, 16), np.float32),
        "value": np.zeros((2, HEADS, 8, 16), np.float32),
        "lengths": np.array([0, 7], np.int32),
        "capacity": np.array(8, np.int32),
    }
    return [
        pytest.param(good | {"lengths": np.array([0, 8], np.int32)}, id="no room left"),
        pytest.param(good | {"lengths": np.array([-1, 0], np.int32)}, id="negative length"),
        pytest.param(good | {"lengths": np.array([0], np.int32)}, id="a length too few"),
        pytest.param(good | {"joined": np.zeros((3, 1, 3 * HEADS * 16), np.float32)}, id="more rows than places"),
        pytest.param(good | {"joined": np.zeros((2, 1, 100), np.float32)}, id="another width"),
        pytest.param(good | {"value": np.zeros((2, HEADS, 9, 16), np.float32)}, id="buffers of two sizes"),
        pytest.param(
            good | {name: np.zeros((2, HEADS + 1, 8, 16), np.float32) for name in ("key", "value")}, id="more heads"
        ),
    ]


@pytest.mark.parametrize("feeds", bad_inputs())
def test_what_does_not_fit_is_an_error(feeds: Arrays) -> None:
    def build(graph: GraphBuilder) -> list[tuple[str, type]]:
        joined = graph.input("joined", np.float32, ["R", 1, "M"])
        names = [graph.input(name, np.float32, ["N", "H", "C", "D"]) for name in ("key", "value")]
        lengths, capacity = graph.input("lengths", np.int32, ["L"]), graph.input("capacity", np.int32, [])
        buffers = fused.Buffers(names, ["present_key", "present_value"], lengths, capacity, [])
        result = fused.self_attention(graph, joined, buffers, HEADS, None)
        return [(result, np.float32), ("present_key", np.float32), ("present_value", np.float32)]

    case = Case(build)
    with pytest.raises(Exception, match="dragoman: not so"):
        case.run(case.own, feeds)


def test_an_empty_scale_is_an_error() -> None:
    def build(graph: GraphBuilder) -> list[tuple[str, type]]:
        joined = graph.input("joined", np.float32, ["R", 1, 3 * HEADS * 16])
        scales = [graph.input(name, np.float32, ["S"]) for name in ("key_scale", "value_scale")]
        buffers = buffers_of(graph, np.int8, "R", 16)._replace(scales=scales)
        result = fused.self_attention(graph, joined, buffers, HEADS, None)
        return [(result, np.float32), ("present_key", np.int8), ("present_value", np.int8)]

    case = Case(build)
    feeds: Arrays = {
        "joined": np.ones((1, 1, 3 * HEADS * 16), np.float32),
        "key": np.zeros((1, HEADS, 8, 16), np.int8),
        "value": np.zeros((1, HEADS, 8, 16), np.int8),
        "lengths": np.array([0], np.int32),
        "capacity": np.array(8, np.int32),
        "key_scale": np.ones(1, np.float32),
        "value_scale": np.ones(1, np.float32),
    }
    assert case.run(case.own, feeds)["present_key_context"].shape == (1, 1, HEADS * 16)
    for name in ("key_scale", "value_scale"):
        with pytest.raises(Exception, match="dragoman: not so"):
            case.run(case.own, feeds | {name: np.zeros(0, np.float32)})


@pytest.mark.parametrize(
    ("update", "size"), [((2, 1, 8), 16), ((1, 2, 16), 16), ((2, 16), 16)], ids=["another width", "turned", "flat"]
)
def test_sums_of_other_shapes_are_an_error(update: tuple[int, ...], size: int) -> None:
    def build(graph: GraphBuilder) -> list[tuple[str, type]]:
        x, more = graph.input("x", np.float32, ["A", "B", "C"]), graph.input("update", np.float32, [])
        graph.inputs[-1].type.tensor_type.ClearField("shape")
        weight, bias = (graph.input(name, np.float32, ["M"]) for name in ("weight", "bias"))
        return [(fused.add_norm(graph, x, more, (weight, bias, 1e-5), "total", None), np.float32)]

    case = Case(build)
    shape = update if update[-1] != size else (2, 1, size)
    feeds: Arrays = {"x": np.zeros(shape, np.float32), "update": np.zeros(update, np.float32)}
    feeds |= {name: np.zeros(size, np.float32) for name in ("weight", "bias")}
    with pytest.raises(Exception, match="dragoman: not so"):
        case.run(case.own, feeds)


def test_sessions_are_made_while_others_run() -> None:
    case, rng = candidates_case(), np.random.default_rng(2)
    feeds: Arrays = {"logits": rng.normal(0, 5, (16, 1, 1000)).astype(np.float32), "count": np.array([4], np.int64)}
    wanted = case.run(case.own, feeds)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: case.run(session(case.model, True, num_threads=2), feeds), range(32)):
            assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_more_candidates_than_there_are_is_an_error() -> None:
    case = candidates_case()
    for count in (0, 6):
        with pytest.raises(Exception, match="dragoman: not so"):
            case.run(case.own, {"logits": np.zeros((1, 1, 5), np.float32), "count": np.array([count], np.int64)})


@pytest.mark.parametrize("kind", kernels.KINDS)
def test_what_other_processors_run_computes_the_same(kind: str) -> None:
    """All kernels that this one can run, and products of bytes, which may be ONNX Runtime's."""
    if kernels.VARIABLE in os.environ or kernels.PRODUCTS_VARIABLE in os.environ:
        pytest.skip("the kernels were chosen; only these are tested")
    if (kind, kernels.OWN) == (kernels.active(), kernels.products()):
        pytest.skip("these are what was tested above")
    environment = os.environ | {kernels.VARIABLE: kind, kernels.PRODUCTS_VARIABLE: kernels.OWN}
    asks = [sys.executable, "-c", "from service.runtime import kernels; print(kernels.active())"]
    if subprocess.run(asks, env=environment, capture_output=True, text=True, check=True).stdout.strip() != kind:
        pytest.skip(f"the processor has no {kind}")
    files = [
        __file__,
        *(str(Path(__file__).with_name(f"test_{name}.py")) for name in ("packed_operators", "products", "chain")),
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout[-3000:]
