"""The best candidates of a step, looked for among all of a vocabulary and block by block, in turn.

A vocabulary without a useful divisor is padded first (export/candidates.py).
"""

import statistics
import sys
import time
from typing import Any

import numpy as np
import onnxruntime as ort

from benchmarks.report import markdown, numbers, parser, save, spread
from export.candidates import best_candidates, padded_size
from export.graph_builder import GraphBuilder
from export.weights_file import WeightsFile

COLUMNS = {
    "vocab_size": "vocabulary",
    "padding": "padding",
    "rows": "rows",
    "plain_us": "one look at all, us",
    "blocks_us": "by blocks, us",
    "ratio": "faster by",
}


def session(size: int, num_blocks_of: int) -> ort.InferenceSession:
    """``num_blocks_of`` 0: without blocks. One thread, as an engine's worker with one core has."""
    graph = GraphBuilder("candidates", WeightsFile("weights.bin"))
    graph.input("numbers", np.float32, ["R", size])
    graph.input("count", np.int64, [1])
    values, ids = best_candidates(graph, "numbers", "count", num_blocks_of)
    graph.output(values, "values", np.float32, ["R", "C"])
    graph.output(ids, "ids", np.int64, ["R", "C"])
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(graph.model().SerializeToString(), options, providers=["CPUExecutionProvider"])


def measure(vocab_size: int, rows: int, count: int, rounds: int) -> dict[str, Any]:
    size = padded_size(vocab_size)
    rng = np.random.default_rng(vocab_size)
    plain = rng.standard_normal((rows, vocab_size)).astype(np.float32)
    longer = np.pad(plain, ((0, 0), (0, size - vocab_size)), constant_values=-np.inf)
    wanted = np.array([count])
    ways = [(session(vocab_size, 0), plain), (session(size, size), longer)]
    results = [way.run(["ids"], {"numbers": given, "count": wanted})[0] for way, given in ways]
    if not (results[0] == results[1]).all():
        raise RuntimeError("blocks give other candidates. This is a bug.")
    times: list[list[float]] = [[], []]
    for turn in range(rounds):
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            way, given = ways[which]
            started = time.perf_counter()
            way.run(None, {"numbers": given, "count": wanted})
            times[which].append(time.perf_counter() - started)
    middle, low, high = spread([a / b for a, b in zip(*times, strict=True)])
    plain_us, blocks_us = (statistics.median(each) * 1e6 for each in times)
    found = {"vocab_size": vocab_size, "padding": size - vocab_size, "rows": rows, "count": count}
    return found | {"plain_us": plain_us, "blocks_us": blocks_us, "ratio": middle, "ratio_quartiles": [low, high]}


def main() -> int:
    arguments = parser(__doc__ or "", "candidates")
    arguments.add_argument("--sizes", type=numbers, default=[8000, 32000, 58101, 62518, 256206])
    arguments.add_argument("--rows", type=int, default=64)
    arguments.add_argument("--candidates", type=int, default=8)
    arguments.add_argument("--rounds", type=int, default=101)
    given = arguments.parse_args()
    rounds = 5 if given.quick else given.rounds
    rows = [measure(size, given.rows, given.candidates, rounds) for size in given.sizes]
    print(markdown(rows, COLUMNS))
    save(given.out, "candidates", rows, rounds=rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
