"""What a training run would do: its size, its memory, its time.

Knows: the configuration, and how long a step takes here, by doing some. Does not know: how training works.
"""

import resource
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from model.config import CorpusConfig, TrainingConfig
from model.corpus import corpus_files, read_pairs
from model.data import Batch, SpecialTokens, make_batch
from model.objective import Objective
from model.optimizer import Optimizers
from model.transformer import Transformer
from service.runtime.tokenizer import Tokenizer

MEASURED_STEPS = 2
CHARACTERS_PER_TOKEN = 4.0
"""A guess for European languages at 8,000 pieces, used until the run has a vocabulary to count with."""
SAMPLE_PAIRS = 2000
FILL = 0.9
"""Share of a batch's padded tokens that are real: a guess for batches by length."""


def plan(config: TrainingConfig) -> Iterator[str]:
    """What the run would do, a line a fact.

    Raises:
        CorpusError: a corpus cannot be read.
    """
    model, run, optimizer = config.model, config.run, config.optimizer
    network = Transformer(model)
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
    tokenizer = own_vocabulary(config)
    for part, corpora in (("train", config.train), ("validation", config.validation)):
        for corpus in corpora:
            num_pairs, tokens_per_pair = count_pairs(corpus, tokenizer)
            weight = f", weight {corpus.weight:g}" if part == "train" else ""
            yield f"{part:11} {corpus.name}: {num_pairs:,} pairs before cleaning{weight}"
            if part == "train":
                tokens = "counted with its vocabulary" if tokenizer else f"{CHARACTERS_PER_TOKEN:g} characters a token"
                steps = (
                    num_pairs * tokens_per_pair * share_of(corpus, config) / FILL / run.batch_tokens / run.accumulate
                )
                yield f"            about {tokens_per_pair:.1f} tokens a pair ({tokens}), {steps:,.0f} steps an epoch"
    yield from measure(config, network)


def share_of(corpus: CorpusConfig, config: TrainingConfig) -> float:
    """Steps that read the corpus once, for each step's worth of its own text: others stand between."""
    return sum(other.weight for other in config.train) / corpus.weight


def own_vocabulary(config: TrainingConfig) -> Tokenizer | None:
    """The vocabulary that the run has already or is told to use."""
    path = Path(config.vocabulary.model or Path(config.run.folder) / "vocabulary.spm")
    return Tokenizer.from_file(path) if path.is_file() else None


def count_pairs(corpus: CorpusConfig, tokenizer: Tokenizer | None) -> tuple[int, float]:
    """Pairs, and mean tokens of their longer side, end token counted, over the first of them."""
    corpus_files(corpus)
    count, tokens, sampled = 0, 0.0, 0
    for pair in read_pairs(corpus):
        count += 1
        if sampled < SAMPLE_PAIRS:
            sampled += 1
            sizes = (
                map(len, tokenizer.encode(pair)) if tokenizer else (len(side) / CHARACTERS_PER_TOKEN for side in pair)
            )
            tokens += max(sizes) + 1
    return count, tokens / max(sampled, 1)


def made_up_batch(config: TrainingConfig) -> Batch:
    """A full batch of random tokens, 25 to a sentence."""
    length = min(25, config.model.max_positions, config.run.batch_tokens) - 1
    rows = max(1, config.run.batch_tokens // (length + 1))
    tokens = list(torch.randint(config.model.vocab_size, (rows, length)).numpy())
    return make_batch(tokens, tokens, SpecialTokens(pad=0, start=0, end=0))


def measure(config: TrainingConfig, network: Transformer) -> Iterator[str]:
    """Does some steps on made-up text and says how long the run would take and in how much memory."""
    from model.train import choose_device

    run = config.run
    device = choose_device(run.device)
    objective = Objective(network.to(device), run.precision, config.optimizer.label_smoothing, pad=-1)
    optimizers = Optimizers(network, config.optimizer)
    batch = made_up_batch(config).to(device)
    times = []
    for _ in range(MEASURED_STEPS):
        started = time.monotonic()
        optimizers.zero_grad()
        for _ in range(run.accumulate):
            loss = objective.loss(batch)
            (loss.smoothed / loss.num_tokens).backward()  # type: ignore[no-untyped-call]
        optimizers.step(config.optimizer.peak_learning_rate)
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.monotonic() - started)
    seconds = min(times)
    cuda = device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    yield f"memory      {peak / 1e9:.1f} GB of {'the GPU' if cuda else 'this process'} in {len(times)} steps"
    yield (
        f"time        {seconds:.2f} s a step here and now ({batch.num_target_tokens * run.accumulate / seconds:,.0f} "
        f"tokens/s): {seconds * run.max_steps / 3600:.1f} hours for all, validation not counted"
    )
