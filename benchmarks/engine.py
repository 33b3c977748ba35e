"""How fast one worker of the engine decodes, and how near that is to its matrix products alone.

Sentences of one length are decoded from the queue to the answers, for every number of sentences, beam width, precision
and number of threads. ms per step is the median over the steps; a step is the graph, the search and the moves in the
cache. "products" is the same number of rows through the step's matrix products and nothing else, measured right after.
"""

import argparse
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.forced_decode import ForcedDecode
from benchmarks.products import Products
from benchmarks.report import keep, markdown, numbers, parser, save
from service.runtime.bundle import Bundle

COLUMNS = {
    "precision": "precision",
    "threads": "threads",
    "num_sentences": "sentences",
    "num_beams": "beams",
    "sentences_per_s": "sentences/s",
    "tokens_per_s": "tokens/s",
    "step_ms": "ms/step",
    "products_ms": "products ms",
    "step_to_products": "step / products",
    "encode_share": "encoder's share",
}


def options() -> argparse.ArgumentParser:
    arguments = parser(__doc__ or "", "engine")
    arguments.add_argument("bundle", type=Path)
    arguments.add_argument("--sentences", type=numbers, default=[1, 8, 32, 64, 128], help="in one batch, such as 1,8")
    arguments.add_argument("--beams", type=numbers, default=[1, 4])
    arguments.add_argument("--threads", type=numbers, default=[1, 2])
    arguments.add_argument("--precision", action="append", help="such as cpu-int8; default: all of the bundle")
    arguments.add_argument("--source-tokens", type=int, default=25)
    arguments.add_argument("--target-tokens", type=int, default=25)
    arguments.add_argument("--repeats", type=int, default=3, help="batches measured, after one that is not")
    return arguments


def measure(bundle: Bundle, precision: str, threads: int, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row for each number of sentences and beam width."""
    rig = ForcedDecode(bundle, precision, threads, max(given.sentences) * max(given.beams))
    graphs = bundle.graphs(precision)
    products = Products(bundle.path(graphs.decoder[min(graphs.decoder)]), threads)
    lengths = given.source_tokens, given.target_tokens
    for num_beams in given.beams:
        for num_sentences in given.sentences:
            rig.decode(num_sentences, num_beams, *lengths)
            runs = [rig.decode(num_sentences, num_beams, *lengths, seed) for seed in range(given.repeats)]
            alone_s = products.times_s(num_sentences * num_beams, repeats=max(10, given.repeats * 10))
            total_s = statistics.median(run.total_s for run in runs)
            step_s = statistics.median(step for run in runs for step in run.steps_s)
            yield {
                "precision": precision,
                "threads": threads,
                "num_sentences": num_sentences,
                "num_beams": num_beams,
                "sentences_per_s": num_sentences / total_s,
                "tokens_per_s": num_sentences * given.target_tokens / total_s,
                "step_ms": step_s * 1000,
                "products_ms": statistics.median(alone_s) * 1000,
                "step_to_products": step_s / statistics.median(alone_s),
                "encode_share": statistics.median(run.encode_s / run.total_s for run in runs),
            }


def main() -> int:
    given = options().parse_args()
    if given.quick:
        given.sentences, given.repeats, given.target_tokens = [1, 8], 1, 8
    bundle = Bundle.open(given.bundle)
    rows = []
    for precision in given.precision or sorted(bundle.manifest.precisions):
        for threads in given.threads:
            for row in measure(bundle, precision, threads, given):
                rows.append(row)
                keep(given.out, "engine", rows)
                print(" ".join(f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
                               for key, value in row.items()), flush=True)  # fmt: skip
    print(markdown(rows, COLUMNS))
    facts = {"model": bundle.manifest.name, "shape": asdict(bundle.manifest.shape), "seeds": list(range(given.repeats))}
    save(given.out, "engine", rows, **facts, source_tokens=given.source_tokens, target_tokens=given.target_tokens)
    return 0


if __name__ == "__main__":
    sys.exit(main())
