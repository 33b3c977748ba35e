"""Everything that is to be seen on a GPU, by one command, in one JSON: ``make gpu-check``.

Knows: which parts there are and what each must reach. Does not know: how anything is measured; each part is a program
of its own, in a process of its own, so that one which fails costs its own results only.
"""

import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import random_model, report
from export.derive import derive_cuda
from export.transformers_layout import write_transformers
from export.write_bundle import ExportOptions, write_bundle
from model.checkpoint import load_model
from model.config import ModelConfig
from service.runtime import gpu

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "service" / "models" / "en-fr"
GOLDEN = ROOT / "model" / "recipes" / "en-fr-golden.txt"
# The shipped model's shape, for timing with forced lengths; and what a rehearsal takes in the place of both.
TINY = ModelConfig(
    vocab_size=8000, model_width=256, num_heads=8, feed_forward_width=1024, num_decoder_layers=2, dropout=0.0
)
SMALLEST = ModelConfig(
    vocab_size=400, model_width=32, num_heads=2, feed_forward_width=64, num_encoder_layers=1, num_decoder_layers=1,
    dropout=0.0, max_positions=64,
)  # fmt: skip
MODELS, REHEARSED = {"base": random_model.BASE, "tiny": TINY}, {"tiny": SMALLEST}
LIMIT_S = 3 * 3600


def models(rehearse: bool) -> dict[str, ModelConfig]:
    return REHEARSED if rehearse else MODELS


def prepare(part: str, work: Path, rehearse: bool) -> None:
    """What ``part`` needs in folders below ``work``, where it is not there yet: the shipped model's graphs for CUDA, or
    random models in all forms."""
    if part == "answers" and not (work / "en-fr").exists():
        derive_cuda(SHIPPED, work / "en-fr")
    for name, config in models(rehearse).items():
        folder = work / name
        if part not in ("steps", f"peers {name}") or (folder / "transformers").exists():
            continue
        random_model.write_random_checkpoint(folder / "checkpoint", config)
        model, tokenizer, description = load_model(folder / "checkpoint")
        room = min(512, config.max_positions)
        options = ExportOptions(
            name=name, version="1", precisions=("cuda-fp16",), max_source_tokens=room, max_target_tokens=room
        )
        write_bundle(model, tokenizer, description, folder / "bundle", options)
        write_transformers(model, tokenizer, ("en", "fr"), folder / "transformers")


def parts(given: Any, work: Path) -> Iterator[tuple[str, list[str]]]:
    """Name and command of each part, the quickest and most telling first."""
    names = list(models(given.rehearse))
    flags = ["--rehearse"] if given.rehearse else []
    rows = ["--rows", ",".join(map(str, given.rows))]
    yield "tests", ["pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", "tests/gpu"]
    text = ["--text", str(given.text or GOLDEN)] if given.text or not given.data else ["--data", str(given.data)]
    count = ["--sentences", str(given.sentences), "--max-rows", str(max(16, min(256, max(given.rows))))]
    yield "answers", ["benchmarks.gpu_answers", str(work / "en-fr"), *text, *count, *flags]
    bundles = [str(work / name / "bundle") for name in names]
    yield "steps", ["benchmarks.gpu_steps", *bundles, *rows, *flags]
    for name in names:
        forms = [str(work / name / form) for form in ("checkpoint", "bundle", "transformers")]
        yield f"peers {name}", ["benchmarks.gpu_peers", *forms, *rows, *flags]


def run(name: str, command: list[str], work: Path, rehearse: bool) -> dict[str, Any]:
    """What a part left behind: its exit code, its last lines, and its JSON if it came so far."""
    result, log = work / f"{name}.json", work / f"{name}.log"
    out = [] if name == "tests" else ["--out", str(result)]
    result.unlink(missing_ok=True)  # a part that fails has no results, least of all those of another day
    environment = os.environ | ({"DRAGOMAN_GPU_TRIAL": "1"} if rehearse else {})
    print(f"{name}: {' '.join(command)}", flush=True)
    started = time.monotonic()
    with log.open("w") as lines:
        try:
            prepare(name, work, rehearse)
            code = subprocess.run(
                [sys.executable, "-m", *command, *out],
                cwd=ROOT, env=environment, stdout=lines, stderr=subprocess.STDOUT, timeout=LIMIT_S, check=False,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            code = 124  # as timeout(1) says it
        except Exception:  # the other parts need not suffer for it
            code = 1
            traceback.print_exc(file=lines)
    said = log.read_text(encoding="utf-8", errors="replace").splitlines()[-30:]
    print("\n".join(said), flush=True)
    found = report.load(result) if result.exists() else {}
    return {"exit_code": code, "seconds": time.monotonic() - started, "said": said, **found}


def aims(results: dict[str, dict[str, Any]]) -> Iterator[tuple[str, float | None, float]]:
    """What is to be reached: in words, the number found (None: not found), and the least it must be."""
    code = results.get("tests", {}).get("exit_code")
    yield "tests pass", None if code is None else float(code == 0), 1
    for row in results.get("answers", {}).get("rows", [{"beams": 1}, {"beams": 4}]):
        with_beams = f"with {row['beams']} beams"
        yield f"share of ids equal to PyTorch's {with_beams}", row.get("equal_to_pytorch"), 0.995
        yield f"share of recorded steps' answers equal to eager ones {with_beams}", row.get("scores_equal_to_eager"), 1
        if "bleu" in row:
            yield f"0.1 - BLEU's distance {with_beams}", 0.1 - abs(row["bleu"] - row["bleu_of_pytorch"]), 0
    rows = [row for row in results.get("steps", {}).get("rows", []) if "rows" in row]
    steps = {(row["model"], row["rows"], row["beams"]): row for row in rows}
    at_256, at_1024 = steps.get(("base 1", 256, 1)), steps.get(("base 1", 1024, 1))
    yield "floor / step at 256 rows (1 / 2.5)", at_256 and at_256["floor_ms"] / at_256["recorded_ms"], 1 / 2.5
    yield "tokens/s of the base model's steps at 1024 rows", at_1024 and at_1024["tokens_per_s"], 100_000
    rows = results.get("peers base", {}).get("rows", [])
    speeds = {(row["rows"], row["beams"], row["system"]): row.get("tokens_per_s") for row in rows}
    for num_rows, beams in sorted({key[:2] for key in speeds}):
        ours = speeds[num_rows, beams, "dragoman"]
        kinds = ("transformers", "transformers compiled")
        theirs = max((speeds[num_rows, beams, kind] or 0 for kind in kinds), default=0)
        ratio = ours / theirs if ours and theirs else None
        yield f"times Transformers, base, {num_rows} rows, {beams} beams", ratio, 5
    yield "tokens/s of the base model, whole, at 1024 rows", speeds.get((1024, 1, "dragoman")), 100_000


def verdicts(results: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    judged = []
    for aim, found, least in aims(results):
        reached = found is not None and found >= least
        judged.append({"aim": aim, "found": found, "least": least, "reached": reached})
    return judged


def main() -> int:
    options = report.parser("tests, answers and speed on a GPU, in one JSON", "gpu")
    options.add_argument("--work", type=Path, default=Path("build/gpu"), help="where models are made, and logs kept")
    options.add_argument("--data", type=Path, help="folder of the test sets (DRAGOMAN_DATA): 500 sentences and BLEU")
    options.add_argument("--text", type=Path, help="sentences in the place of the test set's, one a line")
    options.add_argument("--sentences", type=int, default=500)
    options.add_argument("--rows", type=report.numbers, default=[1, 8, 64, 256, 1024])
    options.add_argument("--only", action="append", help="a part to run; may be repeated (default: all)")
    options.add_argument("--rehearse", action="store_true", help="all of it in host memory, small: does it work?")
    given = options.parse_args()
    if given.quick:
        given.rows, given.sentences = [1, 8], 8
    names = [name for name, _ in parts(given, given.work)]
    if unknown := set(given.only or ()) - set(names):
        options.error(f"--only {unknown.pop()}: the parts are {', '.join(names)}")
    if not given.rehearse and (absent := gpu.missing()):
        print(f"this needs a GPU; missing: {'; '.join(absent)}", file=sys.stderr)
        return 78
    work = given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, Any]] = {}
    for name, command in parts(given, work):
        if not given.only or name in given.only:
            results[name] = run(name, command, work, given.rehearse)
            device = "host memory" if given.rehearse else "GPU"
            # After each part: what was found is kept whatever becomes of the next.
            report.save(given.out, "gpu", [], device=device, parts=results, verdicts=verdicts(results))
    print(json.dumps(verdicts(results), indent=1))
    return int(any(result.get("exit_code") for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
