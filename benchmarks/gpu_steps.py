"""Time of a decoder step on a GPU, started one by one and recorded, beside what memory allows.

Knows: how a step of fixed shape is set up and timed on a device. Does not know: whole translations; gpu_peers.py.

The floor of a step is the time in which its weights and the keys and values it attends to can be read once:
(bytes of the decoder's weights + bytes of cache in use) / bandwidth, which a copy within the memory measures first.
"""

import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from benchmarks import report
from service.runtime.bundle import Bundle
from service.runtime.device_memory import Device
from service.runtime.device_session import DeviceSessions
from service.runtime.session import StepInputs

PRECISION = "cuda-fp16"
PAST, SOURCE = 30, 35  # tokens before the step, tokens of the source
REPEATS = 50
BEAMS = (1, 4)


def weight_bytes(path: Path) -> int:
    """Of the tensors that a graph reads."""
    graph = onnx.load(str(path), load_external_data=False).graph
    types = onnx.helper.tensor_dtype_to_np_dtype
    return sum(int(np.prod(tensor.dims)) * types(tensor.data_type).itemsize for tensor in graph.initializer)


class Steps:
    """Steps of one bundle on one device."""

    def __init__(self, bundle: Bundle, device: Device, max_rows: int) -> None:
        self.bundle, self.shape = bundle, bundle.manifest.shape
        self.sessions = DeviceSessions(bundle, PRECISION, device, memory_share=0.45)  # two of them side by side
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


def measured_bandwidth(kind: str, size: int) -> float:
    """Bytes a second of a copy within the device's memory, reading and writing counted: the best of ten."""
    source = torch.ones(size, dtype=torch.uint8, device=kind)
    target = torch.empty_like(source)
    best = 0.0
    for _ in range(10):
        started = time.perf_counter()
        target.copy_(source)
        if kind == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * size / (time.perf_counter() - started))
    return best


def main() -> int:
    options = report.parser("decoder steps on a GPU beside what its memory's bandwidth allows", "gpu_steps")
    options.add_argument("bundles", type=Path, nargs="+", help=f"with {PRECISION} graphs (dragoman derive-cuda)")
    options.add_argument("--rows", type=report.numbers, default=[1, 8, 64, 256, 1024], help="rows of a step")
    options.add_argument("--rehearse", action="store_true", help="in host memory: does this program work?")
    given = options.parse_args()
    kind, repeats = "cpu" if given.rehearse else "cuda", 5 if given.quick or given.rehearse else REPEATS
    bandwidth = measured_bandwidth(kind, 1 << (24 if given.rehearse else 30))
    print(f"bandwidth of a copy: {bandwidth / 1e9:,.0f} GB/s")
    steps = [row for path in given.bundles for row in measure_steps(path, kind, given.rows, bandwidth, repeats)]
    report.save(given.out, "gpu_steps", steps, bandwidth_gb_s=bandwidth / 1e9, device=kind)
    return 0


if __name__ == "__main__":
    sys.exit(main())
