"""Tokens per second of training, beside a plain bf16 loop over torch.nn.Transformer of the same size and batches.

    python -m benchmarks.training --steps 20

Knows: the two loops, and which parts of ours can be put back to plain ones, one at a time. Does not know: corpora; its
pairs are made up, of lengths like those of everyday sentences and of parliament, mixed.

Both loops see the same batches in the same order and take turns, a step each; the ratio is the median over the steps.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from model import transformer
from model.config import ModelConfig, OptimizerConfig
from model.data import Batch, SpecialTokens, cut_by_tokens, make_batch
from model.objective import Objective
from model.optimizer import Optimizers
from model.train import keep_freed_memory
from model.transformer import Transformer, sinusoidal_positions

PAD, END = 1, 2
WARM_UP = 2
Step = Callable[[Batch], float]


def made_up_batches(vocab_size: int, max_tokens: int, bucketed: bool, seed: int = 1) -> Iterator[Batch]:
    """Endless batches of random tokens; lengths are log-normal, median 12, cut at 60.

    Args:
        bucketed: sentences of similar length together; else as they come, as many as fit in padded tokens.
    """
    rng = np.random.default_rng(seed)
    while True:
        lengths = np.clip(np.exp(rng.normal(2.5, 0.7, (2000, 1))) * rng.normal(1, 0.1, (2000, 2)), 2, 60).astype(int)
        groups = (
            cut_by_tokens(lengths, max_tokens)
            if bucketed
            else np.array_split(rng.permutation(2000), math.ceil(2000 * 61 / max_tokens))
        )
        for number in rng.permutation(len(groups)):
            chosen = lengths[groups[number]]
            sides = [[rng.integers(4, vocab_size, size) for size in chosen[:, side]] for side in (0, 1)]
            yield make_batch(sides[0], sides[1], SpecialTokens(PAD, END, END))


class PlainModel(nn.Module):
    """torch.nn.Transformer with tied embeddings and sinusoids: what a tutorial has."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.model_width
        self.embedding = nn.Embedding(config.vocab_size, width)
        self.register_buffer("positions", sinusoidal_positions(config.max_positions, width))
        self.network = nn.Transformer(
            width,
            config.num_heads,
            config.num_encoder_layers,
            config.num_decoder_layers,
            config.feed_forward_width,
            config.dropout,
            batch_first=True,
            norm_first=config.norm == "pre",
        )

    def embed(self, ids: Tensor) -> Tensor:
        positions = self.get_buffer("positions")
        return self.embedding(ids) * self.embedding.embedding_dim**0.5 + positions[: ids.shape[1]]

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        causal = nn.Transformer.generate_square_subsequent_mask(target.shape[1]).isinf()
        padding = source == PAD
        states = self.network(
            self.embed(source),
            self.embed(target),
            tgt_mask=causal,
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
            tgt_is_causal=True,
        )
        return functional.linear(states, self.embedding.weight)


def plain_step(config: ModelConfig, rate: float) -> Step:
    """One step of the plain loop; returns its mean loss."""
    model = PlainModel(config)
    for name, parameter in model.named_parameters():
        if "embedding" in name:
            nn.init.normal_(parameter, std=config.model_width**-0.5)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, betas=(0.9, 0.98), eps=1e-9)

    def step(batch: Batch) -> float:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(batch.source, batch.target_in)
        loss = functional.cross_entropy(
            logits.float().flatten(0, 1), batch.target_out.flatten(), ignore_index=PAD, label_smoothing=0.1
        )
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return float(loss.detach())

    return step


def our_step(config: ModelConfig, rate: float, precision: str = "bf16", optimizer: str = "adam") -> Step:
    """One step of ours; returns its mean loss."""
    model = Transformer(config)
    objective = Objective(model, precision, 0.1, PAD)
    optimizers = Optimizers(model, OptimizerConfig(name=optimizer, peak_learning_rate=rate))

    def step(batch: Batch) -> float:
        optimizers.zero_grad()
        loss = objective.loss(batch)
        (loss.smoothed / loss.num_tokens).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizers.step(rate)
        return float(loss.smoothed.detach()) / loss.num_tokens

    return step


def fused_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def timed(step: Step, batch: Batch) -> tuple[float, float]:
    """Target tokens per second, and the loss."""
    started = time.perf_counter()
    loss = step(batch)
    return batch.num_target_tokens / (time.perf_counter() - started), loss


def compare(first: Step, second: Step, batches: Iterator[Batch], steps: int) -> dict[str, float]:
    """Both in turn on the same batches, who begins changing; speeds are medians, the ratio the median of ratios."""
    speeds: list[tuple[float, float]] = []
    gaps = []
    for number in range(WARM_UP + steps):
        batch = next(batches)
        if number % 2:
            b, a = timed(second, batch), timed(first, batch)
        else:
            a, b = timed(first, batch), timed(second, batch)
        if number >= WARM_UP:
            speeds.append((a[0], b[0]))
            gaps.append(abs(a[1] - b[1]) / b[1])
    return {
        "tokens_per_s": statistics.median(a for a, _ in speeds),
        "other_tokens_per_s": statistics.median(b for _, b in speeds),
        "ratio": statistics.median(a / b for a, b in speeds),
        "largest_loss_difference": max(gaps),
    }


def parts(config: ModelConfig, rate: float, max_tokens: int, steps: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Ours beside the plain loop, then ours beside ours with one part plain."""
    torch.manual_seed(1)
    batches = made_up_batches(config.vocab_size, max_tokens, bucketed=True)
    yield "plain loop", compare(our_step(config, rate), plain_step(config, rate), batches, steps)
    yield "float32", compare(our_step(config, rate), our_step(config, rate, "fp32"), batches, steps)
    yield "Muon", compare(our_step(config, rate), our_step(config, rate, optimizer="muon"), batches, steps)
    ours, other = our_step(config, rate), our_step(config, rate)

    def with_fused_attention(batch: Batch) -> float:
        kept = transformer.scaled_dot_product_attention
        transformer.scaled_dot_product_attention = fused_attention
        try:
            return other(batch)
        finally:
            transformer.scaled_dot_product_attention = kept

    yield "fused attention", compare(ours, with_fused_attention, batches, steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each comparison (default: 20)")
    parser.add_argument("--batch-tokens", type=int, default=2500, help="padded tokens of a batch (default: 2500)")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch (default: 2)")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    shipped = ModelConfig(8000, 256, 8, 1536, 6, 2, dropout=0.0)
    found = {}
    for name, numbers in parts(replace(shipped), 1e-3, options.batch_tokens, options.steps):
        found[name] = numbers
        print(
            f"beside {name:16} {numbers['tokens_per_s']:8,.0f} tokens/s, other {numbers['other_tokens_per_s']:8,.0f}, "
            f"ratio {numbers['ratio']:.2f}, losses differ by at most {numbers['largest_loss_difference']:.1%}",
            flush=True,
        )
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
