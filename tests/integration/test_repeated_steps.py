"""Steps that a chain repeats by itself are those that are asked for one by one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from model.transformer import Transformer
from service.decoding.options import DecodeOptions
from service.engine import batch_decoder, unchanged_steps
from service.engine.batch_decoder import BatchDecoder
from service.engine.request import Sentence
from service.engine.running_batch import Active
from service.engine.settings import EngineSettings
from service.engine.translator import Translator
from service.engine.unchanged_steps import Calls, UnchangedSteps, library_calls
from service.runtime import kernels
from service.runtime.bundle import Bundle
from service.runtime.session import BoundShape, Sessions
from tests.conftest import sentences

pytestmark = pytest.mark.skipif(
    kernels.library() is None or kernels.products() != kernels.OWN,
    reason="there are no chains where products are ONNX Runtime's (the processor has instructions that only it uses), "
    "or where there was no C compiler",
)
TEXTS = sentences(30, seed=5)


@pytest.fixture(scope="module")
def bundle(
    random_transformer: Transformer, make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("repeated") / "bundle"
    texts = tuple(sentences(40))
    return make_bundle(random_transformer, folder, precisions=("cpu-int8",), calibration_texts=texts)


class Counted:
    """Runs of a step's graph and the steps of these."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs = self.steps = 0
        plain_run, plain_steps = BoundShape.run, UnchangedSteps.run

        def run(shape: BoundShape) -> object:
            self.runs += 1
            return plain_run(shape)

        def count(steps: UnchangedSteps, most: int, moments: list[float]) -> int:
            before = len(moments)
            found = plain_steps(steps, most, moments)
            assert moments == sorted(moments)
            assert 1 <= len(moments) - before <= most
            self.steps += len(moments) - before
            return found

        monkeypatch.setattr(BoundShape, "run", run)
        monkeypatch.setattr(UnchangedSteps, "run", count)


def translated(bundle: Path, options: DecodeOptions) -> list[object]:
    settings = EngineSettings(precision="int8", num_workers=1, stop_repetition=True)
    translator = Translator.load(bundle, settings)
    try:
        alone = [translator.translate([text], options)[0] for text in TEXTS[:6]]
        results = [*alone, *translator.translate(TEXTS, options)]
        return [(result.finish_reason, result.alternatives) for result in results]
    finally:
        translator.close()


@pytest.mark.parametrize("num_beams", [1, 4])
def test_repeated_steps_are_those_that_are_asked_for(
    num_beams: int, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = DecodeOptions(num_beams=num_beams, num_alternatives=num_beams)
    calls = library_calls()
    assert calls
    monkeypatch.setattr(unchanged_steps, "RUN_S", 1.0)
    counted = Counted(monkeypatch)
    repeated = translated(bundle, options)
    assert counted.runs * 3 < counted.steps
    counted.runs = counted.steps = 0
    for module in (unchanged_steps, batch_decoder):
        monkeypatch.setattr(module, "library_calls", lambda: Calls(calls.advance, lambda place: None))
    assert translated(bundle, options) == repeated
    assert counted.runs == counted.steps


def test_a_run_that_fails_leaves_nothing_to_the_next(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step's graph that fails before its chain began: the thread's next chain, an encoder's, runs once."""
    opened = Bundle.open(bundle)
    sessions = Sessions(opened, "cpu-int8", num_threads=1)
    decoder = BatchDecoder(sessions, sessions.make_cache(2, 8, 24), (1, 2))
    source, lengths = np.array([[5, 7, 2]]), np.array([3])
    encoded = sessions.encoder.run(source, lengths)
    member = Active(Sentence((5, 7, 2), DecodeOptions(num_beams=1), 20, print), 0.0, 0.0)
    decoder.add([member], encoded, [0], lengths)
    with monkeypatch.context() as failing:
        failing.setattr(BoundShape, "run", lambda shape: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            decoder.step(False, lambda now: True)
    again = sessions.encoder.run(source, lengths)
    assert all(np.array_equal(*pair) for pair in zip(again.keys, encoded.keys, strict=True))
    assert decoder.unchanged
    assert decoder.unchanged.step.num_steps == 0
    assert not decoder.cache.lengths.any()
    decoder.step(False, lambda now: False)
    assert decoder.unchanged is None or decoder.unchanged.step.num_steps > 0
