"""A batch job beside the engine alone: the same sentences, the same loaded model, in turn.

The engine alone gets all sentences at once and keeps the results in memory; the job reads a JSONL file, and writes and
syncs another. Wall time and CPU time: on a machine that is shared, the second tells more. Knows: what is measured. Does
not know: how a job works.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import report, texts
from service.app import SHIPPED_BUNDLE
from service.decoding.options import DecodeOptions
from service.engine.settings import EngineSettings
from service.jobs.formats import FileKind, Format
from service.jobs.input_files import InputFiles
from service.jobs.job import Job, open_source, open_writer
from service.jobs.outcome_cache import OutcomeCache
from service.jobs.pipeline import Pipeline
from service.jobs.source import SourceOptions
from service.jobs.text_engine import EmbeddedEngine

MAX_TEXTS = 4000  # of one call of the engine alone: its queue is bounded
KIND = FileKind(Format.JSONL, "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=SHIPPED_BUNDLE)
    parser.add_argument("--texts", choices=texts.KINDS, default="tatoeba")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--beam", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    sentences = list(dict.fromkeys(texts.choose(options.texts, options.count, seed=1).sources))
    decoding = DecodeOptions(num_beams=options.beam)
    engine = EmbeddedEngine(options.bundle, EngineSettings(), "en", "fr", decoding)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        source = Path(folder, "in.jsonl")
        source.write_text("".join(json.dumps({"text": text}) + "\n" for text in sentences))
        rows = [
            measured(lambda: alone(engine, sentences, decoding), lambda: job(engine, source, len(sentences)), turn)
            for turn in range(options.rounds + 1)
        ][1:]  # the first round warms up
    engine.close()
    ratios = {name: statistics.median(row[name] for row in rows) for name in ("wall_ratio", "cpu_ratio")}
    speed = " and ".join(f"{ratios[f'{clock}_ratio']:.2f} by {clock} time" for clock in ("wall", "cpu"))
    print(f"{len(sentences)} sentences, {options.beam} beams: the job at the engine's speed times {speed}")
    if options.out:
        report.save(options.out, "batch", rows, num_sentences=len(sentences), **ratios)


def alone(engine: EmbeddedEngine, sentences: list[str], decoding: DecodeOptions) -> None:
    """The engine with nothing around it."""
    for first in range(0, len(sentences), MAX_TEXTS):
        engine.translator.translate(sentences[first : first + MAX_TEXTS], decoding)


def job(engine: EmbeddedEngine, path: Path, num_rows: int) -> None:
    """The whole job but loading the model. Raises RuntimeError where a row failed or is not there."""
    output = path.with_name("out.jsonl")
    source = open_source(InputFiles.find(str(path)), KIND, SourceOptions())
    done = Job(source, open_writer(source, KIND), "", output)
    done.open({})
    pipeline = Pipeline(source, engine, OutcomeCache())
    done.run(pipeline)
    summary = done.finish()
    if summary.failed or summary.rows != num_rows:
        raise RuntimeError(f"of {num_rows} rows {summary.rows} are done and {summary.failed} failed")
    output.unlink()


def measured(first: Callable[[], None], second: Callable[[], None], turn: int) -> dict[str, float]:
    """Seconds of both, one after the other, who begins changing, and how fast the second is beside the first."""
    found = {work: seconds(work) for work in ((first, second) if turn % 2 else (second, first))}
    (wall_a, cpu_a), (wall_b, cpu_b) = found[first], found[second]
    return {
        "engine_wall_s": wall_a,
        "job_wall_s": wall_b,
        "wall_ratio": wall_a / wall_b,
        "engine_cpu_s": cpu_a,
        "job_cpu_s": cpu_b,
        "cpu_ratio": cpu_a / cpu_b,
    }


def seconds(work: Callable[[], None]) -> tuple[float, float]:
    os.sync()
    wall, cpu = time.monotonic(), time.process_time()
    work()
    return time.monotonic() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
