"""The real CUDA provider on a GPU that computes nothing (tests/null_gpu): everything about a GPU but its numbers.

Here ONNX Runtime places the nodes, checks the shapes, chooses the kernels, records and replays the steps.
"""

import contextlib
import ctypes
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.client import Client, ServiceError
from service.decoding.options import DecodeOptions
from service.demo import free_port, wait_until_serving
from tests.conftest import random_model
from tests.integration.launched_server import DRAGOMAN, ROOT, LaunchedServer
from tests.null_gpu.build import LIBRARIES, build, why_not

pytestmark = [pytest.mark.integration, pytest.mark.skipif(bool(why_not()), reason=why_not() or "none")]
MAX_ROWS = 20
BUCKETS = (1, 2, 4, 8, 16, 20)
GREEDY = DecodeOptions(num_beams=1)
# What computes shapes from shapes: ONNX Runtime leaves that to the CPU, where the shapes are.
OF_SHAPES = {"Shape", "Slice", "Squeeze", "Unsqueeze", "Concat", "Gather"}


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("null_gpu"))


@pytest.fixture(scope="module")
def bundle(make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cuda") / "bundle"
    return make_bundle(random_model(), folder, precisions=("cuda-fp16", "cpu-fp32"))


@pytest.fixture(scope="module")
def loaded(libraries: Path, bundle: Path) -> tuple[dict[str, Any], list[str]]:
    """What tests/null_gpu/loaded.py says, and what happened on the GPU meanwhile, a line each."""
    events = libraries / "events"
    command = [sys.executable, "-m", "tests.null_gpu.loaded", str(bundle), str(MAX_ROWS)]
    environment = os.environ | {"LD_LIBRARY_PATH": str(libraries), "NULL_GPU_LOG": str(events), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), events.read_text().splitlines()


def test_the_provider_takes_every_node_and_a_step_copies_nothing(loaded: tuple[dict[str, Any], list[str]]) -> None:
    for name, operators in loaded[0]["graphs"].items():
        copies = {operator: count for operator, count in operators["all"].items() if operator.startswith("Memcpy")}
        # The lengths of the longest source and target, 8 bytes, by which places are divided.
        lengths = {"encoder": 1, "score": 2}.get(name, 0)
        assert copies == ({"MemcpyFromHost": lengths} if lengths else {}), name
        on_cpu = set(operators.get("CPUExecutionProvider", ()))
        assert on_cpu <= OF_SHAPES, name
        if name not in ("encoder", "score"):
            assert not on_cpu, name


def test_every_bucket_is_recorded_once_and_replayed(loaded: tuple[dict[str, Any], list[str]]) -> None:
    found, events = loaded
    num_steps = len(BUCKETS) * sum(name.startswith("decoder") for name in found["graphs"])
    assert events.count("begin ") == num_steps
    assert events.count("replay ") >= num_steps  # once in the warm-up is ONNX Runtime's choice, once more is ours
    assert found["replayed"] == [True] * num_steps
    assert [event for event in events if event.startswith("forbidden")] == []
    after_last = events[len(events) - events[::-1].index(next(e for e in events[::-1] if e.startswith("end"))) :]
    assert {event for event in after_last if not event.startswith("replay")} == set()
    assert found["used"] > 0


def test_rows_and_sources_are_written_where_they_are(loaded: tuple[dict[str, Any], list[str]]) -> None:
    """ScatterND copies the whole block first where its result is not bound to its input."""
    written = [event for event in loaded[1] if "ScatterND" in event]
    copied = {int(event.split()[1]) for event in loaded[1] if event.startswith("copy ")}
    position = 2 * 2 * 2 * 16 * 2  # keys and values of 2 layers, 2 heads of 16 float16 numbers
    assert len(written) >= 3  # two runs of the encoder, one move
    assert not copied & {MAX_ROWS * capacity * position for capacity in (32, 64)}


def test_attention_is_flash_attention_in_every_recorded_step(loaded: tuple[dict[str, Any], list[str]]) -> None:
    """GroupQueryAttention has slower ways, and ways that read the whole capacity of a row; none is taken."""
    kernels: list[str] = []
    num_layers, num_steps = 2, 0
    for event in loaded[1]:
        if event == "begin ":
            kernels = []
        elif event.startswith("kernel "):
            kernels.append(event)
        elif event.startswith("end "):
            num_steps += 1
            assert sum("flash_fwd_splitkv_kernel" in kernel for kernel in kernels) >= num_layers  # over what was said
            assert sum("flash_fwd" in kernel for kernel in kernels) >= 2 * num_layers  # and over the source
            assert not any("fmha" in kernel or "Unpack" in kernel or "Concat" in kernel for kernel in kernels)
    assert num_steps


def metrics_of(address: str) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as page:
        lines = page.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}


def test_the_service_chooses_the_gpu_and_counts_what_it_does(
    libraries: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(libraries))
    metrics = f"127.0.0.1:{free_port()}"
    flags = ["--bundle", str(bundle), "--device", "auto", "--max-rows", str(MAX_ROWS), "--metrics-listen", metrics]
    with LaunchedServer(*flags, "--log-level", "info") as server:
        with Client(server.address) as client:
            assert len(client.translate(["the red house"], source="en", target="fr", options=GREEDY)) == 1
        found = metrics_of(metrics)
    assert found['dragoman_device_memory_bytes{kind="planned"}'] > 0
    assert found['dragoman_device_memory_bytes{kind="used"}'] > 0
    assert found["dragoman_device_replays_total"] > 0
    assert found['dragoman_device_step_seconds_count{rows="1"}'] == found["dragoman_device_replays_total"]
    chosen = [json.loads(line) for line in capfd.readouterr().err.splitlines() if "device chosen" in line]
    assert [(line["device"], line["missing_for_cuda"]) for line in chosen] == [("cuda", [])]


def translate_until_it_fails(client: Client) -> None:
    for _ in range(40):
        client.translate(["the red house"], source="en", target="fr", options=GREEDY)


def test_a_device_error_ends_the_process(libraries: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(libraries))
    monkeypatch.setenv("NULL_GPU_FAILS", "60")  # the warm-up has fewer, the calls below more
    server = LaunchedServer("--bundle", str(bundle), "--device", "cuda", "--max-rows", str(MAX_ROWS))
    process = subprocess.Popen(server.command, cwd=ROOT, stderr=subprocess.PIPE)
    try:
        assert wait_until_serving(server.address, process)
        with Client(server.address) as client:
            with pytest.raises(ServiceError, match="INTERNAL"):
                translate_until_it_fails(client)
            with contextlib.suppress(ServiceError):  # it may be gone already
                while (state := client.health()) == "SERVING":
                    pass  # the answer was given before the loop's end was seen
                assert state == "NOT_SERVING"
        assert process.wait(60) == 1
    finally:
        process.kill()
        said = process.communicate()[1]
    assert "an illegal memory access was encountered" in said.decode(), said.decode()


def test_a_device_error_is_an_exit_code_of_the_command_line(libraries: Path, bundle: Path) -> None:
    """Not the end of a C++ destructor, 134: after such an error CUDA lets nothing be destroyed."""
    command = [*DRAGOMAN, "translate", "--bundle", str(bundle), "--to", "fr", "--device", "cuda", "--beam", "1"]
    environment = os.environ | {"LD_LIBRARY_PATH": str(libraries), "NULL_GPU_FAILS": "60"}
    texts = "the red house\n" * 400
    done = subprocess.run(
        command, input=texts, capture_output=True, text=True, timeout=110, env=environment, cwd=ROOT, check=False
    )
    assert "an illegal memory access was encountered" in done.stderr, done.stderr
    assert done.returncode == 1, done.stderr
    assert "Destroy" not in done.stderr, done.stderr


def test_models_come_and_go_while_another_works(libraries: Path, bundle: Path, tmp_path: Path) -> None:
    """While one records its steps nobody else may touch the device; what goes gives back all it had."""
    events = tmp_path / "events"
    command = [sys.executable, "-m", "tests.null_gpu.replaced", str(bundle), "3"]
    environment = os.environ | {
        "LD_LIBRARY_PATH": str(libraries),
        "NULL_GPU_LOG": str(events),
        "NULL_GPU_RECORD_US": "2000",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["translated"] > 0
    assert [line for line in events.read_text().splitlines() if line.startswith("forbidden")] == []
    one, *others = found["free"]
    assert set(others) == {one}, "each version that went gave back as much as the one before"


@pytest.mark.parametrize("gib", [1.2, 2, 5])
def test_as_many_rows_as_fit_are_what_fits(libraries: Path, bundle: Path, gib: float) -> None:
    """A GPU may have less memory than the rows that are asked for would need: there are fewer, and it starts."""
    command = [sys.executable, "-m", "tests.null_gpu.loaded", str(bundle), str(200_000)]
    environment = os.environ | {"LD_LIBRARY_PATH": str(libraries), "NULL_GPU_BYTES": str(int(gib * 2**30))}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=110, env=environment | {"PYTHONPATH": str(ROOT)}, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["used"] <= gib * 2**30


def is_here(library: str) -> bool:
    with contextlib.suppress(OSError):
        return ctypes.CDLL(library) is not None
    return False


@pytest.mark.parametrize("absent", ["libcuda.so.1", "libcudart.so.13", "libcublas.so.13", "libcurand.so.10"])
def test_what_is_missing_is_named_and_the_exit_code_is_78(
    libraries: Path, bundle: Path, tmp_path: Path, absent: str
) -> None:
    if is_here(absent):
        pytest.skip(f"this machine has {absent} of its own")
    for name in set(LIBRARIES.values()) - {absent}:
        (tmp_path / name).symlink_to(libraries / name)
    command = [*DRAGOMAN, "serve", "--bundle", str(bundle), "--device", "cuda", "--listen", "127.0.0.1:0"]
    environment = os.environ | {"LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, env=environment, cwd=ROOT, check=False)
    assert done.returncode == 78, done.stderr
    assert f"missing: {absent} (" in done.stderr
