"""How good a bundle translates: sacreBLEU and chrF on every test set, greedy and beam, in every precision.

Beside a test set stand its variants (model/variants.py): the same sentences as people type them, in capitals, without
capitals and full stop, with other numbers, with addresses and codes that must stay as they are.

Knows: where the test sets are (NOTICE says whose they are). Does not know: how a sentence is translated.
"""

import dataclasses
import gzip
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.host_memory import device_or_rehearsal
from model.evaluate import score
from model.variants import NOTHING, varied
from service.decoding.options import DecodeOptions
from service.engine.settings import EngineSettings
from service.engine.translator import Translator
from service.runtime.bundle import Bundle

BEAMS = (1, 4)
TESTS = (
    "tatoeba.test",
    "newstest2013",
    "europarl.dev",
    "tatoeba.test capitals",
    "tatoeba.test lowercase",
    "tatoeba.test copies",
    "tatoeba.test title",
    "tatoeba.test typographic",
    "europarl.dev numbers",
)


def read_lines(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as lines:
        return [line.rstrip("\r\n") for line in lines]


def read_test_set(folder: Path, name: str, source: str, target: str) -> tuple[list[str], list[str]]:
    """Sources and references of ``tatoeba.test``, ``newstest2013`` or ``europarl.dev``, or of a variant of it."""
    name, _, variant = name.partition(" ")
    if variant:
        sources, references = read_test_set(folder, name, source, target)
        pairs = [pair for pair in varied(zip(sources, references, strict=True), variant) if pair != NOTHING]
        return [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    pair = f"{source}-{target}"
    if name == "tatoeba.test":
        columns = [line.split("\t") for line in read_lines(folder / pair / "tatoeba.test.tsv.gz")]
        return [row[0] for row in columns], [row[1] for row in columns]
    if name == "newstest2013":
        stem = folder / "eval" / f"newstest2013.{pair}"
        return read_lines(Path(f"{stem}.{source}.gz")), read_lines(Path(f"{stem}.{target}.gz"))
    return read_lines(folder / pair / f"europarl.dev.{source}.gz"), read_lines(
        folder / pair / f"europarl.dev.{target}.gz"
    )


def measure(bundle: Path, data: Path, names: Sequence[str], most: int | None = None) -> list[dict[str, Any]]:
    """One entry for each precision, test set and beam width; of each test set the first ``most`` lines.

    Variants are measured in the first precision only: what they ask is whether the model has learned them.
    """
    manifest = Bundle.open(bundle).manifest
    found = []
    first, *_ = manifest.precisions
    for precision in manifest.precisions:
        device, kind = precision.split("-")
        translator = Translator.load(bundle, EngineSettings(device=device, precision=kind, max_queue_sentences=100_000))
        for name in (name for name in names if precision == first or " " not in name):
            lines = read_test_set(data, name, manifest.source_language, manifest.target_language)
            sources, references = (side[:most] for side in lines)
            for beams in BEAMS:
                results = translator.translate(sources, DecodeOptions(num_beams=beams))
                scores = score([result.text for result in results], references)
                split = sum(result.split for result in results)
                entry = {"precision": precision, "test": name, "num_beams": beams, "split_texts": split}
                found.append(entry | dataclasses.asdict(scores))
                line = f"{precision} {name} beam {beams}: BLEU {scores.bleu:.2f} chrF {scores.chrf:.2f}"
                print(f"{line}, {split} of {len(sources)} texts split", flush=True)
        translator.close()
    return found


def main() -> int:
    options = report.parser("sacreBLEU and chrF of a bundle on every test set", "quality")
    options.add_argument("--bundle", type=Path, required=True)
    options.add_argument("--test", action="append", choices=TESTS, help="a test set; may be repeated (default: all)")
    options.add_argument("--sentences", type=int, help="of each test set, from its beginning (default: all)")
    options.add_argument("--rehearse", action="store_true", help="graphs for CUDA, too, in the host's memory")
    arguments = options.parse_args()
    if "DRAGOMAN_DATA" not in os.environ:
        print("DRAGOMAN_DATA must name the folder with the test sets", file=sys.stderr)
        return 2
    names = arguments.test or (TESTS[:1] if arguments.quick else TESTS)
    with device_or_rehearsal(arguments.rehearse):
        rows = measure(arguments.bundle, Path(os.environ["DRAGOMAN_DATA"]), names, arguments.sentences)
    report.save(arguments.out, "quality", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
