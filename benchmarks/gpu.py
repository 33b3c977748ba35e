"""Everything that is to be seen on a GPU, in one JSON: its tests, steps beside what memory allows, BLEU.

Knows: how a step of fixed shape is set up and timed on a device. Does not know: other systems; peers.py compares those.

The floor of a step is the time in which its weights and the keys and values it attends to can be read once:
(bytes of the decoder's weights + bytes of cache in use) / memory bandwidth.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks import report
from benchmarks.quality import BEAMS, measure
from service.runtime import gpu
from service.runtime.bundle import Bundle
from service.runtime.device_memory import Device
from service.runtime.device_session import DeviceSessions
from service.runtime.session import StepInputs

PRECISION = "cuda-fp16"
PAST, SOURCE = 30, 35  # tokens before the step, tokens of the source
REPEATS = 50


def weight_bytes(path: Path) -> int:
    """Of the tensors that a graph reads."""
    graph = onnx.load(str(path), load_external_data=False).graph
    types = onnx.helper.tensor_dtype_to_np_dtype
    return sum(int(np.prod(tensor.dims)) * types(tensor.data_type).itemsize for tensor in graph.initializer)


class Steps:
    """Steps of one bundle on one device."""

    def __init__(self, bundle: Bundle, device: Device, max_rows: int) -> None:
        self.bundle, self.shape = bundle, bundle.manifest.shape
        self.sessions = DeviceSessions(bundle, PRECISION, device, memory_share=0.9)
        self.cache = self.sessions.make_cache(max_rows, SOURCE, PAST + 2)
        started = time.perf_counter()
        self.sessions.warm_up(self.cache)
        self.warm_up_s = time.perf_counter() - started

    def milliseconds(self, num_rows: int, num_beams: int, repeats: int) -> float:
        """Median of a step, inputs and candidates carried over included."""
        decoder = self.sessions.decoder_for(num_beams)
        step, width = self.sessions.bind_step(decoder, self.cache), decoder.num_beams
        rows = np.arange(num_rows)
        sentences, beams = rows // num_beams, rows % num_beams
        num_sentences = int(sentences[-1]) + 1
        queries = np.zeros((num_sentences, width), np.int64)
        queries[sentences, beams] = rows
        self.cache.lengths[:] = PAST
        self.cache.source_lengths_less_1[:] = SOURCE - 1
        inputs = StepInputs(np.full(num_rows, 5), queries.reshape(-1), sentences * width + beams, 2 * num_beams)
        times = []
        for _ in range(repeats + 3):
            started = time.perf_counter()
            step.run(inputs, num_sentences)
            times.append(time.perf_counter() - started)
        return statistics.median(times[3:]) * 1000

    def floor_ms(self, num_rows: int, num_beams: int, bandwidth: float) -> float:
        graphs = self.bundle.graphs(PRECISION)
        width = self.sessions.decoder_for(num_beams).num_beams
        position = 2 * self.shape.num_decoder_layers * self.shape.model_width * np.dtype(self.sessions.dtype).itemsize
        cache = position * (num_rows * PAST + -(-num_rows // num_beams) * SOURCE)
        return (weight_bytes(self.bundle.path(graphs.decoder[width])) + cache) / bandwidth * 1000


def measure_steps(path: Path, kind: str, rows: list[int], bandwidth: float, repeats: int) -> list[dict[str, Any]]:
    """One entry for each number of rows and beams: eager and recorded in turn."""
    bundle, found = Bundle.open(path), []
    name = f"{bundle.manifest.name} {bundle.manifest.version}"
    ways = {
        "eager": Steps(bundle, Device(kind), max(rows)),
        "recorded": Steps(bundle, Device(kind, records=True), max(rows)),
    }
    for num_rows in rows:
        for beams in BEAMS:
            if num_rows < beams or num_rows > ways["recorded"].cache.max_rows:
                continue
            entry: dict[str, Any] = {"model": name, "rows": num_rows, "beams": beams}
            for way, steps in ways.items():
                entry[f"{way}_ms"] = steps.milliseconds(num_rows, beams, repeats)
            entry["floor_ms"] = ways["recorded"].floor_ms(num_rows, beams, bandwidth)
            entry["tokens_per_s"] = num_rows / beams / entry["recorded_ms"] * 1000
            print(", ".join(f"{key} {report.shown(value)}" for key, value in entry.items()), flush=True)
            found.append(entry)
    planned, used = ways["recorded"].sessions.device_bytes
    facts = {"planned_bytes": planned, "used_bytes": used, "warm_up_s": ways["recorded"].warm_up_s}
    return [{"model": name, **facts}, *found]


def run_tests() -> dict[str, Any]:
    """tests/gpu in a process of its own, whose device memory is free again afterwards."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "tests/gpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout[-4000:])
    return {"exit_code": done.returncode, "output": done.stdout.splitlines()[-20:]}


def main() -> int:
    options = report.parser("tests and speed of the engine on a GPU, beside what memory allows", "gpu")
    options.add_argument("bundles", type=Path, nargs="+", help=f"with {PRECISION} graphs (dragoman derive-cuda)")
    options.add_argument("--rows", type=report.numbers, default=[1, 8, 64, 256, 1024], help="rows of a step")
    options.add_argument("--bandwidth", type=float, default=4800, help="of the GPU's memory, GB/s (an H200: 4800)")
    options.add_argument("--data", type=Path, help="folder of the test sets, for BLEU")
    options.add_argument("--trial", action="store_true", help="in host memory: does this program work?")
    arguments = options.parse_args()
    if not arguments.trial and (absent := gpu.missing()):
        print(f"this needs a GPU; missing: {'; '.join(absent)}", file=sys.stderr)
        return 78
    rows = arguments.rows[:2] if arguments.quick else arguments.rows
    kind, repeats = "cpu" if arguments.trial else "cuda", 5 if arguments.quick else REPEATS
    tests = {} if arguments.trial else run_tests()
    steps = [
        row for path in arguments.bundles for row in measure_steps(path, kind, rows, arguments.bandwidth * 1e9, repeats)
    ]
    quality = measure(arguments.bundles[0], arguments.data, ["tatoeba.test"]) if arguments.data else []
    device = "host memory" if arguments.trial else "GPU"
    report.save(arguments.out, "gpu", steps, device=device, tests=tests, quality=quality)
    return int(bool(tests.get("exit_code")))


if __name__ == "__main__":
    sys.exit(main())
