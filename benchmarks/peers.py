"""The same weights and sentences in Dragoman, CTranslate2 and Hugging Face Transformers.

For one sentence at a time and for many at once, greedy and with a beam: first each system's settings are tried and
the fastest kept; then the winners run in turn, and each round gives a ratio to Dragoman at the same precision. The
table has the median of those ratios. With real texts, BLEU stands beside the speed.

    python -m benchmarks.random_model build/base && python -m benchmarks.peers build/base --forced 25
    python -m benchmarks.peers runs/en-fr-tiny/best
    python -m benchmarks.peers opus-mt-en-fr        # a folder in Hugging Face's layout
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from benchmarks import random_model, texts
from benchmarks.artifacts import add_options, prepare
from benchmarks.report import keep, machine, markdown, numbers, parser, save, some_of, spread
from benchmarks.systems import MAX_LENGTH, Artifacts, System, make, named, variants
from model.evaluate import score

FAMILIES = ("dragoman int8", "ctranslate2 int8", "dragoman fp32", "ctranslate2 float32", "transformers float32")
# Each is compared with Dragoman at the precision nearest to its own.
REFERENCE = {"ctranslate2 int8": "dragoman int8", "ctranslate2 float32": "dragoman fp32"}
REFERENCE |= {"transformers float32": "dragoman fp32"}
PAUSE_S = 0.3  # OpenMP's threads spin for a fifth of a second after their work
COLUMNS = {
    "num_sentences": "sentences at once",
    "num_beams": "beams",
    "system": "system",
    "settings": "fastest settings",
    "sentences_per_s": "sentences/s",
    "ms": "ms per batch",
    "tokens_per_sentence": "tokens each",
    "ratio": "Dragoman's speed / its speed",
    "bleu": "BLEU",
}


class Workload(NamedTuple):
    """batches: lists of texts, each given to a system at once. is_forced: translations have ``max_length`` tokens."""

    batches: list[list[str]]
    num_beams: int
    max_length: int
    is_forced: bool


class Loaded:
    """Systems in memory, each loaded once."""

    def __init__(self, artifacts: Artifacts) -> None:
        self.artifacts = artifacts
        self.systems: dict[tuple[str, tuple[Any, ...]], System] = {}

    def get(self, family: str, settings: tuple[Any, ...]) -> System:
        key = (family, settings)
        if key not in self.systems:
            self.systems[key] = make(family, self.artifacts, settings)
        return self.systems[key]

    def keep_only(self, kept: set[tuple[str, tuple[Any, ...]]]) -> None:
        for key in [key for key in self.systems if key not in kept]:
            self.systems.pop(key).close()


def run(system: System, workload: Workload) -> tuple[float, int]:
    """Seconds and target tokens of the whole workload.

    Raises:
        RuntimeError: there are not as many translations as texts, or not all of them have the forced length.
    """
    time.sleep(PAUSE_S)
    started = time.perf_counter()
    outputs = [system.translate(batch, workload.num_beams, workload.max_length) for batch in workload.batches]
    seconds, num_tokens = time.perf_counter() - started, sum(output.num_tokens for output in outputs)
    num_texts = sum(map(len, workload.batches))
    if (found := sum(len(output.texts) for output in outputs)) != num_texts:
        raise RuntimeError(f"{type(system).__name__}: {num_texts} texts became {found}")
    if workload.is_forced and num_tokens != num_texts * workload.max_length:
        raise RuntimeError(
            f"{type(system).__name__}: {num_texts} times {workload.max_length} tokens became {num_tokens}"
        )
    return seconds, num_tokens


def fastest(loaded: Loaded, family: str, workload: Workload, cores: int) -> tuple[Any, ...]:
    """The settings with the shortest of three runs in turn with the others, after one that warms up."""
    candidates = variants(family, cores, len(workload.batches[0]))
    times = dict.fromkeys(candidates, float("inf"))
    for turn in range(4):
        for settings in candidates:
            seconds = run(loaded.get(family, settings), workload)[0]
            if turn:
                times[settings] = min(times[settings], seconds)
    best = min(times, key=lambda settings: times[settings])
    loaded.keep_only({key for key in loaded.systems if key[0] != family} | {(family, best)})
    return best


def compare(loaded: Loaded, families: Sequence[str], workload: Workload, rounds: int) -> list[dict[str, Any]]:
    """One row for each system: all winners in turn, ``rounds`` times."""
    cores = machine()["cores"]
    winners = {family: fastest(loaded, family, workload, cores) for family in families}
    times: dict[str, list[float]] = {family: [] for family in families}
    tokens: dict[str, int] = {}
    for turn in range(rounds):
        for family in families if turn % 2 == 0 else reversed(families):
            seconds, tokens[family] = run(loaded.get(family, winners[family]), workload)
            times[family].append(seconds)
    count = sum(map(len, workload.batches))
    rows = []
    for family in families:
        rows.append({
            "num_sentences": len(workload.batches[0]),
            "num_beams": workload.num_beams,
            "system": family,
            "settings": named(family, winners[family]),
            "variant": list(winners[family]),
            "sentences_per_s": count / statistics.median(times[family]),
            "ms": statistics.median(times[family]) * 1000 / len(workload.batches),
            "tokens_per_sentence": tokens[family] / count,
            "times_s": times[family],
        } | ratio_to_ours(family, times))  # fmt: skip
    return rows


def ratio_to_ours(family: str, times: dict[str, list[float]]) -> dict[str, Any]:
    """Median and quartiles of the paired ratios; nothing where Dragoman was not measured beside it."""
    ours = times.get(REFERENCE.get(family, family))
    if ours is None:
        return {}
    middle, low, high = spread([theirs / own for theirs, own in zip(times[family], ours, strict=True)])
    return {"ratio": middle, "ratio_quartiles": [low, high]}


def batches_of(chosen: Sequence[str], size: int, single: int) -> list[list[str]]:
    """One batch of ``size``, or ``single`` batches of one sentence each."""
    return [[text] for text in chosen[:single]] if size == 1 else [list(chosen[:size])]


def add_quality(rows: list[dict[str, Any]], loaded: Loaded, pairs: texts.Pairs, max_length: int) -> str:
    """Adds BLEU to the rows of the largest batches; returns its signature."""
    signature = ""
    size = max(row["num_sentences"] for row in rows)
    for row in rows:
        if row["num_sentences"] == size:
            system = loaded.get(row["system"], tuple(row["variant"]))
            found: list[str] = []
            for start in range(0, len(pairs.sources), size):
                found += system.translate(pairs.sources[start : start + size], row["num_beams"], max_length).texts
            scores = score(found, pairs.references)
            row["bleu"], row["chrf"], signature = scores.bleu, scores.chrf, scores.bleu_signature
    return signature


def options() -> argparse.ArgumentParser:
    arguments = parser(__doc__ or "", "peers")
    arguments.formatter_class = argparse.RawDescriptionHelpFormatter
    add_options(arguments)
    arguments.add_argument("--sentences", type=numbers, default=[1, 64], help="at once, such as 1,64")
    arguments.add_argument("--beams", type=numbers, default=[1, 4])
    arguments.add_argument("--texts", choices=texts.KINDS, default="mixed")
    arguments.add_argument("--single", type=int, default=16, help="sentences of the one-at-a-time workload")
    arguments.add_argument("--quality", type=int, default=600, help="sentences for BLEU; 0: none")
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--seed", type=int, default=1)
    systems = ",".join(FAMILIES)
    arguments.add_argument(
        "--systems", type=some_of(FAMILIES), default=systems, help="some of the default, with commas"
    )
    return arguments


def main() -> int:
    given = options().parse_args()
    if given.quick:
        given.sentences, given.rounds, given.single, given.quality = [1, 8], 2, 2, 0
    model, artifacts = prepare(given)
    count = max(*given.sentences, given.single)
    if given.forced:
        chosen = random_model.texts(count, given.forced, model.vocab_size, given.seed)
    else:
        chosen = texts.choose(given.texts, count, given.seed).sources
    loaded, rows, families = Loaded(artifacts), [], given.systems
    for size in given.sentences:
        for num_beams in given.beams:
            batches = batches_of(chosen, size, given.single)
            workload = Workload(batches, num_beams, given.forced or MAX_LENGTH, given.forced > 0)
            rows += compare(loaded, families, workload, given.rounds)
            keep(given.out, "peers", rows)
            print(markdown(rows[-len(families) :], COLUMNS), flush=True)
    facts: dict[str, Any] = {"seed": given.seed, "texts": given.texts if not given.forced else "random"}
    if given.quality and not given.forced:
        facts["bleu_signature"] = add_quality(
            rows, loaded, texts.choose(given.texts, given.quality, given.seed + 1), MAX_LENGTH
        )
        print(markdown(rows, COLUMNS))
    save(given.out, "peers", rows, forced=given.forced, rounds=given.rounds, model=asdict(model), **facts)
    loaded.keep_only(set())
    return 0


if __name__ == "__main__":
    sys.exit(main())
