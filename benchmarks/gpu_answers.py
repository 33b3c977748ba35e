"""Does a GPU say what PyTorch says? Greedy and beam translations of a bundle beside its own weights in float32.

Knows: the slow search (model/reference_decode.py) and what may not change an answer. Does not know: speed.

Compared: token ids with PyTorch's; recorded steps with steps started one by one; a sentence among others with the same
sentence among fewer. On a GPU products of other sizes may be summed in another order, so of the last the share of equal
answers is reported; where the number of rows is the same, neighbours may change nothing at all.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import report
from benchmarks.host_memory import device_or_rehearsal
from benchmarks.quality import read_test_set
from export.derive import SOURCE, pytorch_model
from model.evaluate import score
from model.reference_decode import extend_with, search_beams, search_greedily
from model.transformer import Transformer
from service.decoding.options import DecodeOptions
from service.engine.request import TextResult
from service.engine.settings import EngineSettings
from service.engine.translator import Translator
from service.runtime.bundle import Bundle

BEAMS = (1, 4)
Ids = tuple[int, ...]


def read_texts(given: Any, manifest: Any) -> tuple[list[str], list[str]]:
    """Sources, and references where there are any."""
    if given.text:
        lines = given.text.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line.strip()][: given.sentences], []
    found = read_test_set(given.data, "tatoeba.test", manifest.source_language, manifest.target_language)
    return found[0][: given.sentences], found[1][: given.sentences]


def load(bundle: Path, max_rows: int, record: bool = True) -> Translator:
    return Translator.load(bundle, EngineSettings(device="cuda", max_rows=max_rows, record_steps=record))


def ids_of(results: Sequence[TextResult]) -> list[Ids]:
    return [result.alternatives[0].token_ids for result in results]


def oracle(model: Transformer, translator: Translator, texts: Sequence[str], beams: int, kind: str) -> list[Ids]:
    """What PyTorch finds in float32, one sentence at a time, everything computed anew at each step."""
    tokenizer, found = translator.tokenizer, []
    with torch.device(kind):
        for ids in tokenizer.encode(texts):
            source = [*ids, tokenizer.end]
            length = translator.model_options.max_length(len(source), DecodeOptions())
            extend = extend_with(model, source, tokenizer.start)
            if beams == 1:
                best = search_greedily(extend, tokenizer.end, length, source)
            else:
                best = search_beams(extend, tokenizer.end, length, beams, source=source)[0]
            found.append(tuple(best.ids))
    return found


def share(found: Sequence[Ids], wanted: Sequence[Ids]) -> float:
    return sum(a == b for a, b in zip(found, wanted, strict=True)) / len(wanted)


def compare(
    bundle: Path, texts: Sequence[str], references: Sequence[str], kind: str, max_rows: int
) -> list[dict[str, Any]]:
    """One row for each number of beams."""
    model = pytorch_model(Bundle.open(bundle), SOURCE).to(kind)
    recorded, eager, narrow = load(bundle, max_rows), load(bundle, max_rows, record=False), load(bundle, 16)
    rows = []
    for beams in BEAMS:
        options = DecodeOptions(num_beams=beams)
        results = recorded.translate(texts, options)
        answers = ids_of(results)
        wanted = oracle(model, recorded, texts, beams, kind)
        again = eager.translate(texts, options)
        row: dict[str, Any] = {
            "beams": beams,
            "sentences": len(texts),
            "equal_to_pytorch": share(answers, wanted),
            "replayed_equal_to_eager": share(answers, ids_of(again)),
            "scores_equal_to_eager": share(scores_of(results), scores_of(again)),
            "equal_in_smaller_batches": share(ids_of(narrow.translate(texts, options)), answers),
        }
        if references:
            right = recorded.tokenizer.decode([list(ids) for ids in wanted])
            row["bleu"] = score([result.text for result in results], references).bleu
            row["bleu_of_pytorch"] = score(right, references).bleu
        print(", ".join(f"{key} {report.shown(value)}" for key, value in row.items()), flush=True)
        rows.append(row)
    for translator in (recorded, eager, narrow):
        translator.close()
    return rows


def scores_of(results: Sequence[TextResult]) -> list[Any]:
    return [result.alternatives[0].score for result in results]


def main() -> int:
    options = report.parser("translations on a GPU beside PyTorch's in float32", "gpu_answers")
    options.add_argument("bundle", type=Path, help="with cuda-fp16 graphs derived from its int8 weights")
    source = options.add_mutually_exclusive_group(required=True)
    source.add_argument("--text", type=Path, help="a file with a sentence in each line")
    source.add_argument("--data", type=Path, help="folder of the test sets: Tatoeba's, with BLEU")
    options.add_argument("--sentences", type=int, default=500)
    options.add_argument("--max-rows", type=int, default=256)
    options.add_argument("--rehearse", action="store_true", help="in host memory: does this program work?")
    given = options.parse_args()
    if given.quick:
        given.sentences = 8
    texts, references = read_texts(given, Bundle.open(given.bundle).manifest)
    with device_or_rehearsal(given.rehearse) as kind:
        rows = compare(given.bundle, texts, references, kind, given.max_rows)
    report.save(given.out, "gpu_answers", rows, device=kind)
    return 0


if __name__ == "__main__":
    sys.exit(main())
