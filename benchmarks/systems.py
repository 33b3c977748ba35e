"""The systems that are compared, behind one interface: texts in, texts out, everything between them timed alike.

Knows: each system's options, and those that make them do equal work. Does not know: clocks.

All have the same weights and vocabulary, the same beam width, length penalty 1 and the same limit of target tokens. All
take text and give text. Beam search ends a sentence with K finished hypotheses: CTranslate2 knows no other way
(``patience=1``), Transformers is told so (``early_stopping=True``), and so is Dragoman, which left to itself goes on
while a live hypothesis could still win.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from benchmarks.ctranslate2_model import Vocabulary, load
from service.decoding.options import DecodeOptions
from service.decoding.rules import DecodingRules
from service.engine.settings import EngineSettings
from service.engine.translator import Translator
from service.runtime.piece_tokenizer import PieceTokenizer
from service.runtime.tokenizer import Tokenizer

MAX_LENGTH = 160  # target tokens, where no length is forced


class Output(NamedTuple):
    """Translations, and the tokens of all of them together."""

    texts: list[str]
    num_tokens: int


class Artifacts(NamedTuple):
    """One checkpoint in each system's form, and its vocabulary."""

    bundle: Path
    ctranslate2: Path
    transformers: Path
    vocabulary: Path


class System(Protocol):
    """Something that translates with the settings it was loaded with."""

    def translate(self, texts: Sequence[str], num_beams: int, max_length: int) -> Output:
        """All texts at once."""

    def close(self) -> None: ...


class Dragoman:
    """The engine as a Python object. Settings: workers and threads; 0 of both is what a user gets."""

    def __init__(self, artifacts: Artifacts, precision: str, workers: int, threads: int) -> None:
        # The others translate on when they repeat themselves: so that all do the same work, so does ours.
        settings = EngineSettings(
            precision=precision, num_workers=workers, threads_per_worker=threads, stop_repetition=False
        )
        self.translator = Translator.load(artifacts.bundle, settings)
        for worker in self.translator.engine.workers:
            worker.decoder.rules = replace(worker.decoder.rules or DecodingRules(worker.end_token), stop_at_beams=True)

    def translate(self, texts: Sequence[str], num_beams: int, max_length: int) -> Output:
        results = self.translator.translate(texts, DecodeOptions(num_beams=num_beams, max_length=max_length))
        return Output([result.text for result in results], sum(result.num_target_tokens for result in results))

    def close(self) -> None:
        self.translator.close()


class CTranslate2:
    """Settings: parallel translations, threads of each, and how a list of texts is divided into batches."""

    def __init__(
        self, artifacts: Artifacts, compute_type: str, inter: int, intra: int, batch_size: int, batch_type: str
    ) -> None:
        self.tokenizer = read_tokenizer(artifacts.vocabulary)
        self.vocabulary = Vocabulary.of(self.tokenizer)
        self.ids = {piece: i for i, piece in enumerate(self.vocabulary.target)}
        self.translator = load(artifacts.ctranslate2, compute_type, inter, intra)
        self.batch_size, self.batch_type = batch_size, batch_type

    def translate(self, texts: Sequence[str], num_beams: int, max_length: int) -> Output:
        names, end = self.vocabulary.source, self.tokenizer.end
        results = self.translator.translate_batch(
            [[names[i] for i in (*row, end)] for row in self.tokenizer.encode(texts)],
            beam_size=num_beams,
            length_penalty=1,
            max_decoding_length=max_length,
            min_decoding_length=0,
            max_input_length=0,
            max_batch_size=self.batch_size,
            batch_type=self.batch_type,
            return_end_token=True,
        )
        found = [[self.ids[piece] for piece in result.hypotheses[0]] for result in results]
        return Output(self.tokenizer.decode([without(row, end) for row in found]), sum(map(len, found)))

    def close(self) -> None:
        self.translator.unload_model()


def without(ids: list[int], end: int) -> list[int]:
    return ids[:-1] if ids and ids[-1] == end else ids


def read_tokenizer(path: Path) -> Tokenizer:
    """Of a SentencePiece model, or of a folder with an imported model's tokenizer."""
    if path.is_dir():
        return PieceTokenizer.from_files({file.name: file.read_bytes() for file in path.iterdir()})
    return Tokenizer.from_file(path)


class Transformers:
    """``generate`` in float32 on ``threads`` threads."""

    def __init__(self, artifacts: Artifacts, threads: int) -> None:
        import torch
        from transformers import AutoModelForSeq2SeqLM

        self.torch, self.threads = torch, threads
        self.tokenizer = read_tokenizer(artifacts.vocabulary)
        self.model: Any = AutoModelForSeq2SeqLM.from_pretrained(artifacts.transformers).eval()
        self.model.generation_config.max_length = None  # each call says it

    def translate(self, texts: Sequence[str], num_beams: int, max_length: int) -> Output:
        torch, tokenizer = self.torch, self.tokenizer
        torch.set_num_threads(self.threads)  # one number for all of a process: another one may be loaded beside
        ids = [[*row, tokenizer.end] for row in tokenizer.encode(texts)]
        source = torch.full((len(ids), max(map(len, ids))), tokenizer.pad)
        for row, tokens in zip(source, ids, strict=True):
            row[: len(tokens)] = torch.tensor(tokens)
        with torch.inference_mode():
            found = self.model.generate(
                input_ids=source,
                attention_mask=(source != tokenizer.pad).long(),
                num_beams=num_beams,
                max_new_tokens=max_length,
                length_penalty=1.0,
                early_stopping=True,
            )
        rows = [[token for token in row if token != tokenizer.pad] for row in found[:, 1:].tolist()]
        return Output(tokenizer.decode(rows), sum(map(len, rows)))

    def close(self) -> None:
        del self.model


# What is timed against what, and the settings that are tried for each.
DIVISIONS = ((1, 2), (2, 1), (1, 1))
BATCHES = ((0, "examples"), (32, "examples"), (16, "examples"), (1024, "tokens"))


def variants(family: str, cores: int, batch: int) -> list[tuple[Any, ...]]:
    """Settings of a system that may be its fastest for batches of that size: what follows ``artifacts`` above."""
    kind, _, precision = family.partition(" ")
    if kind == "dragoman":
        return [(precision, 0, 0), (precision, 1, cores)]
    if kind == "transformers":
        return [(cores,), (1,)] if batch == 1 else [(cores,)]
    divisions = {(inter, max(1, cores // 2) if (inter, intra) == (1, 2) and cores > 2 else intra)
                 for inter, intra in DIVISIONS}  # fmt: skip
    divisions |= {(1, cores), (cores, 1)}
    tried = []
    for inter, intra in sorted(divisions):
        fitting = BATCHES if batch > 1 else BATCHES[:1]
        tried += [(precision, inter, intra, size, kind_of) for size, kind_of in fitting if size or inter == 1]
    return tried


CLASSES: dict[str, Any] = {"dragoman": Dragoman, "ctranslate2": CTranslate2, "transformers": Transformers}


def make(family: str, artifacts: Artifacts, settings: tuple[Any, ...]) -> System:
    """Loads a system such as ``ctranslate2 int8``."""
    system: System = CLASSES[family.partition(" ")[0]](artifacts, *settings)
    return system


def named(family: str, settings: tuple[Any, ...]) -> str:
    """Settings in words, for tables."""
    kind = family.partition(" ")[0]
    if kind == "dragoman":
        return "as installed" if settings[1:] == (0, 0) else f"{settings[1]} worker, {settings[2]} threads"
    if kind == "transformers":
        return f"{settings[0]} threads"
    division = f"inter {settings[1]}, intra {settings[2]}"
    return f"{division}, batches of {settings[3]} {settings[4]}" if settings[3] else division
