"""What is said where a GPU was asked for and cannot be used. No GPU is needed: the libraries here are made up."""

import ctypes
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnxruntime as ort
import pytest

from service.engine import placement
from service.engine.placement import choose_precision, settle_device
from service.engine.settings import EngineSettings
from service.errors import BundleError, ConfigurationError
from service.runtime import gpu
from service.runtime.bundle import Bundle

ROOT = Path(__file__).parents[3]


class MadeUpDriver:
    """Answers as libcuda does."""

    def __init__(self, code: int, num_devices: int, version: int = 13000) -> None:
        self.code, self.num_devices, self.version = code, num_devices, version

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.code

    def cuDeviceGetCount(self, count: object) -> int:  # noqa: N802
        count._obj.value = self.num_devices  # type: ignore[attr-defined]
        return 0

    def cuDriverGetVersion(self, version: object) -> int:  # noqa: N802
        version._obj.value = self.version  # type: ignore[attr-defined]
        return 0


def loader(absent: tuple[str, ...] = (), driver: MadeUpDriver | None = None) -> Callable[[str], object]:
    def load(name: str) -> object:
        if name in absent:
            raise OSError(f"{name}: cannot open shared object file")
        return driver if name == "libcuda.so.1" else object()

    return load


@pytest.fixture
def _provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: [gpu.PROVIDER, "CPUExecutionProvider"])
    monkeypatch.setattr(gpu, "preload", lambda: None)


@pytest.mark.usefixtures("_provider")
@pytest.mark.parametrize(
    ("load", "wanted"),
    [
        (loader(absent=("libcuda.so.1",)), ["libcuda.so.1 (the NVIDIA driver)"]),
        (
            loader(absent=("libcublas.so.13", "libcudart.so.13"), driver=MadeUpDriver(0, 1)),
            ["libcudart.so.13 (CUDA 13's runtime)", "libcublas.so.13 (CUDA 13's cuBLAS)"],
        ),
        (loader(driver=MadeUpDriver(100, 0)), ["a GPU that the driver can use: it answers with error 100"]),
        (loader(driver=MadeUpDriver(0, 0)), ["a GPU: the driver sees none"]),
        (loader(driver=MadeUpDriver(0, 1, 12040)), ["a driver for CUDA 13: this one is for CUDA 12.4"]),
        (loader(driver=MadeUpDriver(0, 2)), []),
    ],
)
def test_what_is_missing_is_named(load: Callable[[str], object], wanted: list[str]) -> None:
    assert gpu.missing(load) == wanted
    if wanted:
        with pytest.raises(ConfigurationError) as raised:
            gpu.require_gpu(load)
        assert all(words in str(raised.value) for words in wanted)
    else:
        gpu.require_gpu(load)


def test_an_onnx_runtime_without_cuda_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert gpu.missing(loader()) == [
        "ONNX Runtime's CUDAExecutionProvider: install onnxruntime-gpu in place of onnxruntime"
    ]


def has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


@pytest.mark.skipif(has_driver(), reason="needs a machine without an NVIDIA driver")
def test_a_command_for_cuda_ends_with_78_and_says_why(nonsense_bundle: Path) -> None:
    command = [sys.executable, "-m", "service.cli", "serve", "--bundle", str(nonsense_bundle), "--device", "cuda"]
    command += ["--listen", "127.0.0.1:0", "--metrics-listen", "", "--log-format", "text"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment, check=False)
    assert done.returncode == 78
    assert "device cuda cannot be used here; missing: " in done.stderr
    if gpu.PROVIDER in ort.get_available_providers():
        assert "libcuda.so.1 (the NVIDIA driver)" in done.stderr


def test_auto_chooses_and_says_what_it_chose(
    nonsense_bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bundle, settings = Bundle.open(nonsense_bundle), EngineSettings(device="auto")
    with caplog.at_level(logging.INFO):
        assert settle_device(bundle, settings).device == "cpu"
    assert caplog.records[-1].facts == {"device": "cpu", "missing_for_cuda": ["no graphs for CUDA"]}  # type: ignore[attr-defined]
    graphs = bundle.manifest.precisions["cpu-fp32"]
    monkeypatch.setattr(bundle, "manifest", type("Manifest", (), {"precisions": {"cuda-fp16": graphs}}))
    monkeypatch.setattr(placement, "missing", list)
    assert settle_device(bundle, settings).device == "cuda"
    with pytest.raises(ConfigurationError, match=r"auto is cuda here: num_workers \(2\) must be 0 or 1 on a GPU"):
        settle_device(bundle, EngineSettings(device="auto", num_workers=2))
    monkeypatch.setattr(placement, "missing", lambda: ["libcuda.so.1 (the NVIDIA driver)"])
    assert settle_device(bundle, settings).device == "cpu"


def test_a_bundle_without_graphs_for_cuda_says_how_to_get_them(nonsense_bundle: Path) -> None:
    with pytest.raises(
        BundleError, match="nothing for device 'cuda'; it has cpu-int8, cpu-fp32; `dragoman derive-cuda`"
    ):
        choose_precision(Bundle.open(nonsense_bundle), EngineSettings(device="cuda"))


def test_a_gpu_has_one_worker() -> None:
    with pytest.raises(ValueError, match=r"num_workers \(2\) must be 0 or 1 on a GPU"):
        EngineSettings(device="cuda", num_workers=2)
