"""Memory of preparing and reading corpora that are larger than memory should have to be.

    python -m benchmarks.out_of_core

Made-up pairs are cleaned, searched for duplicates, tokenized and read as batches, each size in a process of its own.
Counted is anonymous memory, what the process has to hold; pages of mapped files can be dropped by the system any time.
Knows: made-up pairs. Does not know: how they are prepared.
"""

import argparse
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from model.config import CorpusConfig, VocabularyConfig
from model.data import BatchStream, SpecialTokens
from model.token_store import prepare
from model.vocabulary import learn_vocabulary

WORDS = np.array([f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "lmnrst"], dtype=object)
PAIRS_PER_BLOCK, NUM_BATCHES = 50_000, 1000
SECONDS_BETWEEN = 0.05  # the system keeps no peak of it: what lasts shorter may not be seen


def anonymous_mb() -> float:
    """Memory of this process that is no file's, in MB (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("/proc/self/status has no RssAnon")


def write_corpus(path: Path, num_pairs: int) -> None:
    """Random words, 4 to 12 a side."""
    rng = np.random.default_rng(1)
    with path.open("w") as file:
        for start in range(0, num_pairs, PAIRS_PER_BLOCK):
            sizes = rng.integers(4, 13, 2 * min(PAIRS_PER_BLOCK, num_pairs - start))
            words = WORDS[rng.integers(0, len(WORDS), int(sizes.sum()))].tolist()
            ends = np.cumsum(sizes).tolist()
            sides = [" ".join(words[end - size : end]) for end, size in zip(ends, sizes.tolist(), strict=True)]
            file.writelines(f"{source}\t{target}\n" for source, target in zip(sides[::2], sides[1::2], strict=True))


class Watch:
    """The most memory of this process between ``start`` and ``stop``, by phase."""

    def __init__(self) -> None:
        self.most: dict[str, float] = {}
        self.phase, self.done = "before", threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self) -> None:
        while not self.done.wait(SECONDS_BETWEEN):
            self.look()

    def look(self) -> None:
        phase, now = self.phase, anonymous_mb()
        self.most[phase] = max(now, self.most.get(phase, 0.0))

    def enter(self, phase: str) -> None:
        """Ends the present phase and begins another."""
        self.look()
        self.phase = phase
        self.look()


def measure(num_pairs: int, folder: Path) -> dict[str, Any]:
    """Memory and CPU time of one corpus."""
    file = folder / "pairs.tsv"
    write_corpus(file, num_pairs)
    corpus = CorpusConfig("made-up", tsv=str(file), max_length_ratio=100)
    sample = CorpusConfig("sample", tsv=str(file), max_pairs=1000)
    tokenizer = learn_vocabulary([sample], VocabularyConfig(size=500, max_sentences=2000), seed=1)
    watch = Watch()
    watch.thread.start()
    watch.enter("preparing")
    began = time.process_time()
    store = prepare(corpus, tokenizer, folder / "store")
    prepared = time.process_time()
    watch.enter("reading")
    stream = BatchStream([store], [1.0], SpecialTokens(tokenizer.pad, tokenizer.start, tokenizer.end), 4096, 1)
    num_batches = sum(1 for _ in islice(stream, NUM_BATCHES))
    watch.enter("after")
    watch.done.set()
    watch.thread.join()
    stored = sum(path.stat().st_size for path in (folder / "store").iterdir())
    return {
        "pairs": num_pairs,
        "kept": len(store),
        "text_mb": file.stat().st_size / 1e6,
        "store_mb": stored / 1e6,
        "before_mb": watch.most["before"],
        "preparing_mb": watch.most["preparing"],
        "reading_mb": watch.most["reading"],
        "batches": num_batches,
        "pairs_per_cpu_s": num_pairs / (prepared - began),
    }


def measure_alone(num_pairs: int, folder: Path | None) -> dict[str, Any]:
    """``measure`` in a new process: what another size has left in memory does not count."""
    with (
        tempfile.TemporaryDirectory(dir=folder) as own,
        multiprocessing.get_context("spawn").Pool(1) as pool,
    ):
        return pool.apply(measure, (num_pairs, Path(own)))


def growth(rows: Sequence[dict[str, Any]]) -> float:
    """How much more memory the largest corpus takes than the smallest, in MB."""
    return max(max(rows[-1][key] - rows[0][key] for key in ("preparing_mb", "reading_mb")), 0.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = [100_000, 1_000_000, 10_000_000]
    parser.add_argument("--pairs", type=report.numbers, default=sizes, help="sizes (default: 100000,1000000,10000000)")
    parser.add_argument("--folder", type=Path, help="where text and stores are written (default: the temporary folder)")
    parser.add_argument("--max-growth-mb", type=float, default=100.0, help="more is a failure (default: 100)")
    parser.add_argument("--out", type=Path, default=report.RESULTS / "out_of_core.json", help="the JSON file to write")
    options = parser.parse_args()
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for num_pairs in options.pairs:
        rows.append(row := measure_alone(num_pairs, options.folder))
        print(
            f"{row['pairs']:,} pairs, {row['text_mb']:,.0f} MB of text: {row['before_mb']:.0f} MB before, at most "
            f"{row['preparing_mb']:.0f} while preparing and {row['reading_mb']:.0f} while reading {row['batches']:,} "
            f"batches; {row['pairs_per_cpu_s']:,.0f} pairs per CPU second",
            flush=True,
        )
        report.keep(options.out, "out_of_core", rows)
    grown = growth(rows)
    print(f"the largest takes {grown:.0f} MB more than the smallest; its text has {rows[-1]['text_mb']:,.0f} MB")
    report.save(options.out, "out_of_core", rows, growth_mb=grown, max_growth_mb=options.max_growth_mb)
    return int(grown > options.max_growth_mb)


if __name__ == "__main__":
    sys.exit(main())
