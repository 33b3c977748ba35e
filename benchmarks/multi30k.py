"""The Multi30k figure of training runs: BLEU on test2016 by PyTorch and by the exported graphs, which must be equal.

    python -m benchmarks.multi30k runs/multi30k-en-de

For each run the last checkpoints are averaged and exported in float32. Every line is one sentence, given to both sides
as token ids: PyTorch searches by model/reference_decode.py, the graphs by the engine that serves. BLEU is sacreBLEU
with tokenize=none on the lower-cased tokens as they stand. ``--tune`` chooses the length penalty on validation text.

Knows: the published setting. Does not know: how the runs were trained.
"""

import argparse
import statistics
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sacrebleu.metrics.bleu import BLEU
from tqdm import tqdm

from benchmarks import report
from benchmarks.texts import lines, root
from export.write_bundle import ExportOptions, write_bundle
from model import checkpoint
from model.reference_decode import extend_with, search_beams
from service.decoding.options import DecodeOptions
from service.engine.request import Sentence, SentenceAnswer, SentenceResult
from service.engine.settings import EngineSettings
from service.engine.translator import Translator

PUBLISHED_BLEU = 41.02
NUM_BEAMS = 5
LENGTH_PENALTIES = (0.6, 0.8, 1.0, 1.2, 1.4)
TEST, VALIDATION = "test_2016_flickr", "val"
TIE = 1e-4  # scores nearer than this are one score: float32 sums of other order

Ids = list[int]


class Text(NamedTuple):
    """Source lines as token ids with end token, and the references as they stand."""

    sources: list[Ids]
    references: list[str]


class Found(NamedTuple):
    """One translation: token ids with end token, normalised score."""

    ids: Ids
    score: float


def average(run: Path, last: int, out: Path) -> list[str]:
    """Writes the mean of the run's last checkpoints, or of ``run`` alone where it is itself a checkpoint.

    Returns:
        The names of the checkpoints.

    Raises:
        CheckpointError: there are fewer than ``last``, or one cannot be read.
    """
    folders = [run] if (run / "config.json").is_file() else checkpoint.steps(run)[-last:]
    if len(folders) < last and folders != [run]:
        raise checkpoint.CheckpointError(f"--last {last}: {run} has {len(folders)} checkpoints")
    _, tokenizer, description = checkpoint.load_model(folders[-1])
    checkpoint.save(out, checkpoint.average(folders), tokenizer, description, None)
    return [folder.name for folder in folders]


def export(folder: Path, bundle: Path) -> None:
    model, tokenizer, description = checkpoint.load_model(folder)
    limit = min(256, model.config.max_positions)
    options = ExportOptions("multi30k", "1", ("cpu-fp32",), max_source_tokens=limit, max_target_tokens=limit)
    write_bundle(model, tokenizer, description, bundle, options)


def read(data: Path, part: str, translator: Translator, count: int | None) -> Text:
    """The first ``count`` lines of ``part``, or all; a line is one sentence however many full stops it has."""
    sources, references = (lines(data / f"{part}.lc.norm.tok.{side}.gz")[:count] for side in ("en", "de"))
    tokenizer = translator.tokenizer
    return Text([[*ids, tokenizer.end] for ids in tokenizer.encode(sources)], references)


def by_engine(translator: Translator, sources: Sequence[Ids], length_penalty: float) -> list[Found]:
    """The best hypothesis of each source, all of them in the engine at once."""
    options = DecodeOptions(num_beams=NUM_BEAMS, length_penalty=length_penalty)
    answers: dict[int, SentenceAnswer] = {}
    complete = threading.Event()

    def receive(number: int, answer: SentenceAnswer) -> None:
        answers[number] = answer
        if len(answers) == len(sources):
            complete.set()

    translator.engine.submit(
        [
            Sentence(
                tuple(ids),
                options,
                translator.model_options.max_length(len(ids), options),
                lambda answer, number=number: receive(number, answer),  # type: ignore[misc]
                stop_repetition=False,
            )
            for number, ids in enumerate(sources)
        ]
    )
    complete.wait()
    found = []
    for number in range(len(sources)):
        answer = answers[number]
        if not isinstance(answer, SentenceResult):
            raise answer
        found.append(Found(list(answer.hypotheses[0].ids), answer.hypotheses[0].score))
    return found


def by_pytorch(folder: Path, translator: Translator, sources: Sequence[Ids], length_penalty: float) -> list[Found]:
    """The same by the slow search: no cache, one sentence after the other."""
    model, tokenizer, _ = checkpoint.load_model(folder)
    found = []
    for ids in tqdm(sources, desc="PyTorch", unit=" sentences", mininterval=5, disable=None):
        limit = translator.model_options.max_length(len(ids), DecodeOptions(num_beams=NUM_BEAMS))
        extend = extend_with(model, ids, tokenizer.start)
        best = search_beams(extend, tokenizer.end, limit, NUM_BEAMS, length_penalty)[0]
        found.append(Found(best.ids, best.score))
    return found


def bleu(translator: Translator, found: Sequence[Found], references: Sequence[str]) -> tuple[float, str]:
    """sacreBLEU on tokens as they stand, and its signature."""
    metric = BLEU(tokenize="none", force=True)  # force: tokenized text is what is wanted here
    texts = translator.tokenizer.decode([translation.ids for translation in found])
    return float(metric.corpus_score(texts, [list(references)]).score), str(metric.get_signature())


def tuned(translator: Translator, text: Text) -> dict[float, float]:
    """BLEU on the validation text for each length penalty."""
    scores = {}
    for penalty in LENGTH_PENALTIES:
        scores[penalty], _ = bleu(translator, by_engine(translator, text.sources, penalty), text.references)
        print(f"validation, length penalty {penalty:g}: BLEU {scores[penalty]:.2f}", flush=True)
    return scores


def compare(right: Sequence[Found], found: Sequence[Found]) -> tuple[int, int]:
    """How many translations have the same ids, and how many others have at least the same score."""
    equal = [r.ids == f.ids for r, f in zip(right, found, strict=True)]
    ties = [not e and abs(r.score - f.score) < TIE for e, r, f in zip(equal, right, found, strict=True)]
    return sum(equal), sum(ties)


def evaluate(run: Path, data: Path, work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One run's row."""
    folder, bundle = work / "average", work / "bundle"
    names = average(run, options.last, folder)
    export(folder, bundle)
    settings = EngineSettings(precision="fp32", max_queue_sentences=10_000, max_queue_tokens=1_000_000)
    translator = Translator.load(bundle, settings)
    try:
        on_validation = tuned(translator, read(data, VALIDATION, translator, options.count)) if options.tune else {}
        penalty = max(on_validation, key=lambda p: on_validation[p]) if on_validation else options.length_penalty
        text = read(data, TEST, translator, options.count)
        found = by_engine(translator, text.sources, penalty)
        right = by_pytorch(folder, translator, text.sources, penalty)
        (graphs_bleu, signature), (torch_bleu, _) = (bleu(translator, f, text.references) for f in (found, right))
    finally:
        translator.close()
    equal, ties = compare(right, found)
    print(
        f"{run.name}, mean of {len(names)}, beam {NUM_BEAMS}, length penalty {penalty:g}, {len(found)} sentences: "
        f"BLEU {torch_bleu:.2f} by PyTorch, {graphs_bleu:.2f} by the graphs; {equal} have equal ids, {ties} more tie",
        flush=True,
    )
    row = {"run": run.name, "checkpoints": names, "validation_bleu": on_validation, "length_penalty": penalty}
    row |= {"bleu_pytorch": torch_bleu, "bleu_graphs": graphs_bleu, "signature": signature}
    return row | {"num_sentences": len(found), "num_equal": equal, "num_ties": ties}


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Mean and standard deviation over the runs, beside what was published."""
    scores = [row["bleu_pytorch"] for row in rows]
    deviation = statistics.stdev(scores) if len(scores) > 1 else None  # of one run nothing is known
    return {"published_bleu": PUBLISHED_BLEU, "mean_bleu": statistics.fmean(scores), "standard_deviation": deviation}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a run's folder, or a single checkpoint")
    parser.add_argument("--last", type=int, default=10, help="checkpoints to average (default: 10)")
    parser.add_argument("--length-penalty", type=float, default=1.0, help="of the beam search (default: 1)")
    parser.add_argument("--tune", action="store_true", help="choose the length penalty on the validation text instead")
    parser.add_argument("--count", type=int, help="only the first so many lines of each text: does it work?")
    parser.add_argument("--work", type=Path, default=Path("build/multi30k"), help="where averages and bundles go")
    parser.add_argument("--out", type=Path, default=report.RESULTS / "multi30k.json", help="the JSON file to write")
    options = parser.parse_args()
    if options.count and options.out == parser.get_default("out"):
        options.out = report.QUICK_RESULTS / options.out.name
    torch.set_num_threads(1)  # so small a model gains nothing from more
    data = root("multi30k-en-de") / "multi30k-en-de"
    try:
        rows = [evaluate(run, data, options.work / run.resolve().name, options) for run in options.runs]
    except checkpoint.CheckpointError as error:
        parser.error(str(error))
    found = summary(rows)
    several = f" +- {found['standard_deviation']:.2f}" if found["standard_deviation"] is not None else ", one run"
    print(f"mean {found['mean_bleu']:.2f}{several}, published {PUBLISHED_BLEU:.2f}")
    report.save(options.out, "multi30k", rows, num_beams=NUM_BEAMS, **found)
    return int(any(row["num_equal"] + row["num_ties"] < row["num_sentences"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
