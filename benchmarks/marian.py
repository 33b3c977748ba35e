"""A checkpoint in Hugging Face's layout, and the bundle that was imported from it: do both translate alike?

Sentence by sentence: token ids beside those of Transformers' ``generate``, both scores, and where the ids differ, the
score of either by PyTorch, which shows a tie. Tokenization line by line. CTranslate2 with the same weights. BLEU in
every precision of the bundle.

    dragoman import-marian opus-mt-en-fr build/en-fr --calibration english.txt
    python -m benchmarks.marian opus-mt-en-fr build/en-fr --text pairs.tsv.gz --beams 1,4,6
"""

import argparse
import gzip
import itertools
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.ctranslate2_model import Vocabulary, load, write_ctranslate2
from benchmarks.report import markdown, numbers, parser, save
from benchmarks.texts import odd_lines
from benchmarks.transformers_folder import Generated, TransformersFolder
from export.huggingface.importer import Checkpoint, read_checkpoint
from model.evaluate import score
from service.decoding.options import DecodeOptions
from service.engine.languages import LanguageChoice, choose_languages
from service.engine.settings import EngineSettings
from service.engine.translator import Translator

TIE = 1e-4
Codes = tuple[str, str]  # of source and target language
COLUMNS = {
    "num_beams": "beams",
    "sentences": "sentences",
    "equal": "same ids",
    "ties": "ties",
    "different": "other ids",
    "score_difference": "largest difference of scores",
    "ctranslate2_equal": "CTranslate2: same ids",
    "ctranslate2_ties": "ties",
    "ctranslate2_lower": "its score is lower",
    "ctranslate2_higher": "higher",
    "ctranslate2_score_difference": "its largest difference",
}


class Found(NamedTuple):
    """One translation of one system: ids with the end token where it was reached, and the score it gives itself."""

    ids: list[int]
    score: float


def read_text(path: Path) -> list[list[str]]:
    """Lines of a text, gzip or not: source and, behind a tab, what a person made of it."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [line.split("\t") for line in content.decode().rstrip("\n").split("\n")]


def settings(precision: str) -> EngineSettings:
    """``generate`` translates on where it repeats itself."""
    return EngineSettings(precision=precision, num_workers=1, stop_repetition=False, max_queue_sentences=100_000)


def whole_sentences(translator: Translator, languages: LanguageChoice, texts: Sequence[str], count: int) -> list[str]:
    """The first different texts that Dragoman does not divide: ``generate`` divides none."""
    splitter = translator.splitter(languages)
    return list(
        itertools.islice((text for text in dict.fromkeys(texts) if splitter.split(text).sentences == (text,)), count)
    )


def theirs(folder: TransformersFolder, sources: Sequence[list[int]], num_beams: int, batch: int) -> list[Generated]:
    """``generate`` on batches of sources of one length: nothing is padded, so a batch changes rounding at most."""
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    found: dict[int, Generated] = {}
    for _, group in itertools.groupby(order, key=lambda i: len(sources[i])):
        for some in batches(list(group), batch):
            found |= zip(some, folder.generate([sources[i] for i in some], num_beams), strict=True)
            print(f"\r{num_beams} beams: {len(found)}/{len(sources)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return [found[i] for i in range(len(sources))]


def batches(values: list[int], size: int) -> Iterator[list[int]]:
    return (values[i : i + size] for i in range(0, len(values), size))


def compare(
    folder: TransformersFolder, sources: Sequence[list[int]], expected: Sequence[Generated], found: Sequence[Found]
) -> dict[str, Any]:
    """How many translations are equal, and how far scores are apart; a tie is shown by PyTorch's score of both."""
    equal, ties, differences, others = 0, 0, [0.0], []
    for source, right, mine in zip(sources, expected, found, strict=True):
        if mine.ids == right.ids:
            equal += 1
            wanted = folder.score(source, right.ids)
            differences += [abs(mine.score - value) for value in (wanted, right.score) if not math.isnan(value)]
            continue
        scores = folder.score(source, right.ids), folder.score(source, mine.ids)
        if abs(scores[0] - scores[1]) <= TIE:
            ties += 1
        else:
            others.append({"generate": [right.ids, scores[0]], "found": [mine.ids, scores[1]]})
    facts = {"equal": equal, "ties": ties, "different": len(others), "score_difference": max(differences)}
    return {"sentences": len(sources), **facts, "others": others}


def ours(translator: Translator, texts: Sequence[str], options: DecodeOptions, codes: Codes) -> list[Found]:
    results = translator.translate(texts, options, codes)
    return [Found(list(result.alternatives[0].token_ids), result.score or 0.0) for result in results]


class CTranslate2Peer:
    """CTranslate2 in float32 with the same weights and token ids, a sentence at a time."""

    def __init__(self, checkpoint: Checkpoint, folder: Path) -> None:
        self.vocabulary = Vocabulary.of(checkpoint.tokenizer)
        write_ctranslate2(checkpoint.model, self.vocabulary, folder)
        self.translator = load(folder, "float32", 1, 1)
        self.ids = {piece: i for i, piece in enumerate(self.vocabulary.target)}
        self.limit = checkpoint.decoding.max_length or checkpoint.model.config.max_positions

    def translate(self, sources: Sequence[list[int]], options: DecodeOptions, first: Sequence[int]) -> list[Found]:
        prefix = [self.vocabulary.target[i] for i in first]
        results = self.translator.translate_batch(
            [[self.vocabulary.source[i] for i in ids] for ids in sources],
            target_prefix=[prefix] * len(sources) if prefix else None,
            beam_size=options.num_beams, length_penalty=options.length_penalty, max_batch_size=1,
            max_decoding_length=self.limit, return_scores=True, return_end_token=True,
        )  # fmt: skip
        return [Found([self.ids[piece] for piece in r.hypotheses[0]], r.scores[0]) for r in results]


def beside_ctranslate2(
    folder: TransformersFolder, sources: Sequence[list[int]], mine: Sequence[Found], peer: Sequence[Found]
) -> dict[str, Any]:
    """Its translations beside Dragoman's: it may end a search earlier, so PyTorch says whose score is higher."""
    facts = {"equal": 0, "ties": 0, "lower": 0, "higher": 0}
    differences = [0.0]
    for source, own, other in zip(sources, mine, peer, strict=True):
        value = folder.score(source, other.ids)
        differences.append(abs(other.score - value))
        gap = value - folder.score(source, own.ids)
        kind = "equal" if own.ids == other.ids else "ties" if abs(gap) <= TIE else "higher" if gap > 0 else "lower"
        facts[kind] += 1
    return {f"ctranslate2_{name}": n for name, n in (facts | {"score_difference": max(differences)}).items()}


def tokenization(folder: TransformersFolder, checkpoint: Checkpoint, lines: Sequence[str]) -> dict[str, int]:
    """How many lines get other ids, and how many ids are read as another text."""
    ids = texts = 0
    for line, mine in zip(lines, checkpoint.tokenizer.encode(lines), strict=True):
        wanted = folder.tokenizer(line, split_special_tokens=True).input_ids
        prefix = wanted[: len(wanted) - len(mine) - 1] if not folder.is_marian else []
        ids += wanted != [*prefix, *mine, folder.end] or len(prefix) > 1
        texts += folder.decode(mine).strip() != checkpoint.tokenizer.decode([mine])[0]
    return {"lines": len(lines), "other_ids": ids, "other_texts": texts}


def bleu(bundle: Path, pairs: Sequence[list[str]], beams: Sequence[int], codes: Codes) -> list[dict[str, Any]]:
    rows = []
    for precision in ("fp32", "int8"):
        translator = Translator.load(bundle, settings(precision))
        for num_beams in beams:
            results = translator.translate([pair[0] for pair in pairs], DecodeOptions(num_beams=num_beams), codes)
            scores = score([result.text for result in results], [pair[1] for pair in pairs])
            row = {"precision": precision, "num_beams": num_beams, "bleu": scores.bleu, "sentences": len(pairs)}
            rows.append(row | {"signature": scores.bleu_signature})
        translator.close()
    return rows


def options() -> argparse.ArgumentParser:
    arguments = parser(__doc__ or "", "marian")
    arguments.formatter_class = argparse.RawDescriptionHelpFormatter
    arguments.add_argument("folder", type=Path, metavar="HF_DIR", help="the checkpoint")
    arguments.add_argument("bundle", type=Path, help="what import-marian made of it")
    arguments.add_argument("--text", type=Path, required=True, help="a sentence a line; behind a tab a reference")
    arguments.add_argument("--source", default="", help="source language (default: the bundle's first)")
    arguments.add_argument("--target", default="", help="target language (default: the bundle's first)")
    arguments.add_argument("--beams", type=numbers, default=[1, 4, 6])
    arguments.add_argument("--sentences", type=int, default=500)
    arguments.add_argument("--batch", type=int, default=16, help="sentences of one length that generate gets at once")
    arguments.add_argument("--lines", type=int, default=5000, help="lines to tokenize, a third of them odd ones")
    arguments.add_argument("--threads", type=int, default=1, help="of PyTorch")
    arguments.add_argument("--bleu-beams", type=numbers, default=[1, 4])
    return arguments


def searches(
    given: argparse.Namespace, checkpoint: Checkpoint, folder: TransformersFolder, texts: Sequence[str], codes: Codes
) -> list[dict[str, Any]]:
    """One row for each beam width."""
    translator = Translator.load(given.bundle, settings("fp32"))
    languages = choose_languages(translator.manifest, *codes)
    texts = whole_sentences(translator, languages, texts, given.sentences)
    if not texts:
        sys.exit(f"{given.text} has no text that is one sentence: nothing can be compared")
    sources = [folder.encode(text) for text in texts]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="dragoman-ctranslate2-") as place:
        peer = CTranslate2Peer(checkpoint, Path(place) / "model")
        for num_beams in given.beams:
            chosen = DecodeOptions(num_beams=num_beams, length_penalty=checkpoint.proposed["length_penalty"])
            mine = ours(translator, texts, chosen, codes)
            row = compare(folder, sources, theirs(folder, sources, num_beams, given.batch), mine)
            row |= beside_ctranslate2(folder, sources, mine, peer.translate(sources, chosen, languages.target.first))
            rows.append({"num_beams": num_beams, **row})
            print(markdown(rows[-1:], COLUMNS), flush=True)
    translator.close()
    return rows


def main() -> int:
    given = options().parse_args()
    if given.quick:
        given.sentences, given.lines, given.beams, given.bleu_beams = 8, 100, [1, 4], []
    torch.set_num_threads(given.threads)
    pairs = read_text(given.text)
    checkpoint = read_checkpoint(given.folder, [], [])
    codes = (given.source or checkpoint.sources[0].code, given.target or checkpoint.targets[0].code)
    folder = TransformersFolder(given.folder, *codes)
    lines = [field for pair in pairs for field in pair[:2]][: given.lines * 2 // 3]
    cut = tokenization(folder, checkpoint, [*lines, *odd_lines(given.lines - len(lines), 5)])
    print(cut, flush=True)
    facts: dict[str, Any] = {"tokenization": cut}
    if given.bleu_beams and all(len(pair) > 1 for pair in pairs):
        facts["bleu"] = bleu(given.bundle, pairs, given.bleu_beams, codes)
        print(markdown(facts["bleu"], {"precision": "precision", "num_beams": "beams", "bleu": "BLEU"}), flush=True)
    rows = searches(given, checkpoint, folder, [pair[0] for pair in pairs], codes)
    facts["architecture"] = folder.model.config.architectures[0]
    facts["parameters"] = sum(parameter.numel() for parameter in folder.model.parameters())
    save(given.out, "marian", rows, languages=codes, **facts)
    return int(any(row["different"] for row in rows) or cut["other_ids"] + cut["other_texts"] > 0)


if __name__ == "__main__":
    sys.exit(main())
