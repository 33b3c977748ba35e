"""Tokens per second on a GPU beside Transformers and plain PyTorch: the same random weights, 25 tokens in, 25 out.

Knows: each system's fastest documented way on a GPU. Does not know: steps and floors (gpu_steps.py).

Rows are sentences times beams, as the engine counts them. All decode float16; systems take turns, the median counts.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import report
from benchmarks.host_memory import device_or_rehearsal
from benchmarks.random_model import texts
from benchmarks.static_decoder import StaticDecoder
from model.checkpoint import load_model
from service.decoding.options import DecodeOptions
from service.engine.settings import EngineSettings
from service.engine.translator import Translator

TOKENS = 25
Decode = Callable[[int, int], None]
"""Translates some sentences with some beams, and waits until it is done."""


def dragoman(bundle: Path, max_rows: int, vocab_size: int) -> Decode:
    translator = Translator.load(bundle, EngineSettings(device="cuda", max_rows=max_rows, stop_repetition=False))
    sentences = texts(max_rows, TOKENS - 1, vocab_size, seed=5)  # and an end token

    def decode(num_sentences: int, num_beams: int) -> None:
        options = DecodeOptions(num_beams=num_beams, max_length=TOKENS)
        found = translator.translate(sentences[:num_sentences], options)
        if sum(result.num_target_tokens for result in found) != num_sentences * TOKENS:
            raise RuntimeError("not every translation has the forced length")

    return decode


def transformers(folder: Path, kind: str, source: torch.Tensor, compiled: bool) -> Decode:
    """``generate``; ``compiled``: with its static cache, whose steps it gives to torch.compile by itself on a GPU."""
    from transformers import AutoModelForSeq2SeqLM

    model: Any = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float16).eval().to(kind)
    cache = {"cache_implementation": "static", "disable_compile": kind == "cpu"} if compiled else {}

    def decode(num_sentences: int, num_beams: int) -> None:
        ids = source[:num_sentences]
        length = {"min_new_tokens": TOKENS, "max_new_tokens": TOKENS}
        with torch.inference_mode():
            mask = torch.ones_like(ids)
            model.generate(input_ids=ids, attention_mask=mask, num_beams=num_beams, **length, **cache)
        synchronize(kind)

    return decode


def plain_pytorch(checkpoint: Path, kind: str, source: torch.Tensor) -> Decode:
    model, tokenizer, _ = load_model(checkpoint)
    half = model.half().to(kind).eval()

    def decode(num_sentences: int, num_beams: int) -> None:
        StaticDecoder(half, num_beams, TOKENS).decode(source[:num_sentences], tokenizer.start)
        synchronize(kind)

    return decode


def synchronize(kind: str) -> None:
    if kind == "cuda":
        torch.cuda.synchronize()


def seconds(decode: Decode, num_sentences: int, num_beams: int) -> float:
    started = time.perf_counter()
    decode(num_sentences, num_beams)
    return time.perf_counter() - started


def compare(systems: dict[str, Decode], num_rows: int, num_beams: int, rounds: int) -> list[dict[str, Any]]:
    """One row for each system; one that fails says why instead of its speed, and the others go on."""
    num_sentences = num_rows // num_beams
    times: dict[str, list[float]] = {name: [] for name in systems}
    errors: dict[str, str] = {}
    for turn in range(-1, rounds):  # the first one warms up
        for name, decode in systems.items():
            if name in errors:
                continue
            try:
                taken = seconds(decode, num_sentences, num_beams)
            except Exception as error:  # a peer's own trouble is a result, not a failure of this program
                errors[name] = f"{type(error).__name__}: {error}"[:500]
            else:
                times[name] += [taken] if turn >= 0 else []
    rows = []
    for name in systems:
        entry: dict[str, Any] = {"rows": num_rows, "beams": num_beams, "system": name}
        if name in errors:
            entry["error"] = errors[name]
        else:
            entry |= {"times_s": times[name], "tokens_per_s": num_sentences * TOKENS / statistics.median(times[name])}
        print(", ".join(f"{key} {report.shown(value)}" for key, value in entry.items() if key != "times_s"), flush=True)
        rows.append(entry)
    return rows


def main() -> int:
    options = report.parser("tokens per second beside Transformers and plain PyTorch, on a GPU", "gpu_peers")
    options.add_argument("checkpoint", type=Path, help="of benchmarks.random_model")
    options.add_argument("bundle", type=Path, help="of that checkpoint, with cuda-fp16 graphs")
    options.add_argument("transformers", type=Path, help="of that checkpoint, by dragoman export-transformers")
    options.add_argument("--rows", type=report.numbers, default=[1, 8, 64, 256, 1024])
    options.add_argument("--beams", type=report.numbers, default=[1, 4])
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--rehearse", action="store_true", help="in host memory: does this program work?")
    given = options.parse_args()
    if given.quick:
        given.rows, given.rounds = [1, 8], 1
    model, tokenizer, _ = load_model(given.checkpoint)
    vocab_size, most = model.config.vocab_size, max(given.rows)
    with device_or_rehearsal(given.rehearse) as kind:
        ids = [[*row, tokenizer.end] for row in tokenizer.encode(texts(most, TOKENS - 1, vocab_size, seed=5))]
        source = torch.tensor(ids, device=kind)
        systems = {
            "dragoman": dragoman(given.bundle, max(most, 16), vocab_size),
            "transformers": transformers(given.transformers, kind, source, compiled=False),
            "transformers compiled": transformers(given.transformers, kind, source, compiled=True),
            "pytorch static cache": plain_pytorch(given.checkpoint, kind, source),
        }
        pairs = [(rows, beams) for rows in given.rows for beams in given.beams if rows >= beams]
        found = [row for rows, beams in pairs for row in compare(systems, rows, beams, given.rounds)]
    report.save(given.out, "gpu_peers", found, model=given.checkpoint.name, device=kind)
    return int(any("error" in row for row in found if row["system"] == "dragoman"))  # a peer's error is a result


if __name__ == "__main__":
    sys.exit(main())
