"""The engine on a device: padded steps, fixed memory, moves in place. The device here is the host's own memory; what
runs on a GPU is the same code with another name of the device."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from export import write_bundle
from export.matrices import Float32
from model.transformer import Transformer
from service.decoding.options import DecodeOptions
from service.engine import engine, placement
from service.engine.request import TextAnswer, TextResult, Timings
from service.engine.settings import EngineSettings
from service.engine.translator import Translator
from service.errors import ConfigurationError, EngineFailure
from service.runtime import kernels
from service.runtime.device_memory import Device
from service.runtime.device_session import DeviceSessions, DeviceStep
from tests.conftest import sentences

TEXTS = sentences(24)
OPTIONS = [
    DecodeOptions(num_beams=1),
    DecodeOptions(num_beams=4, num_alternatives=4),
    DecodeOptions(num_beams=3, no_repeat_ngram_size=2, repetition_penalty=1.2, min_length=4),
    DecodeOptions(num_beams=6, length_penalty=2.0, max_length=7),
]


def without_timings(answers: list[TextResult]) -> list[TextAnswer]:
    return [answer._replace(timings=Timings()) for answer in answers]


@pytest.fixture(scope="module")
def twin_bundle(
    random_transformer: Transformer, make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The graphs for CUDA in float32: GroupQueryAttention computes that on the CPU only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write_bundle, "Float16", Float32)
        folder = tmp_path_factory.mktemp("twin") / "bundle"
        return make_bundle(random_transformer, folder, precisions=("cuda-fp16", "cpu-fp32"))


@pytest.fixture
def gpu_in_host_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "require_gpu", lambda: None)
    monkeypatch.setattr(engine, "Device", lambda kind, records: Device("cpu", records=records))


@pytest.fixture
def on_device(twin_bundle: Path, gpu_in_host_memory: None) -> Iterator[Translator]:
    loaded = Translator.load(twin_bundle, EngineSettings(device="cuda", max_rows=22))
    assert isinstance(loaded.engine.sessions, DeviceSessions)
    yield loaded
    loaded.close()


def test_the_device_answers_what_the_cpu_answers(
    on_device: Translator, twin_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "library", lambda: None)  # a device has ONNX Runtime's own operators
    on_cpu = Translator.load(twin_bundle, EngineSettings(precision="fp32", num_workers=1, max_rows=22))
    try:
        for options in OPTIONS:
            found = without_timings(on_device.translate(TEXTS, options))
            wanted = without_timings(on_cpu.translate(TEXTS, options))
            assert [a.alternatives for a in found] == [a.alternatives for a in wanted]  # type: ignore[union-attr]
    finally:
        on_cpu.close()


def test_mixed_beams_in_one_batch_change_nothing(on_device: Translator) -> None:
    alone = {
        (text, options): without_timings(on_device.translate([text], options))[0]
        for text in TEXTS[:8]
        for options in OPTIONS
    }
    answers: dict[tuple[str, DecodeOptions], TextAnswer] = {}
    for options in OPTIONS:
        for text in TEXTS[:8]:
            key = (text, options)
            on_device.submit([text], options, lambda _, answer, key=key: answers.__setitem__(key, answer))
    assert on_device.drain(60)
    assert {key: answer._replace(timings=Timings()) for key, answer in answers.items()} == alone  # type: ignore[type-var]


def test_steps_are_padded_and_nothing_is_allocated_while_serving(on_device: Translator) -> None:
    worker = on_device.engine.workers[0]
    addresses = {kind: block.memory.address for kind, block in worker.cache.blocks.items()}  # type: ignore[attr-defined]
    seen: set[tuple[int, int]] = set()
    original = DeviceStep.run

    def watch(step: DeviceStep, *arguments: object) -> object:
        before = len(step.buckets)
        result = original(step, *arguments)  # type: ignore[arg-type]
        seen.add((len(step.buckets) - before, step.bucket))
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DeviceStep, "run", watch)
        on_device.translate(TEXTS, DecodeOptions(num_beams=4))
    assert {new for new, _ in seen} == {0}  # every bucket was warmed up
    assert {bucket for _, bucket in seen} <= {1, 2, 4, 8, 16, 22}
    assert len(seen) > 2
    assert {kind: block.memory.address for kind, block in worker.cache.blocks.items()} == addresses  # type: ignore[attr-defined]


def test_a_step_can_be_run_twice(on_device: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = without_timings(on_device.translate(TEXTS[:6], OPTIONS[1]))
    original = DeviceStep.run

    def twice(step: DeviceStep, *arguments: object) -> object:
        first = original(step, *arguments)  # type: ignore[arg-type]
        kept = np.array(first.log_probabilities)
        second = original(step, *arguments)  # type: ignore[arg-type]
        assert (second.log_probabilities == kept).all()
        return second

    monkeypatch.setattr(DeviceStep, "run", twice)
    assert without_timings(on_device.translate(TEXTS[:6], OPTIONS[1])) == wanted


def test_half_numbers_run_through_the_same_code(
    make_bundle: Callable[..., Path], random_transformer: Transformer, tmp_path: Path, gpu_in_host_memory: None
) -> None:
    bundle = make_bundle(random_transformer, tmp_path / "half", precisions=("cuda-fp16", "cpu-fp32"))
    half = Translator.load(bundle, EngineSettings(device="cuda", max_rows=16))
    single = Translator.load(bundle, EngineSettings(precision="fp32", num_workers=1))
    try:
        found, wanted = half.translate(TEXTS), single.translate(TEXTS)
        same = sum(
            a.alternatives[0].token_ids == b.alternatives[0].token_ids for a, b in zip(found, wanted, strict=True)
        )
        # Random weights leave many tokens nearly equal; a mistake would leave almost no sentence the same.
        assert same >= len(TEXTS) * 3 // 4
    finally:
        half.close()
        single.close()


def test_what_the_device_cannot_do_is_said_at_the_start(
    twin_bundle: Path, gpu_in_host_memory: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("CUDA failure 2: out of memory")

    monkeypatch.setattr(DeviceStep, "run", fail)
    with pytest.raises(ConfigurationError, match="does not run on this device: CUDA failure 2"):
        Translator.load(twin_bundle, EngineSettings(device="cuda", max_rows=16))


def test_a_device_error_while_serving_ends_the_engine(on_device: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("CUDA failure 700: an illegal memory access was encountered")

    monkeypatch.setattr(DeviceStep, "run", fail)
    with pytest.raises(EngineFailure) as raised:
        on_device.translate(TEXTS[:3])
    assert "CUDA" not in str(raised.value)  # clients are told no detail
    assert on_device.engine.failed.wait(10)
    with pytest.raises(EngineFailure):
        on_device.translate(TEXTS[:1])
