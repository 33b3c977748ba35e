"""What a training run would do: its size, its batches, its memory, its time.

Knows: the configuration, the lengths of its text, and how long a step takes here, by doing some. Does not know: how
training works.
"""

import math
import resource
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from model.checkpoint import read_description
from model.config import TrainingConfig
from model.corpus_sample import CorpusLengths, learn_from, measure_lengths, own_vocabulary, prepared_lengths, read_text
from model.data import Batch, BatchStream, SpecialTokens, make_batch
from model.machine import choose_device, keep_few_kernels, keep_freed_memory
from model.objective import Objective
from model.optimizer import Optimizers
from model.run_folder import RunFolder
from model.token_store import TokenStore
from model.train import restore
from model.transformer import Transformer

WARM_UP_STEPS, MEASURED_STEPS, MAX_MEASURE_S = 2, 8, 20.0
NO_TOKENS = SpecialTokens(pad=0, start=0, end=0)

Lengths = NDArray[np.int32]


def plan(config: TrainingConfig) -> Iterator[str]:
    """What the run would do, a line a fact.

    Raises:
        CorpusError: a corpus cannot be read, or none of its pairs is fit. CheckpointError, TrainingConfigError: the run
            would be refused, or the text is too little for the vocabulary.
    """
    folder = RunFolder(Path(config.run.folder))
    folder.check()
    model, run, optimizer = config.model, config.run, config.optimizer
    network = Transformer(model)
    if (newest := folder.check_resume(config)) is not None:
        restore(newest, network, Optimizers(network, optimizer))
    num_parameters = sum(p.numel() for p in network.parameters())
    yield f"languages   {run.source_language} to {run.target_language}"
    yield f"parameters  {num_parameters:,}"
    yield (
        f"model       {model.num_encoder_layers} + {model.num_decoder_layers} layers, width {model.model_width}, "
        f"{model.num_heads} heads, feed-forward {model.feed_forward_width}, {model.vocab_size:,} pieces"
    )
    yield f"optimizer   {optimizer.name}, {optimizer.schedule}, peak rate {optimizer.peak_learning_rate:g}"
    yield f"steps       {run.max_steps:,} of at most {run.batch_tokens * run.accumulate:,} tokens a side"
    yield f"folder      {run.folder}"
    if newest is not None:
        yield f"resumes     from {newest} at step {read_description(newest).step:,}"
    texts = [read_text(corpus, run.seed) for corpus in config.train]
    for corpus, text in zip(config.train, texts, strict=True):
        yield f"train       {corpus.name}: {text.num_pairs:,} pairs before cleaning, weight {corpus.weight:g}"
    held_out = [read_text(corpus, run.seed) for corpus in config.validation]
    for corpus, text in zip(config.validation, held_out, strict=True):
        yield f"validation  {corpus.name}: {text.num_pairs:,} pairs before cleaning"
    tokenizer = own_vocabulary(config)
    if tokenizer is None:
        tokenizer = learn_from(texts, config.vocabulary)
        yield f"vocabulary  none yet: lengths are counted with {tokenizer.vocab_size:,} pieces learned from samples"
    for corpus, text in zip(config.validation, held_out, strict=True):
        measure_lengths(corpus, text, tokenizer)
    stores = [
        prepared_lengths(corpus, tokenizer, Path(run.folder) / "data" / f"train-{corpus.name}")
        or measure_lengths(corpus, text, tokenizer)
        for corpus, text in zip(config.train, texts, strict=True)
    ]
    yield from batches_of(config, stores, network)


def batches_of(config: TrainingConfig, stores: Sequence[CorpusLengths], network: Transformer) -> Iterator[str]:
    """How the text falls into batches, and what they cost."""
    run = config.run
    weights = [corpus.weight for corpus in config.train]
    # The stream asks a store for its size and its pairs' lengths, which is what these have.
    stream = BatchStream(cast(Sequence[TokenStore], stores), weights, NO_TOKENS, run.batch_tokens, run.seed)
    batches = stream.batches_of_chunk(0)
    yield from epochs(config, stores, stream, len(batches))
    shapes = [np.array([stores[corpus].lengths[pair] for corpus, pair in batch]) for batch in batches]
    yield from measure(config, network, shapes)


def epochs(
    config: TrainingConfig, stores: Sequence[CorpusLengths], stream: BatchStream, num_batches: int
) -> Iterator[str]:
    """Fit pairs, their lengths, and how many steps read each corpus once."""
    steps_per_chunk = num_batches / config.run.accumulate
    for corpus, store, share in zip(config.train, stores, stream.pairs_per_chunk, strict=True):
        source, target = np.asarray(store.lengths).mean(axis=0) + 1
        error = relative_error(np.asarray(store.lengths).sum(axis=1) + 2.0)
        how = "counted" if store.is_whole else f"+- {2 * error:.1%}, from {len(store):,} of them"
        sizes = f"{source:.1f} and {target:.1f} tokens each ({how})"
        yield f"            {corpus.name}: {store.num_fit:,} pairs fit, {sizes}"
        yield f"            {corpus.name}: an epoch is {store.num_fit / int(share) * steps_per_chunk:,.0f} steps"


def relative_error(values: NDArray[np.floating]) -> float:
    """Standard error of the mean, beside the mean."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values)) / np.mean(values)) if len(values) > 1 else math.inf


def padded_tokens(shape: Lengths) -> int:
    """Of both sides of a batch."""
    return int((shape.max(axis=0) + 1).sum()) * len(shape)


def random_batch(shape: Lengths, vocab_size: int, rng: np.random.Generator) -> Batch:
    """Random tokens in pairs of these lengths."""
    sides = [[rng.integers(1, vocab_size, size) for size in shape[:, side]] for side in (0, 1)]
    return make_batch(sides[0], sides[1], NO_TOKENS)


def measure(config: TrainingConfig, network: Transformer, shapes: Sequence[Lengths]) -> Iterator[str]:
    """Does some steps on random tokens in batches as the run would have them: fill, memory, time.

    Args:
        shapes: of each batch the lengths of its pairs, (n, 2).
    """
    tokens = [int((shape + 1).sum()) for shape in shapes]
    targets = statistics.fmean(int((shape[:, 1] + 1).sum()) for shape in shapes)
    fill = sum(tokens) / sum(map(padded_tokens, shapes))
    yield (
        f"batches     {statistics.fmean(map(len, shapes)):,.0f} pairs and {targets:,.0f} target tokens on average; "
        f"{fill:.0%} of their tokens are text, the rest is padding"
    )
    # Attention grows with the square of the length: the widest batch is the largest in memory.
    widest = max(shapes, key=lambda shape: len(shape) * int(shape.max()) ** 2)
    steps = timed_steps(config, network, [widest, *shapes])
    seconds = sum(s for s, _ in steps) / sum(t for _, t in steps) * targets * config.run.accumulate
    error = relative_error(np.array([s / t for s, t in steps]))
    cuda = torch.cuda.is_available() and config.run.device != "cpu"
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    yield (
        f"memory      {peak / 1e9:.1f} GB of {'the GPU' if cuda else 'this process'} after the widest batch and "
        f"{len(steps) + WARM_UP_STEPS - 1} more; on a CPU a long run may take several times as much"
    )
    yield (
        f"time        {seconds:.2f} s a step here and now ({targets * config.run.accumulate / seconds:,.0f} target "
        f"tokens/s, +- {2 * error:.0%} over {len(steps)} batches): {seconds * config.run.max_steps / 3600:.1f} hours "
        "for all, validation not counted"
    )


def timed_steps(config: TrainingConfig, network: Transformer, shapes: Sequence[Lengths]) -> list[tuple[float, int]]:
    """Seconds and target tokens of some steps, each of one batch; the first are not timed."""
    device = choose_device(config.run.device)
    if device.type == "cpu":
        keep_freed_memory()
        keep_few_kernels()
    objective = Objective(network.to(device), config.run.precision, config.optimizer.label_smoothing, pad=-1)
    optimizers = Optimizers(network, config.optimizer)
    found, began, rng = [], time.monotonic(), np.random.default_rng(1)
    for number in range(WARM_UP_STEPS + MEASURED_STEPS):
        batch = random_batch(shapes[number % len(shapes)], config.model.vocab_size, rng).to(device)
        started = time.monotonic()
        optimizers.zero_grad()
        loss = objective.loss(batch)
        (loss.smoothed / loss.num_tokens).backward()  # type: ignore[no-untyped-call]
        optimizers.step(config.optimizer.peak_learning_rate)
        if device.type == "cuda":
            torch.cuda.synchronize()
        if number >= WARM_UP_STEPS:
            found.append((time.monotonic() - started, batch.num_target_tokens))
        if len(found) >= 2 and time.monotonic() - began > MAX_MEASURE_S:
            break
    return found
