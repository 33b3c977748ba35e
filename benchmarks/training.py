"""Tokens per second of training, beside a plain bf16 loop over torch.nn.Transformer of the same size and batches.

    python -m benchmarks.training

Two loops, each in a process of its own, take the same batches in turn, a step each, who begins changing. Both begin
with the same weights, so their losses must be the same curve. The ratio is the median over the steps. After the plain
loop ours is compared with itself, one part put back to what a plain loop has: what each part brings.

Knows: how two loops are compared. Does not know: corpora; its pairs are made up, with lengths like those of everyday
sentences and of parliament mixed, frequencies like those of words, and a translation that can be learned.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks import report
from benchmarks.training_loops import Contender, Setup, Timing

LOSS_TOLERANCE = 0.02
"""Of the mean loss over ten steps, relative: bf16 rounds to 3 digits, and the two loops round in different places."""
PLAIN: dict[str, Any] = {"plain": True, "keeps_memory": False}
PARTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("all of it, batches by length too (beside the plain loop with pairs as they come)", PLAIN | {"by_length": False}),
    ("bf16 (beside float32)", {"precision": "fp32"}),
    ("attention by plain products (beside PyTorch's fused kernel)", {"attention": "fused"}),
    ("loss by blocks (beside all logits at once)", {"loss": "whole"}),
    ("residual sums in bf16 (beside float32)", {"residual": "fp32"}),
    ("freed memory kept (beside given back)", {"keeps_memory": False}),
    ("batches by length (beside pairs as they come)", {"by_length": False}),
    ("fused Adam (beside PyTorch's default)", {"optimizer": "default adam"}),
    ("Muon (beside fused Adam; what it gains is fewer steps)", {"optimizer": "muon"}),
    ("torch.compile of the layers (off by default)", {"compiled": True}),
)


def compare(ours: Setup, other: Setup, steps: int, warm_up: int) -> tuple[list[Timing], list[Timing]]:
    """The same ``warm_up`` + ``steps`` steps of both, in turns; those of the warm-up are in the lists, too."""
    first, second = Contender(ours), Contender(other)
    timings: tuple[list[Timing], list[Timing]] = [], []
    try:
        for number in range(warm_up + steps):
            for turn in (0, 1) if number % 2 else (1, 0):
                timings[turn].append((first, second)[turn].step())
    finally:
        first.close()
        second.close()
    return timings


def judged(ours: Sequence[Timing], other: Sequence[Timing], warm_up: int) -> dict[str, Any]:
    """Speeds and their ratio; by the clock, and by the CPU time of all threads for machines that do other work too."""
    pairs = list(zip(ours, other, strict=True))[warm_up:]
    ratio, low, high = report.spread([a.tokens_per_s / b.tokens_per_s for a, b in pairs])
    by_cpu = statistics.median(a.tokens_per_cpu_s / b.tokens_per_cpu_s for a, b in pairs)
    return {
        "tokens_per_s": statistics.median(a.tokens_per_s for a, _ in pairs),
        "other_tokens_per_s": statistics.median(b.tokens_per_s for _, b in pairs),
        "ratio": ratio,
        "ratio_quartiles": [low, high],
        "ratio_by_cpu_time": by_cpu,
    }


def smoothed(losses: Sequence[float], width: int = 10) -> list[float]:
    """Means of ``width`` losses in a row."""
    return [statistics.fmean(losses[start : start + width]) for start in range(0, len(losses) - width + 1, width)]


def beside_plain_loop(ours: Setup, steps: int, warm_up: int) -> dict[str, Any]:
    """The row of the plain loop, with both loss curves."""
    mine, theirs = compare(ours, ours.changed(**PLAIN), steps, warm_up)
    curves = [[timing.loss for timing in timings] for timings in (mine, theirs)]
    means = [smoothed(curve) for curve in curves]
    gaps = [abs(a - b) / b for a, b in zip(*means, strict=True)]
    gap = max(gaps) if all(map(math.isfinite, gaps)) else math.inf  # of max() a nan may go unseen
    for number, (a, b) in enumerate(zip(*means, strict=True)):
        print(f"steps {10 * number + 1:3} to {10 * number + 10:3}: loss {a:.4f}, plain loop {b:.4f}", flush=True)
    row = judged(mine, theirs, warm_up) | {"what": "all of it (beside the plain loop on the same batches)"}
    return row | {"largest_loss_difference": gap, "loss": curves[0], "other_loss": curves[1]}


def show(row: dict[str, Any]) -> None:
    low, high = row["ratio_quartiles"]
    print(
        f"{row['what']}: {row['ratio']:.2f} ({low:.2f} to {high:.2f}; {row['ratio_by_cpu_time']:.2f} by CPU time), "
        f"{row['tokens_per_s']:,.0f} beside {row['other_tokens_per_s']:,.0f} target tokens/s",
        flush=True,
    )


def measure(ours: Setup, options: argparse.Namespace) -> list[dict[str, Any]]:
    rows = [beside_plain_loop(ours, options.steps, options.warm_up)]
    show(rows[0])
    for what, changes in PARTS:
        if not all(word in what for word in options.only):
            continue
        # The compiler works during the first steps of each new form of batch.
        warm_up = options.warm_up * (2 if "compiled" in changes else 1)
        mine, theirs = compare(ours, ours.changed(**changes), options.part_steps, warm_up)
        row = judged(mine, theirs, warm_up) | {"what": what}
        if "compiled" in changes or changes.get("optimizer") == "muon":  # ours is the one without it
            row = turned(row)
        rows.append(row)
        show(row)
    return rows


def turned(row: dict[str, Any]) -> dict[str, Any]:
    """The same comparison seen from the other side."""
    low, high = row["ratio_quartiles"]
    speeds = {"tokens_per_s": row["other_tokens_per_s"], "other_tokens_per_s": row["tokens_per_s"]}
    ratios = {"ratio": 1 / row["ratio"], "ratio_quartiles": [1 / high, 1 / low]}
    return row | speeds | ratios | {"ratio_by_cpu_time": 1 / row["ratio_by_cpu_time"]}


def main() -> int:
    parser = report.parser(__doc__ or "", "training")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--steps", type=int, default=50, help="timed steps beside the plain loop (default: 50)")
    parser.add_argument("--part-steps", type=int, default=8, help="timed steps for each part (default: 8)")
    parser.add_argument("--warm-up", type=int, default=2, help="steps before, not timed (default: 2)")
    parser.add_argument("--batch-tokens", type=int, default=2500, help="padded tokens of a batch (default: 2500)")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch (default: 2)")
    parser.add_argument("--only", action="append", default=[], help="only the parts whose line has this word")
    options = parser.parse_args()
    if not any(all(word in what for word in options.only) for what, _ in PARTS):
        parser.error(f"--only {' --only '.join(options.only)}: no part has that in its line")
    if options.steps + options.warm_up < 10 and not options.quick:
        parser.error(f"--steps {options.steps}: losses are compared ten steps at a time")
    ours = Setup(max_tokens=options.batch_tokens, threads=options.threads)
    if options.quick:
        ours = ours.changed(model_width=32, feed_forward_width=64, vocab_size=500, max_tokens=300)
        options.steps, options.part_steps = 10, 2
    rows = measure(ours, options)
    gap = rows[0]["largest_loss_difference"]
    print(f"losses, ten steps at a time, differ by at most {gap:.2%}")
    report.save(options.out, "training", rows, setup=ours.described(), loss_tolerance=LOSS_TOLERANCE)
    return int(gap > LOSS_TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
