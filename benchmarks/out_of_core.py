"""Memory of preparing and reading a corpus that is larger than memory should have to be.

    python -m benchmarks.out_of_core --pairs 10000000

Knows: made-up pairs. Counts anonymous memory (what the process has to hold; pages of mapped files can be dropped by the
system at any time) while pairs are cleaned, searched for duplicates and tokenized, and while batches are read.
"""

import argparse
import random
import tempfile
import threading
from itertools import islice
from pathlib import Path

from model.config import CorpusConfig, VocabularyConfig
from model.data import BatchStream, SpecialTokens
from model.token_store import prepare
from model.vocabulary import learn_vocabulary

WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "lmnrst"]
SECONDS_BETWEEN = 5.0


def anonymous_mb() -> float:
    """Memory of this process that is no file's, in MB (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no RssAnon")


def write_corpus(path: Path, num_pairs: int) -> None:
    rng = random.Random(1)
    with path.open("w") as file:
        for _ in range(num_pairs):
            source, target = rng.choices(WORDS, k=rng.randint(4, 12)), rng.choices(WORDS, k=rng.randint(4, 12))
            file.write(f"{' '.join(source)}\t{' '.join(target)}\n")


def watch(done: threading.Event, seen: list[float]) -> None:
    while not done.wait(SECONDS_BETWEEN):
        seen.append(anonymous_mb())
        print(f"{len(seen) * SECONDS_BETWEEN:.0f} s: {seen[-1]:.0f} MB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10_000_000, help="pairs to make up (default: 10,000,000)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pairs.tsv"
        write_corpus(file, options.pairs)
        corpus = CorpusConfig("made-up", tsv=str(file))
        sample = CorpusConfig("sample", tsv=str(file), max_pairs=1000)
        tokenizer = learn_vocabulary([sample], VocabularyConfig(size=500, max_sentences=2000), seed=1)
        done, seen = threading.Event(), [anonymous_mb()]
        print(f"before: {seen[0]:.0f} MB, a text of {file.stat().st_size / 1e6:,.0f} MB", flush=True)
        watcher = threading.Thread(target=watch, args=(done, seen))
        watcher.start()
        try:
            store = prepare(corpus, tokenizer, Path(folder) / "store")
            stream = BatchStream([store], [1.0], SpecialTokens(tokenizer.pad, tokenizer.start, tokenizer.end), 4096, 1)
            num_batches = sum(1 for _ in islice(stream, 1000))
        finally:
            done.set()
            watcher.join()
    print(f"{len(store):,} pairs, {num_batches:,} batches: {max(seen) - seen[0]:.0f} MB more than before at the most")


if __name__ == "__main__":
    main()
