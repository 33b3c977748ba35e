"""Operators on all tokens of several sentences side by side: what their meaning gives, whatever the batch."""

import numpy as np
import pytest

from export import fused
from export.graph_builder import GraphBuilder
from export.layers import Layers
from export.matrices import Float32
from export.packing import Packing
from model.config import ModelConfig
from tests.unit.export.test_fused import (
    HEADS,
    Arrays,
    Case,
    assert_near,
    buffer,
    needs_kernels,
    result_type,
    rounding_of,
)

pytestmark = needs_kernels
LENGTHS = np.array([1, 5, 16, 23, 40, 2], np.int64)


def sentences_of(graph: GraphBuilder) -> list[str]:
    return [graph.input("lengths", np.int64, ["B"]), graph.input("source", np.int64, ["B", "S"])]


def alone_as_together(case: Case, found: Arrays, feeds: Arrays, packed: str = "") -> None:
    """Sentence 3 by itself gives what it gives among others; ``packed``: an input that has all tokens side by side."""
    first, last = LENGTHS[:3].sum(), LENGTHS[:4].sum()
    one = feeds | {"lengths": LENGTHS[3:4], "source": feeds["source"][3:4, :23]}
    if packed:
        one[packed] = feeds[packed][first:last]
    (alone,), (all_of_them,) = case.run(case.own, one).values(), found.values()
    is_packed = len(all_of_them) == LENGTHS.sum()
    wanted = all_of_them[first:last] if is_packed else all_of_them[3:4, :, :23]
    assert np.array_equal(alone, wanted)


def is_refused(case: Case, feeds: Arrays) -> None:
    with pytest.raises(Exception, match="dragoman: not so"):
        case.run(case.own, feeds)


@pytest.mark.parametrize("rounds", [False, True])
@pytest.mark.parametrize("width", [16, 48, 64])
def test_packed_attention(width: int, rounds: bool) -> None:
    config = ModelConfig(vocab_size=100, model_width=HEADS * width, num_heads=HEADS)

    def plain(graph: GraphBuilder, joined: str, lengths: str, ids: str) -> str:
        layers, packing = Layers(graph, config, {}, Float32()), Packing(graph, ids, lengths)
        query, key, value = layers.split(packing.unpack(joined), 3)
        shape = packing.shape
        query, key, value = layers.heads(query, shape), layers.heads(key, shape, True), layers.heads(value, shape)
        return packing.pack(layers.attention(query, key, value, packing.mask)[0])

    def build(graph: GraphBuilder) -> list[tuple[str, type]]:
        inputs = [graph.input("joined", np.float32, ["P", 3 * HEADS * width]), *sentences_of(graph)]
        result = fused.packed_attention(graph, inputs, HEADS, plain, rounding_of(graph, rounds))
        return [(result, result_type(rounds))]

    rng, case = np.random.default_rng(width), Case(build)
    feeds: Arrays = {
        "joined": rng.normal(0, 1.5, (LENGTHS.sum(), 3 * HEADS * width)).astype(np.float32),
        "lengths": LENGTHS,
        "source": np.zeros((len(LENGTHS), LENGTHS.max()), np.int64),
    }
    found, wanted = case.both(feeds)
    assert_near(found, wanted, atol=1e-4)
    alone_as_together(case, found, feeds, "joined")
    for wrong in (LENGTHS + 1, LENGTHS - 1, LENGTHS[:-1], np.array([-1, 88], np.int64)):
        is_refused(case, feeds | {"lengths": wrong})


@pytest.mark.parametrize("kind", [np.float32, np.int8])
def test_embed_packed(kind: type) -> None:
    def build(graph: GraphBuilder) -> list[tuple[str, type]]:
        lengths, source = sentences_of(graph)
        table = [graph.input("table", kind, ["V", 48])]
        if kind is np.int8:
            table.append(graph.input("scales", np.float32, ["V"]))
        places = graph.input("places", np.float32, ["P", 48])
        return [(fused.embed_packed(graph, source, lengths, table, 48**0.5, places), np.float32)]

    rng, case = np.random.default_rng(3), Case(build)
    feeds: Arrays = {
        "source": rng.integers(0, 100, (len(LENGTHS), LENGTHS.max())),
        "lengths": LENGTHS,
        "table": buffer(rng, kind, (100, 48)),
        "places": rng.normal(0, 1, (40, 48)).astype(np.float32),
    }
    if kind is np.int8:
        feeds["scales"] = rng.uniform(0.001, 0.1, 100).astype(np.float32)
    found, wanted = case.both(feeds)
    assert_near(found, wanted)
    alone_as_together(case, found, feeds)
    outside, too_many = feeds["source"].copy(), feeds["places"][:39]
    outside[3, 22] = 100
    for change in ({"source": outside}, {"places": too_many}, {"lengths": LENGTHS + 1}, {"lengths": LENGTHS[:-1]}):
        is_refused(case, feeds | change)
    outside[3] = [*feeds["source"][3, :23], *[10**9] * 17]  # what stands behind a sentence is nobody's
    assert np.array_equal(case.run(case.own, feeds | {"source": outside})["embedded"], found["embedded"])


@pytest.mark.parametrize("kind", [np.float32, np.int8])
def test_unpack_heads(kind: type) -> None:
    config = ModelConfig(vocab_size=100, model_width=HEADS * 16, num_heads=HEADS)

    def plain(graph: GraphBuilder, x: str, lengths: str, ids: str) -> str:
        packing = Packing(graph, ids, lengths)
        return Layers(graph, config, {}, Float32()).heads(packing.unpack(x), packing.shape)

    def build(graph: GraphBuilder) -> list[tuple[str, type]]:
        inputs = [graph.input("x", np.float32, ["P", HEADS * 16]), *sentences_of(graph)]
        scale = graph.constant(0.03, np.float32) if kind is np.int8 else ""
        fused.unpack_heads(graph, inputs, HEADS, plain, scale, "heads")
        return [("heads", kind)]

    rng, case = np.random.default_rng(8), Case(build)
    feeds: Arrays = {
        "x": rng.normal(0, 1, (LENGTHS.sum(), HEADS * 16)).astype(np.float32),
        "lengths": LENGTHS,
        "source": np.zeros((len(LENGTHS), LENGTHS.max()), np.int64),
    }
    found, wanted = case.both(feeds)
    assert_near(found, wanted)
    alone_as_together(case, found, feeds, "x")
    short = np.zeros((len(LENGTHS), 39), np.int64)
    for change in ({"lengths": LENGTHS + 1}, {"lengths": LENGTHS[:-1]}, {"source": short}):
        is_refused(case, feeds | change)


@pytest.mark.parametrize(
    ("num_heads", "shape", "lengths"),
    [
        pytest.param(HEADS, (2, 48 * HEADS), [1], id="a token too many"),
        pytest.param(HEADS, (2, 48 * HEADS), [3], id="a token too few"),
        pytest.param(HEADS, (2, 48 * HEADS), [2, 0], id="an empty sentence"),
        pytest.param(HEADS, (2, 48 * HEADS), [3, -1], id="a negative length"),
        pytest.param(HEADS, (2, 50 * HEADS), [2], id="another width"),
        pytest.param(HEADS, (2**60, 0), [2**60], id="no width"),
        pytest.param(0, (2, 48), [2], id="no heads"),
        pytest.param(2**60, (2, 48), [2], id="heads whose width overflows to 0"),
        pytest.param(2**60 + 1, (2, 48), [2], id="heads whose width overflows to 48"),
    ],
)
def test_sentences_that_do_not_fit_are_an_error(num_heads: int, shape: tuple[int, int], lengths: list[int]) -> None:
    def build(graph: GraphBuilder) -> list[tuple[str, type]]:
        inputs = [graph.input("joined", np.float32, ["P", "J"]), graph.input("lengths", np.int64, ["B"])]
        inputs += [graph.constant([0], np.int64)]
        result = fused.packed_attention(graph, inputs, num_heads, lambda body, *more: body.op("Neg", more[0]), None)
        return [(result, np.float32)]

    case = Case(build)
    feeds: Arrays = {"joined": np.zeros(shape, np.float32), "lengths": np.array(lengths, np.int64)}
    with pytest.raises(Exception, match="dragoman: not so"):
        case.run(case.own, feeds)
