"""What only a GPU can show: its kernels, recorded steps, its answers. `make gpu-check` runs it.

DRAGOMAN_GPU_TRIAL=1 runs the same in host memory: a trial of these tests, which says nothing about a GPU.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from export.derive import derive_cuda
from service.decoding.options import DecodeOptions
from service.engine import engine, placement
from service.engine.request import TextResult, Timings
from service.engine.settings import EngineSettings
from service.engine.translator import Translator
from service.runtime import gpu
from service.runtime.bundle import Bundle
from service.runtime.device_cache import DeviceCache
from service.runtime.device_memory import Device
from service.runtime.device_session import DeviceSessions
from service.runtime.session import StepInputs

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "service" / "models" / "en-fr"
IS_TRIAL = bool(os.environ.get("DRAGOMAN_GPU_TRIAL"))
KIND = "cpu" if IS_TRIAL else "cuda"
ABSENT = [] if IS_TRIAL else gpu.missing()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(ABSENT), reason=f"missing: {'; '.join(ABSENT)}")]
ROWS, CAPACITY = 48, 24


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpu") / "en-fr"
    derive_cuda(SHIPPED, folder)
    return folder


class Steps:
    """Rows of different ages, decoded with the same tokens on any device."""

    def __init__(self, path: Path, device: Device) -> None:
        opened = Bundle.open(path)
        self.sessions = DeviceSessions(opened, "cuda-fp16", device)
        self.cache: DeviceCache = self.sessions.make_cache(ROWS, CAPACITY, CAPACITY)
        rng = np.random.default_rng(5)
        lengths = rng.integers(1, CAPACITY + 1, ROWS)
        sources = rng.integers(300, 7000, (ROWS, CAPACITY))
        encoded = self.sessions.encoder.run(sources, lengths)
        self.cache.write_sources(np.arange(ROWS), encoded, np.arange(ROWS), lengths)
        self.tokens = rng.integers(300, 7000, (CAPACITY, ROWS))
        self.starts = rng.integers(0, CAPACITY, ROWS)

    def run(self) -> list[NDArray[np.float32]]:
        """Log-probabilities of every step; a row begins anew at its own time, and some fill their place to the end."""
        decoder = self.sessions.decoder_for(1)
        step, rows = self.sessions.bind_step(decoder, self.cache), np.arange(ROWS)
        self.cache.lengths[:] = 0
        found = []
        for position in range(CAPACITY):
            self.cache.lengths[self.starts == position] = 0
            inputs = StepInputs(self.tokens[position], rows, rows, decoder.usual_candidates)
            found.append(np.sort(step.run(inputs, ROWS).log_probabilities.copy(), axis=1))
            self.cache.lengths += 1
        return found


def test_ragged_steps_are_those_of_the_cpu_provider(bundle: Path) -> None:
    found, wanted = Steps(bundle, Device(KIND)).run(), Steps(bundle, Device("cpu")).run()
    for a, b in zip(found, wanted, strict=True):
        assert np.isfinite(a).all()
        assert np.abs(a - b).max() < 0.1
        assert np.abs(a - b).mean() < 0.01


def test_a_recorded_step_is_the_eager_step_bit_for_bit(bundle: Path) -> None:
    recorded, eager = Steps(bundle, Device(KIND, records=True)), Steps(bundle, Device(KIND))
    recorded.run()  # records
    for again in (recorded.run(), recorded.run()):
        assert all((a == b).all() for a, b in zip(again, eager.run(), strict=True))
    if not IS_TRIAL:
        assert recorded.sessions.steps[1].was_replayed


@pytest.fixture(scope="module")
def texts() -> list[str]:
    lines = (ROOT / "model" / "recipes" / "en-fr-golden.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip()]


@pytest.fixture(scope="module")
def translator(bundle: Path) -> Iterator[Translator]:
    with pytest.MonkeyPatch.context() as patch:
        if IS_TRIAL:
            patch.setattr(placement, "require_gpu", lambda: None)
            patch.setattr(engine, "Device", lambda kind, records: Device("cpu"))
        loaded = Translator.load(bundle, EngineSettings(device="cuda", max_rows=64))
    yield loaded
    loaded.close()


def ids_of(results: list[TextResult]) -> list[tuple[int, ...]]:
    return [result.alternatives[0].token_ids for result in results]


@pytest.mark.parametrize("beams", [1, 4])
def test_sentences_are_those_of_the_cpu(translator: Translator, bundle: Path, texts: list[str], beams: int) -> None:
    options = DecodeOptions(num_beams=beams)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(placement, "require_gpu", lambda: None)
        patch.setattr(engine, "Device", lambda kind, records: Device("cpu"))
        on_cpu = Translator.load(bundle, EngineSettings(device="cuda", max_rows=64))
    try:
        wanted = ids_of(on_cpu.translate(texts, options))
    finally:
        on_cpu.close()
    found = ids_of(translator.translate(texts, options))
    same = sum(a == b for a, b in zip(found, wanted, strict=True))
    assert same >= 0.97 * len(texts)


def test_a_translation_does_not_depend_on_its_batch(translator: Translator, texts: list[str]) -> None:
    options = DecodeOptions(num_beams=4)
    together = [result._replace(timings=Timings()) for result in translator.translate(texts, options)]
    alone = [translator.translate([text], options)[0]._replace(timings=Timings()) for text in texts]
    same = sum(a.alternatives[0].token_ids == b.alternatives[0].token_ids for a, b in zip(together, alone, strict=True))
    assert same == len(texts)
