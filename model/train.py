"""The training loop: batches in, checkpoints out, to be stopped and resumed at any moment.

Knows: the order of one step, when to log, validate and save. Does not know: how batches, losses, rates or updates are made.
"""

import ctypes
import dataclasses
import json
import math
import random
import shutil
import signal
import time
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

import sacrebleu
import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from model import checkpoint
from model.config import TrainingConfig
from model.corpus import TokenStore, prepare
from model.data import Batch, BatchStream, SpecialTokens, validation_batches
from model.loss import Loss, smoothed_cross_entropy
from model.optimizer import Optimizers
from model.reference_decode import batch_greedy
from model.schedule import learning_rate
from model.transformer import Transformer
from model.vocabulary import learn_vocabulary
from service.runtime.tokenizer import Tokenizer


class TrainingError(RuntimeError):
    """Training cannot go on; the message says at which step and why."""


def keep_freed_memory() -> None:
    """Asks glibc to keep large freed blocks: giving them back and faulting them in again took 40 % of a CPU step."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        m_mmap_max, m_trim_threshold = -4, -1
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)
    except OSError:
        pass  # another C library: slower, not wrong


class Trainer:
    """One run.

    Args:
        config: what to train on, how long, where to.

    Raises:
        CorpusError, CheckpointError: the text or the folder cannot be used.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config
        self.folder = Path(config.run.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        has_gpu = torch.cuda.is_available()
        self.device = torch.device("cuda" if has_gpu and config.run.device != "cpu" else "cpu")
        if config.run.device == "cuda" and not has_gpu:
            raise TrainingError("run.device is cuda, but PyTorch sees no CUDA device")
        if self.device.type == "cpu":
            keep_freed_memory()
        torch.manual_seed(config.run.seed)
        random.seed(config.run.seed)
        self.tokenizer = self.vocabulary()
        special = SpecialTokens(self.tokenizer.pad, self.tokenizer.start, self.tokenizer.end)
        self.special = special
        stores = [self.store(corpus.name, "train") for corpus in config.train]
        self.validation = {corpus.name: self.store(corpus.name, "validation") for corpus in config.validation}
        weights = [corpus.weight for corpus in config.train]
        self.stream = BatchStream(stores, weights, special, config.run.batch_tokens, config.run.seed)
        self.model = Transformer(config.model).to(self.device)
        self.optimizers = Optimizers(self.model, config.optimizer)
        self.step, self.target_tokens, self.best_loss, self.bad_validations = 0, 0, math.inf, 0
        self.stop_requested = False
        self.resume()

    def vocabulary(self) -> Tokenizer:
        """The run's vocabulary, learned once and kept in the run's folder."""
        path = self.folder / "vocabulary.spm"
        if not path.exists():
            tokenizer = learn_vocabulary(self.config.train, self.config.vocabulary, self.config.run.seed)
            path.with_suffix(".partial").write_bytes(tokenizer.model)
            path.with_suffix(".partial").rename(path)
        return Tokenizer.from_file(path)

    def store(self, name: str, part: str) -> TokenStore:
        corpus = next(c for c in getattr(self.config, part) if c.name == name)
        return prepare(corpus, self.tokenizer, self.folder / "data" / f"{part}-{name}")

    def description(self) -> checkpoint.Description:
        run = self.config.run
        return checkpoint.Description(
            self.config.model, run.source_language, run.target_language, self.step, tuple(c.name for c in self.config.train)
        )

    def save(self, folder: Path) -> None:
        state: dict[str, Any] = {
            "optimizers": self.optimizers.state_dict(),
            "stream": self.stream.position(),
            "step": self.step,
            "target_tokens": self.target_tokens,
            "best_loss": self.best_loss,
            "bad_validations": self.bad_validations,
            "random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state() if self.device.type == "cuda" else None,
        }
        checkpoint.save(folder, self.model.state_dict(), self.tokenizer, self.description(), state)

    def resume(self) -> None:
        """Goes on from the newest checkpoint of the run's folder, if there is one."""
        found = [*checkpoint.steps(self.folder), *self.folder.glob("latest")]
        if not found:
            return
        newest = max(found, key=lambda folder: checkpoint.read_description(folder).step)
        state = checkpoint.load_training(newest)
        self.model.load_state_dict(checkpoint.load_weights(newest))
        self.optimizers.load_state_dict(state["optimizers"])
        self.stream.seek(state["stream"])
        self.step, self.target_tokens = state["step"], state["target_tokens"]
        self.best_loss, self.bad_validations = state["best_loss"], state["bad_validations"]
        torch.set_rng_state(state["random"])
        if state["cuda_random"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_random"])
        print(f"resumed from {newest} at step {self.step:,}", flush=True)

    def autocast(self) -> AbstractContextManager[Any]:
        if self.config.run.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def loss(self, batch: Batch) -> Loss:
        smoothing = self.config.optimizer.label_smoothing if self.model.training else 0.0
        with self.autocast():
            memory = self.model.encode(batch.source, batch.source_lengths)
            states = self.model.decode(batch.target_in, memory, batch.source_lengths)
        weight, bias = self.model.target_embedding.weight, self.model.output_bias
        return smoothed_cross_entropy(states, weight, bias, batch.target_out, smoothing, self.special.pad)

    def update(self, batches: list[Batch]) -> tuple[float, float, float]:
        """One optimizer step over ``batches``: (mean loss, gradient length before clipping, learning rate)."""
        self.step += 1
        options = self.config.optimizer
        num_tokens = sum(batch.num_target_tokens for batch in batches)
        self.optimizers.zero_grad()
        total = 0.0
        for batch in batches:
            loss = self.loss(batch.to(self.device))
            (loss.smoothed / num_tokens).backward()
            total += float(loss.smoothed.detach())
        limit = options.max_gradient_norm or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit))
        if not math.isfinite(norm) or not math.isfinite(total):
            raise TrainingError(
                f"step {self.step}: loss {total / num_tokens} and gradient length {norm} are not finite; "
                f"last batch read: {self.stream.position()}"
            )
        rate = learning_rate(self.step, options, self.config.run.max_steps, self.config.model.model_width)
        self.optimizers.step(rate)
        self.target_tokens += num_tokens
        return total / num_tokens, norm, rate

    @torch.inference_mode()
    def validate(self, writer: SummaryWriter) -> float:
        """Mean negative log-likelihood per target token over all validation corpora; shows some translations."""
        self.model.eval()
        total, tokens = 0.0, 0
        for name, store in self.validation.items():
            losses = [
                self.loss(batch.to(self.device))
                for batch in validation_batches([store], self.special, self.config.run.batch_tokens)
            ]
            loss = float(sum(loss.negative_log_likelihood for loss in losses))
            count = sum(loss.num_tokens for loss in losses)
            bleu = self.show_translations(name, store)
            print(f"step {self.step:,} validation {name}: loss {loss / count:.4f} perplexity {math.exp(loss / count):.2f} BLEU {bleu:.2f}", flush=True)
            writer.add_scalar(f"validation/loss_{name}", loss / count, self.step)
            writer.add_scalar(f"validation/bleu_{name}", bleu, self.step)
            total, tokens = total + loss, tokens + count
        self.model.train()
        return total / tokens

    def show_translations(self, name: str, store: TokenStore) -> float:
        """Greedy sacreBLEU over the first sample_sentences pairs; the first few are printed."""
        count = min(self.config.run.sample_sentences, len(store))
        if count == 0:
            return 0.0
        sources = [[*map(int, store.source(i)), self.special.end] for i in range(count)]
        limit = min(2 * max(map(len, sources)) + 10, self.config.model.max_positions)
        with self.autocast():
            outputs = batch_greedy(self.model, sources, self.special.pad, self.special.start, self.special.end, limit)
        translations = self.tokenizer.decode(outputs)
        references = self.tokenizer.decode([store.target(i).tolist() for i in range(count)])
        for source, translation in list(zip(self.tokenizer.decode(sources), translations, strict=True))[:3]:
            print(f"    {source}\n -> {translation}", flush=True)
        return float(sacrebleu.corpus_bleu(translations, [references]).score)

    def train(self) -> None:
        """Runs to max_steps, to the end of patience, or to SIGINT or SIGTERM; each leaves a checkpoint."""
        previous = {number: signal.signal(number, self.request_stop) for number in (signal.SIGINT, signal.SIGTERM)}
        run = self.config.run
        (self.folder / "resolved.json").write_text(json.dumps(dataclasses.asdict(self.config), indent=2) + "\n")
        writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.step)
        batches = iter(self.stream)
        saved_at = time.monotonic()
        self.model.train()
        try:
            with Progress(self, writer) as progress:
                while self.step < run.max_steps and not self.stop_requested:
                    progress.add(*self.update(list(islice(batches, run.accumulate))))
                    if self.step % run.validate_every == 0 or self.step == run.max_steps:
                        if self.judge(self.validate(writer)):
                            break
                        saved_at = time.monotonic()
                    elif time.monotonic() - saved_at > run.checkpoint_every_s:
                        self.save(self.folder / "latest")
                        saved_at = time.monotonic()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            writer.close()
        if self.stop_requested:
            self.save(self.folder / "latest")
            print(f"stopped at step {self.step:,}; the same command goes on from here", flush=True)

    def judge(self, loss: float) -> bool:
        """Saves a validated checkpoint, and as best if it is; True where patience has run out."""
        better = loss < self.best_loss
        self.best_loss = min(loss, self.best_loss)
        self.bad_validations = 0 if better else self.bad_validations + 1
        self.save(self.folder / f"step-{self.step:08d}")
        if better:
            checkpoint.save(self.folder / "best", self.model.state_dict(), self.tokenizer, self.description(), None)
        for old in checkpoint.steps(self.folder)[: -self.config.run.keep_checkpoints]:
            shutil.rmtree(old)
        patience = self.config.run.patience
        if patience and self.bad_validations >= patience:
            print(f"no better validation loss in {patience} validations: stopping", flush=True)
            return True
        return False

    def request_stop(self, number: int, _frame: FrameType | None) -> None:
        print(f"{signal.Signals(number).name}: finishing step {self.step + 1:,} and saving", flush=True)
        self.stop_requested = True


class Progress:
    """What the terminal and TensorBoard are told about a run, every log_every steps."""

    def __init__(self, trainer: Trainer, writer: SummaryWriter) -> None:
        self.trainer, self.writer = trainer, writer
        self.bar = tqdm(total=trainer.config.run.max_steps, initial=trainer.step, unit=" steps", disable=None, mininterval=1)
        self.losses: list[float] = []
        self.since, self.tokens_then = time.monotonic(), trainer.target_tokens

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def add(self, loss: float, gradient_norm: float, rate: float) -> None:
        self.losses.append(loss)
        self.bar.update(1)
        trainer, run = self.trainer, self.trainer.config.run
        if trainer.step % run.log_every:
            return
        now = time.monotonic()
        speed = (trainer.target_tokens - self.tokens_then) / (now - self.since)
        seconds_left = (run.max_steps - trainer.step) * (now - self.since) / len(self.losses)
        mean = sum(self.losses) / len(self.losses)
        self.bar.write(
            f"step {trainer.step:,} loss {mean:.4f} gradient {gradient_norm:.2f} rate {rate:.2e} "
            f"{speed:,.0f} target tokens/s, {trainer.target_tokens / 1e6:.1f} M seen, {seconds_left / 60:.0f} min left"
        )
        values = {"loss": mean, "gradient_norm": gradient_norm, "learning_rate": rate, "target_tokens_per_s": speed}
        for name, value in values.items():
            self.writer.add_scalar(f"train/{name}", value, trainer.step)
        self.losses, self.since, self.tokens_then = [], now, trainer.target_tokens
