"""A training loop in a process of its own, told when to make a step: ours, ours with a part put back, or the plain one.

Knows: what a loop can be made of, and the made-up pairs. Does not know: who is compared with whom.

A process each, because the allocator's settings are a process's, and so that neither finds the other's memory.
"""

import dataclasses
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.plain_loop import PlainLoop
from model import objective, transformer
from model.config import ModelConfig, OptimizerConfig
from model.data import PAIRS_PER_CHUNK, Batch, SpecialTokens, cut_by_tokens, make_batch
from model.loss import Loss
from model.machine import keep_freed_memory
from model.objective import Objective, compile_layers
from model.optimizer import Optimizers
from model.transformer import Transformer

PAD, END, FIRST_WORD = 1, 2, 4
LONGEST = 60
WARM_UP_STEPS = 20
"""Steps over which the rate rises."""


@dataclass(frozen=True, slots=True)
class Setup:
    """One loop; the defaults are ours, on the shipped model's shape."""

    plain: bool = False
    precision: str = "bf16"
    attention: str = "products"
    loss: str = "blocks"
    residual: str = "bf16"
    keeps_memory: bool = True
    by_length: bool = True
    optimizer: str = "adam"
    compiled: bool = False
    vocab_size: int = 8000
    model_width: int = 256
    feed_forward_width: int = 1536
    num_encoder_layers: int = 6
    num_decoder_layers: int = 2
    max_tokens: int = 2500
    threads: int = 2
    peak_rate: float = 1e-3
    smoothing: float = 0.1
    seed: int = 1

    def changed(self, **changes: Any) -> "Setup":
        return dataclasses.replace(self, **changes)

    def described(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def model(self) -> ModelConfig:
        return ModelConfig(
            vocab_size=self.vocab_size,
            model_width=self.model_width,
            num_heads=8,
            feed_forward_width=self.feed_forward_width,
            num_encoder_layers=self.num_encoder_layers,
            num_decoder_layers=self.num_decoder_layers,
            dropout=0.0,
        )


class Timing(NamedTuple):
    """One step."""

    tokens_per_s: float
    tokens_per_cpu_s: float
    loss: float


class Loop(Protocol):
    def step(self, batch: Batch, rate: float) -> float:
        """Mean smoothed loss of the batch, and the weights moved."""


def made_up_batches(setup: Setup) -> Iterator[Batch]:
    """Endless batches. Lengths are log-normal, median 12, cut at 60; words are drawn by Zipf's law; a translation is
    the source's words, each by another, as far as the target is long."""
    rng = np.random.default_rng(setup.seed)
    num_words = setup.vocab_size - FIRST_WORD
    chances = 1.0 / (np.arange(num_words) + 2.7)
    chances /= chances.sum()
    others = rng.permutation(num_words)
    while True:
        spread = np.exp(rng.normal(2.5, 0.7, (PAIRS_PER_CHUNK, 1)))
        lengths = np.clip(spread * rng.normal(1, 0.1, (PAIRS_PER_CHUNK, 2)), 2, LONGEST).astype(int)
        groups = (
            cut_by_tokens(lengths, setup.max_tokens) if setup.by_length else cut_in_order(lengths, setup.max_tokens)
        )
        for number in rng.permutation(len(groups)):
            sizes = lengths[groups[number]]
            words = rng.choice(num_words, (len(sizes), LONGEST), p=chances)
            sources = [row[:size] + FIRST_WORD for row, size in zip(words, sizes[:, 0], strict=True)]
            targets = [others[row[:size]] + FIRST_WORD for row, size in zip(words, sizes[:, 1], strict=True)]
            yield make_batch(sources, targets, SpecialTokens(PAD, END, END))


def cut_in_order(lengths: Any, max_tokens: int) -> list[Any]:
    """Groups of neighbours whose padded size, on either side, is at most ``max_tokens``."""
    groups, start, longest = [], 0, 0
    for end, pair in enumerate(lengths):
        longest = max(longest, int(pair.max()) + 1)
        if end > start and longest * (end - start + 1) > max_tokens:
            groups.append(np.arange(start, end))
            start, longest = end, int(pair.max()) + 1
    return [*groups, np.arange(start, len(lengths))]


class OurLoop:
    """model/train.py's step, without what does not concern its speed."""

    def __init__(self, model: Transformer, setup: Setup) -> None:
        self.model = model
        self.objective = Objective(model, setup.precision, setup.smoothing, PAD)
        self.optimizers = Optimizers(model, OptimizerConfig(name="muon" if setup.optimizer == "muon" else "adam"))
        if setup.optimizer == "default adam":
            self.optimizers.parts = [torch.optim.Adam(model.parameters(), betas=(0.9, 0.98), eps=1e-9)]
        if setup.compiled:
            compile_layers(model)

    def step(self, batch: Batch, rate: float) -> float:
        self.optimizers.zero_grad()
        loss = self.objective.loss(batch)
        (loss.smoothed / loss.num_tokens).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizers.step(rate)
        return float(loss.smoothed.detach()) / loss.num_tokens


def fused_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def whole_cross_entropy(
    states: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, smoothing: float, pad_id: int
) -> Loss:
    """The loss of model/loss.py from all logits at once, padding included."""
    logits = functional.linear(states, weight.to(states.dtype), bias).float().flatten(0, 1)
    options = {"ignore_index": pad_id, "reduction": "sum"}
    total = functional.cross_entropy(logits, labels.flatten(), label_smoothing=smoothing, **options)  # type: ignore[arg-type]
    return Loss(total, total.detach(), int((labels != pad_id).sum()))


def put_back(setup: Setup) -> None:
    """Replaces, in this process, the parts that ``setup`` wants plain."""
    if setup.attention == "fused":
        transformer.scaled_dot_product_attention = fused_attention
    if setup.loss == "whole":
        vars(objective)["smoothed_cross_entropy"] = whole_cross_entropy
    if setup.residual == "fp32":
        embed = Transformer.embed

        def embed_in_float32(self: Transformer, embedding: nn.Embedding, tokens: Tensor) -> Tensor:
            with torch.autocast("cpu", enabled=False):
                return embed(self, embedding, tokens)

        Transformer.embed = embed_in_float32  # type: ignore[method-assign]


def make_loop(setup: Setup) -> Loop:
    """The same weights for the same seed, whatever the loop."""
    torch.manual_seed(setup.seed)
    model = Transformer(setup.model())
    return PlainLoop(model, PAD, setup.smoothing, setup.precision) if setup.plain else OurLoop(model, setup)


def steps(setup: Setup) -> Iterator[Timing]:
    """A step each time; making the batch is not timed."""
    loop = make_loop(setup)
    for number, batch in enumerate(made_up_batches(setup), start=1):
        rate = setup.peak_rate * min(1.0, number / WARM_UP_STEPS)
        started, cpu_then = time.perf_counter(), time.process_time()
        loss = loop.step(batch, rate)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu_then
        tokens = batch.num_target_tokens
        yield Timing(tokens / seconds, tokens / max(cpu, 1e-9), loss)


def serve(connection: Connection, setup: Setup) -> None:
    """A contender's process: a step for each message, until there are no more."""
    torch.set_num_threads(setup.threads)
    if setup.keeps_memory:
        keep_freed_memory()
    put_back(setup)
    timings = steps(setup)
    try:
        while True:
            connection.recv()
            connection.send(next(timings))
    except (EOFError, KeyboardInterrupt):
        return


class Contender:
    """A loop that makes its steps when it is told to."""

    def __init__(self, setup: Setup) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, far = context.Pipe()
        self.process = context.Process(target=serve, args=(far, setup), daemon=True)
        self.process.start()
        far.close()

    def step(self) -> Timing:
        """Raises EOFError where the process has ended; it has said why."""
        self.connection.send("step")
        timing: Timing = self.connection.recv()
        return timing

    def close(self) -> None:
        self.connection.close()
        self.process.join(10)
        self.process.kill()
        self.process.join()
