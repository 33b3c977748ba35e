"""Products of bytes: exact, whatever the batch and the threads."""

import ctypes
import gc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest

from export import byte_products, fused
from export.graph_builder import GraphBuilder
from export.weights_file import WeightsFile
from service.runtime import kernels
from tests.unit.export.test_fused import Arrays, Case, assert_near, needs_kernels, session

pytestmark = [
    needs_kernels,
    pytest.mark.skipif(
        kernels.products() != kernels.OWN,
        reason="they are ONNX Runtime's, which has instructions for them; test_fused.py runs this as if they were ours",
    ),
]
SCALE, STEP = 0.02, 0.05
LIBRARY = ctypes.CDLL(str(kernels.LIBRARY)) if kernels.library() else None
num_weights, num_wide_weights = (getattr(LIBRARY, f"dragoman_num_{kind}", None) for kind in ("weights", "wide_weights"))


class ProductCase(Case):
    """x (..., depth) times random columns, or those of ``numbers``; ``is_plain``: nothing is done to the sums."""

    def __init__(
        self,
        depth: int,
        width: int,
        rounds: bool = False,
        numbers: np.ndarray | None = None,
        zero_point: int = 119,
        is_plain: bool = False,
        batch: Sequence[str] = ("R",),
    ) -> None:
        rng = np.random.default_rng(depth + width)
        drawn = rng.integers(-127, 128, (depth, width)).astype(np.int8)
        self.numbers = drawn if numbers is None else numbers
        self.scales = rng.uniform(0.001, 0.01, width).astype(np.float32)
        self.bias = rng.normal(0, 1, width).astype(np.float32)
        self.scale, self.zero_point = SCALE, zero_point
        if is_plain:
            self.scale, self.scales, self.bias = 1.0, np.ones(width, np.float32), np.zeros(width, np.float32)
        self.kinds: set[str] = set()

        def build(graph: GraphBuilder) -> list[tuple[str, type]]:
            x = graph.input("x", np.uint8, [*batch, depth])
            for name in ("numbers", "scales", "bias"):
                graph.weight(name, getattr(self, name), is_inside=True)
            rounding, then = (
                (graph.constant(scale, np.float32), graph.constant(zero_point, np.uint8))
                for scale, zero_point in ((self.scale, self.zero_point), (STEP, 3))
            )
            columns = fused.Columns(depth, "numbers", "scales", "bias")
            result = fused.product(graph, x, rounding, columns, then if rounds else None)
            self.kinds |= {node.op_type for node in graph.nodes}
            return [(result, np.uint8 if rounds else np.float32)]

        super().__init__(build)

    def products(self, x: np.ndarray, chosen: str = "own") -> np.ndarray:
        return next(iter(self.run(getattr(self, chosen), {"x": x}).values()))

    def sums(self, x: np.ndarray) -> np.ndarray:
        return (x.astype(np.int64) - self.zero_point) @ self.numbers.astype(np.int64)

    def exact(self, x: np.ndarray) -> np.ndarray:
        return self.sums(x) * (self.scale * self.scales.astype(np.float64)) + self.bias


def inputs(num_rows: int, depth: int) -> np.ndarray:
    """Among them all that is hardest on sums of two products in 16 bits."""
    x = np.random.default_rng(num_rows).integers(0, 256, (num_rows, depth)).astype(np.uint8)
    x[0], x[-1] = 255, 0
    return x


@pytest.mark.parametrize("rounds", [False, True])
@pytest.mark.parametrize(("depth", "width"), [(4, 1), (16, 16), (36, 50), (256, 8000), (1536, 256)])
def test_products(depth: int, width: int, rounds: bool) -> None:
    case = ProductCase(depth, width, rounds)
    assert case.kinds == {"ProductRound" if rounds else "Product"}
    for num_rows in (1, 2, 3, 4, 5, 11):
        x = inputs(num_rows, depth)
        found, wanted = case.products(x), case.exact(x)
        if rounds:
            wanted = np.clip(np.rint(wanted / STEP) + 3, 0, 255).astype(np.uint8)
        size = float(np.abs(wanted).max())
        assert_near({"y": found}, {"y": wanted.astype(found.dtype)}, atol=1e-6 * size)
        assert_near({"y": found}, {"y": case.products(x, "plain")}, atol=1e-6 * size)
        for r in range(num_rows):
            assert np.array_equal(case.products(x[r : r + 1]), found[r : r + 1])


@pytest.mark.parametrize("zero_point", [0, 119, 128, 255])
@pytest.mark.parametrize(("depth", "width"), [(4, 1), (36, 50), (256, 8000), (1536, 256)])
def test_sums_are_exact(depth: int, width: int, zero_point: int) -> None:
    case = ProductCase(depth, width, zero_point=zero_point, is_plain=True)
    x = inputs(7, depth)
    assert np.array_equal(case.products(x), case.sums(x).astype(np.float32))


def near(zero_point: int, share_far: float, share_zero: float, num_rows: int, depth: int) -> np.ndarray:
    """Inputs as a model has them: most within 64 of the zero point, or at zero."""
    rng = np.random.default_rng(round(100 * share_far + 10 * share_zero))
    start = byte_products.window_start(zero_point)
    x = rng.integers(start, start + byte_products.NEAR + 1, (num_rows, depth))
    x = np.where(rng.random(x.shape) < share_zero, zero_point, x)
    return np.where(rng.random(x.shape) < share_far, rng.choice([0, 255], x.shape), x).astype(np.uint8)


@pytest.mark.parametrize("zero_point", [0, 3, 63, 64, 100, 128, 191, 192, 255])
@pytest.mark.parametrize(("share_far", "share_zero"), [(0, 0), (0.02, 0), (0.5, 0), (0, 0.7), (0.02, 0.95), (0, 1)])
@pytest.mark.parametrize(("depth", "width", "largest"), [(4, 3, 127), (12, 17, 40), (36, 50, 127), (520, 64, 60)])
def test_sums_of_what_a_model_has_are_exact(
    depth: int, width: int, largest: int, share_far: float, share_zero: float, zero_point: int
) -> None:
    numbers = np.random.default_rng(depth).integers(-largest, largest + 1, (depth, width)).astype(np.int8)
    case = ProductCase(depth, width, numbers=numbers, zero_point=zero_point, is_plain=True)
    for num_rows in (1, 2, 3, 4, 6):
        x = near(zero_point, share_far, share_zero, num_rows, depth)
        assert np.array_equal(case.products(x), case.sums(x).astype(np.float32))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("more", [0, 1, 8])
@pytest.mark.parametrize("places", [(0, 1, 4, 5), (2, 3, 6, 7), (1, 1, 5, 5), (10, 11, 14, 15)])
def test_sums_of_four_at_the_end_of_16_bits(places: tuple[int, ...], more: int, sign: int) -> None:
    """255 times 128, the largest that is near, fits; 256 times it does not."""
    numbers = np.zeros((16, 20), np.int64)
    np.add.at(numbers[:, 9], list(places), 63)
    numbers[places[0], 9] += 3 + more if places[0] != places[1] else 1
    case = ProductCase(16, 20, numbers=(sign * np.clip(numbers, 0, 127)).astype(np.int8), zero_point=0, is_plain=True)
    for x in (np.full((4, 16), 128, np.uint8), np.full((1, 16), 255, np.uint8)):
        assert np.array_equal(case.products(x), case.sums(x).astype(np.float32))


def test_four_products_of_an_exported_matrix_fit() -> None:
    """What the exporter aims at (byte_products.py) is what the library asks for."""
    rng = np.random.default_rng(4)
    weight = rng.standard_normal((264, 800)).astype(np.float32)
    gc.collect()
    before = num_wide_weights()
    plain = np.rint(weight / np.abs(weight).max(axis=0) * 127).astype(np.int8)
    made = [ProductCase(264, 800, numbers=plain)]
    assert num_wide_weights() == before + 1
    fitting = np.rint(weight / byte_products.column_scales(weight)).astype(np.int8)
    made.append(ProductCase(264, 800, numbers=fitting))
    assert num_wide_weights() == before + 1


@pytest.mark.parametrize("zero_point", [0, 255])
@pytest.mark.parametrize("number", [127, -127])
def test_the_largest_sums_do_not_overflow(number: int, zero_point: int) -> None:
    depth = fused.MAX_DEPTH
    case = ProductCase(depth, 1, numbers=np.full((depth, 1), number, np.int8), zero_point=zero_point, is_plain=True)
    assert case.kinds == {"Product"}
    x = inputs(5, depth)
    assert np.array_equal(case.products(x), case.sums(x).astype(np.float32))


@pytest.mark.parametrize(("depth", "width"), [(64, 40), (68, 40), (256, 300)])
def test_sums_of_many_rows_are_exact(depth: int, width: int) -> None:
    """Some processors multiply sixteen rows at once, and 64 numbers of each."""
    case = ProductCase(depth, width, is_plain=True)
    x = inputs(150, depth)
    wanted = case.sums(x).astype(np.float32)
    for num_rows in (15, 16, 17, 31, 32, 48, 63, 64, 65, 79, 80, 81, 150):
        assert np.array_equal(case.products(x[:num_rows]), wanted[:num_rows])


@pytest.mark.parametrize("batch", [(), (2,), (2, 1), (2, 3, 1)])
def test_any_rank(batch: tuple[int, ...]) -> None:
    case = ProductCase(20, 33, is_plain=True, batch=[f"D{i}" for i in range(len(batch))])
    x = np.random.default_rng(5).integers(0, 256, (*batch, 20)).astype(np.uint8)
    found = case.products(x)
    assert found.shape == (*batch, 33)
    assert np.array_equal(found, case.sums(x).astype(np.float32))


def test_of_no_rows_there_are_none() -> None:
    case = ProductCase(16, 48)
    assert case.products(np.zeros((0, 16), np.uint8)).shape == (0, 48)


def test_equal_on_any_number_of_threads() -> None:
    case, x = ProductCase(512, 2048), inputs(37, 512)
    again = session(case.model, True, num_threads=2)
    assert np.array_equal(next(iter(case.run(again, {"x": x}).values())), case.products(x))


def test_sessions_share_weights_and_the_last_one_frees_them() -> None:
    case = ProductCase(64, 80)
    before = num_weights()  # of this case and of whatever else the process has
    several = [session(case.model, True) for _ in range(3)]
    assert num_weights() == before
    other = ProductCase(64, 96)
    assert num_weights() == before + 1
    del several, other
    gc.collect()
    assert num_weights() == before
    del case
    gc.collect()
    assert num_weights() == before - 1


def test_sessions_come_and_go_while_others_run() -> None:
    """Of two models; again and again the last session of one goes while the next one comes."""
    cases = [ProductCase(256, 320), ProductCase(256, 336)]
    x = inputs(9, 256)
    models, wanted = [case.model for case in cases], [case.products(x) for case in cases]
    del cases
    gc.collect()

    def same(number: int) -> bool:
        made = session(models[number % 2], True, num_threads=1 + number // 2 % 2)
        return np.array_equal(made.run(None, {"x": x})[0], wanted[number % 2])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(same, range(80)))


@pytest.mark.parametrize("depth", [18, fused.MAX_DEPTH + 4])
def test_what_the_library_does_not_take_is_left_to_the_plain_product(depth: int) -> None:
    case = ProductCase(depth, 3)
    assert case.kinds == {"MatMulIntegerToFloat"}
    x = inputs(3, depth)
    np.testing.assert_allclose(case.products(x), case.exact(x), rtol=1e-5, atol=1e-3)


def test_a_weight_that_has_no_size_is_an_error() -> None:
    with pytest.raises(Exception, match="dragoman: not so: is_symmetric"):
        ProductCase(16, 32, numbers=np.full((16, 32), -128, np.int8))


def test_columns_that_are_not_constant_are_an_error() -> None:
    graph = GraphBuilder("case", WeightsFile("none"))
    feeds: Arrays = {"x": np.zeros((1, 16), np.uint8), "numbers": np.zeros((16, 32), np.int8)}
    for name, value in feeds.items():
        graph.input(name, value.dtype.type, list(value.shape))
    for name in ("scales", "bias"):
        graph.weight(name, np.ones(32, np.float32), is_inside=True)
    rounding = graph.constant(SCALE, np.float32), graph.constant(119, np.uint8)
    result = fused.product(graph, "x", rounding, fused.Columns(16, "numbers", "scales", "bias"), None)
    graph.output(result, result, np.float32, [])
    model: onnx.ModelProto = graph.model()
    model.graph.output[0].type.tensor_type.ClearField("shape")
    with pytest.raises(Exception, match="dragoman: not so: numbers->data"):
        session(model.SerializeToString(), True)


def test_rows_of_another_depth_are_an_error() -> None:
    case = ProductCase(16, 32)
    model = onnx.load_model_from_string(case.model)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    unchecked = session(model.SerializeToString(), True)
    with pytest.raises(Exception, match="dragoman: not so"):
        unchecked.run(None, {"x": np.zeros((2, 20), np.uint8)})
