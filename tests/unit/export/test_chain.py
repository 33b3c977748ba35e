"""A chain gives what its parts give one by one, bit for bit; what is no chain is an error."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from export.chain import ENCODER, STEP, nodes_of, parts_of
from export.graph_builder import OPSET, OWN, GraphBuilder
from export.weights_file import WeightsFile
from model.transformer import Transformer
from service.runtime import kernels
from service.runtime.bundle import Bundle
from service.runtime.session import EncoderSession, Sessions, StepInputs, load_session
from tests.conftest import sentences
from tests.unit.export.test_fused import needs_kernels, session

pytestmark = [
    needs_kernels,
    pytest.mark.skipif(
        kernels.products() != kernels.OWN,
        reason="products are ONNX Runtime's, so there are no chains; test_fused.py runs this as if they were ours",
    ),
]
ROWS = 5


@pytest.fixture(scope="module")
def folder(
    random_transformer: Transformer, make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    place = tmp_path_factory.mktemp("chain") / "bundle"
    return make_bundle(random_transformer, place, precisions=("cpu-int8",), calibration_texts=tuple(sentences(40)))


@pytest.fixture(scope="module")
def encoder(folder: Path) -> onnx.ModelProto:
    return onnx.load(str(folder / "cpu-int8" / "encoder.onnx"))


def apart(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same without a chain."""
    made, nodes = onnx.ModelProto(), nodes_of(model)
    made.CopyFrom(model)
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    for function in [function for function in made.functions if function.name in (STEP, ENCODER)]:
        made.functions.remove(function)
    return made


def batches() -> Iterator[dict[str, np.ndarray]]:
    rng = np.random.default_rng(4)
    for lengths in ([1], [7], [3, 9, 2], [40] * 6, rng.integers(1, 60, 33).tolist()):
        yield {
            "source": rng.integers(0, 200, (len(lengths), max(lengths))),
            "source_lengths": np.array(lengths, np.int64),
        }


def results(made: ort.InferenceSession, feeds: dict[str, np.ndarray]) -> list[bytes]:
    return [array.tobytes() for array in made.run(None, feeds)]


def test_an_encoder_gives_what_its_parts_give(encoder: onnx.ModelProto) -> None:
    assert [node.op_type for node in encoder.graph.node] == [ENCODER]
    parts = session(apart(encoder).SerializeToString(), True)
    for num_threads in (1, 2, 4):
        chained = session(encoder.SerializeToString(), True, num_threads)
        for feeds in [*batches(), *batches()]:
            assert results(chained, feeds) == results(parts, feeds)


def test_several_run_at_once(encoder: onnx.ModelProto) -> None:
    """And each comes again with more and with fewer tokens than before, into the memory it had."""
    chained, every = session(encoder.SerializeToString(), True, 2), list(batches())
    wanted = [results(chained, feeds) for feeds in every]
    with ThreadPoolExecutor(4) as pool:
        for number, found in enumerate(pool.map(lambda i: results(chained, every[i % len(every)]), range(400))):
            assert found == wanted[number % len(every)]


def steps(sessions: Sessions, num_beams: int, encoder: EncoderSession) -> list[bytes]:
    """Candidates of some steps and what is cached after them."""
    source, lengths = np.arange(ROWS * 6).reshape(ROWS, 6) % 90, np.array([6, 1, 3, 6, 2], np.int64)
    cache = sessions.make_cache(ROWS * num_beams, 16, 24)
    cache.reserve_target(12, ROWS * num_beams)
    cache.write_sources(np.arange(ROWS), encoder.run(source, lengths), np.arange(ROWS), lengths)
    binding, found = sessions.bind_step(sessions.decoders[num_beams], cache), []
    rows = np.arange(ROWS * num_beams)
    for number in range(12):
        candidates = binding.run(StepInputs((rows * 7 + number) % 90, rows, rows, 3), ROWS)
        found += [candidates.ids.tobytes(), candidates.log_probabilities.tobytes()]
        cache.lengths[rows] += 1
    return [*found, *(buffer[:, :, :12].tobytes() for name, buffer in cache.buffers.items() if "self" in name)]


@pytest.mark.parametrize("num_beams", [1, 4])
def test_steps_give_what_their_parts_give(
    folder: Path, num_beams: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.open(folder)
    path = folder / "cpu-int8" / f"decoder-{num_beams}.onnx"
    assert [node.op_type for node in onnx.load(str(path), load_external_data=False).graph.node] == [STEP]
    plain = tmp_path / "plain.onnx"
    onnx.save(apart(onnx.load(str(path))), str(plain))
    found = []
    for num_threads in (1, 2, 4):
        sessions = Sessions(bundle, "cpu-int8", num_threads)
        found.append(steps(sessions, num_beams, sessions.encoder))
    sessions.decoders[num_beams].session = load_session(plain, 1)
    assert all(one == steps(sessions, num_beams, sessions.encoder) for one in found)


def with_parts(model: onnx.ModelProto, parts: str) -> bytes:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    changed.graph.node[0].attribute[0].s = parts.encode()
    return changed.SerializeToString()


def parts(model: onnx.ModelProto) -> str:
    node = model.graph.node[0]
    found = parts_of(nodes_of(model), node.input, node.output)
    assert node.attribute[0].s.decode() == found
    return found


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda words: words[:-1], id="a number is missing"),
        pytest.param(lambda words: [*words, "1"], id="a number too many"),
        pytest.param(lambda words: [*words[:4], "200", *words[5:]], id="parts are missing"),
        pytest.param(lambda words: [*words[:3], "20", *words[4:]], id="a value that is not there"),
        pytest.param(lambda words: [*words[:3], "99999", *words[4:]], id="too many values"),
        pytest.param(lambda words: [*words[:1], "-1", *words[2:]], id="a negative number"),
        pytest.param(lambda words: [*words[:5], "Attend", *words[6:]], id="an unknown operator"),
        pytest.param(lambda words: [*words[:5], STEP, *words[6:]], id="a chain in a chain"),
        pytest.param(lambda words: f"parts 0 3 3 1 {STEP} 0 1 2".split(), id="nothing but a chain"),
        pytest.param(lambda words: [*words[:6], "x", *words[7:]], id="a word"),
        pytest.param(lambda words: [*words[:6], str(int(words[3]) - 1), *words[7:]], id="nobody has made it yet"),
        pytest.param(lambda words: [*words[:6], words[8], *words[7:]], id="of another type"),
        pytest.param(lambda words: [*words[:-1], words[6]], id="an output in an input's place"),
        pytest.param(lambda words: ["sum", *words[1:]], id="something else"),
        pytest.param(lambda words: [], id="nothing"),
    ],
)
def test_what_is_no_chain_is_an_error(encoder: onnx.ModelProto, change: Callable[[list[str]], list[str]]) -> None:
    changed = " ".join(change(parts(encoder).split()))
    with pytest.raises(Exception, match="dragoman: not so"):
        session(with_parts(encoder, changed), True)


UNPACK = "UnpackHeadsInt8 2"
THREE = ["x", "lengths", "ids"]


def unpacking(parts: str, inputs: list[str], outputs: list[str]) -> ort.InferenceSession:
    """A session of an encoder's chain of nothing but heads that are unpacked; its meaning is never asked for."""
    kinds = {"x": np.float32, "lengths": np.int64, "ids": np.int64, "scale": np.float32}
    graph = GraphBuilder("case", WeightsFile("none"))
    for name, kind in kinds.items():
        graph.input(name, kind, [])
        graph.inputs[-1].type.tensor_type.ClearField("shape")
    body = [onnx.helper.make_node("Identity", inputs[:1], [name]) for name in outputs if name]
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    if all(outputs) and all(inputs):
        graph.functions[ENCODER] = onnx.helper.make_function(OWN, ENCODER, inputs, outputs, body, opsets, ["parts"])
    graph.nodes.append(onnx.helper.make_node(ENCODER, inputs, outputs, domain=OWN, parts=parts))
    name = next(name for name in outputs if name)
    graph.output(name, name, np.int8, [])
    model = graph.model()
    model.graph.output[0].type.tensor_type.ClearField("shape")
    if OWN not in {opset.domain for opset in model.opset_import}:
        model.opset_import.append(onnx.helper.make_opsetid(OWN, 1))
    return session(model.SerializeToString(), True)


def unpacked(made: ort.InferenceSession, **changes: np.ndarray) -> list[np.ndarray]:
    feeds = {"x": np.ones((3, 32), np.float32), "lengths": np.array([2, 1]), "ids": np.zeros((2, 2), np.int64)}
    return made.run(None, feeds | {"scale": np.array(0.5, np.float32)} | changes)


def test_the_smallest_chain() -> None:
    (found,) = unpacked(unpacking(f"parts 4 1 5 1 {UNPACK} 0 1 2 3 4", [*THREE, "scale"], ["y"]))
    assert found.shape == (2, 2, 2, 16)
    assert (found == 2).all()


@pytest.mark.parametrize(
    ("text", "inputs", "outputs"),
    [
        pytest.param(f"parts 4 1 5 1 {UNPACK} 0 1 2 3 4", THREE, ["y"], id="an input that the node has not"),
        pytest.param(
            f"parts 4 2 6 2 {UNPACK} 0 1 2 3 4 {UNPACK} 0 1 2 3 5", [*THREE, "scale"], ["y"], id="such an output"
        ),
        pytest.param(
            f"parts 4 2 6 2 {UNPACK} 0 1 2 3 4 {UNPACK} 0 1 2 3 5",
            [*THREE, "scale"],
            ["", "y"],
            id="one without a name",
        ),
    ],
)
def test_parts_that_are_not_those_of_the_node_are_an_error(text: str, inputs: list[str], outputs: list[str]) -> None:
    with pytest.raises(Exception, match="dragoman: not so"):
        unpacked(unpacking(text, inputs, outputs))


def test_numbers_that_no_memory_holds_are_an_error(tmp_path: Path) -> None:
    """Between two parts nobody else looks at sizes: one token of 2^31 numbers, unpacked to 2^31 places."""
    made = unpacking(f"parts 4 1 6 2 UnpackHeads 1 0 1 2 5 {UNPACK} 5 1 2 3 4", [*THREE, "scale"], ["y"])
    size = (1, 2**31)
    x, ids = (  # in files that take no room
        np.asarray(np.memmap(tmp_path / kind.__name__, kind, "w+", shape=size)) for kind in (np.float32, np.int64)
    )
    with pytest.raises(Exception, match="dragoman: not so"):
        unpacked(made, x=x, lengths=np.ones(1, np.int64), ids=ids)


def test_after_an_error_a_chain_goes_on(encoder: onnx.ModelProto) -> None:
    chained, feeds = session(encoder.SerializeToString(), True, 2), next(batches())
    wanted = results(chained, feeds)
    for _ in range(3):
        with pytest.raises(Exception, match="dragoman: not so"):
            chained.run(None, feeds | {"source_lengths": np.array([99], np.int64)})
        assert results(chained, feeds) == wanted
