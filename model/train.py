"""The training loop: batches in, checkpoints out, to be stopped and resumed at any moment.

Knows: the order of one step, when to log, validate and save. Does not know: how batches, losses, rates or updates are
made.
"""

import ctypes
import dataclasses
import json
import math
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

from model import checkpoint
from model.config import CorpusConfig, TrainingConfig
from model.data import Batch, BatchStream, SpecialTokens, validation_batches
from model.loss import Loss, smoothed_cross_entropy
from model.optimizer import Optimizers
from model.progress import Progress
from model.reference_decode import batch_greedy
from model.schedule import learning_rate
from model.sections import TrainingConfigError
from model.token_store import TokenStore, prepare
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


def choose_device(wanted: str) -> torch.device:
    """The device to train on; auto is CUDA where there is one.

    Raises:
        TrainingConfigError: cuda is wanted and not there.
    """
    has_gpu = torch.cuda.is_available()
    if wanted == "cuda" and not has_gpu:
        raise TrainingConfigError("run.device is cuda, but PyTorch sees no CUDA device; cpu or auto would do")
    return torch.device("cuda" if has_gpu and wanted != "cpu" else "cpu")


class Trainer:
    """One run.

    Args:
        config: what to train on, how long, where to.

    Raises:
        TrainingConfigError: the configuration does not fit its vocabulary, this machine or what the folder holds.
        CorpusError, CheckpointError: the text or the folder cannot be used.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config
        self.folder = Path(config.run.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.device = choose_device(config.run.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        torch.manual_seed(config.run.seed)
        self.tokenizer = self.vocabulary()
        if self.tokenizer.vocab_size != config.model.vocab_size:
            raise TrainingConfigError(
                f"{self.folder / 'vocabulary.spm'} has {self.tokenizer.vocab_size} pieces, "
                f"model.vocab_size is {config.model.vocab_size}"
            )
        self.special = SpecialTokens(self.tokenizer.pad, self.tokenizer.start, self.tokenizer.end)
        stores = [self.store(corpus, "train") for corpus in config.train]
        self.validation = {corpus.name: self.store(corpus, "validation") for corpus in config.validation}
        weights = [corpus.weight for corpus in config.train]
        self.stream = BatchStream(stores, weights, self.special, config.run.batch_tokens, config.run.seed)
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

    def store(self, corpus: CorpusConfig, part: str) -> TokenStore:
        return prepare(corpus, self.tokenizer, self.folder / "data" / f"{part}-{corpus.name}")

    def description(self) -> checkpoint.Description:
        run, corpora = self.config.run, tuple(corpus.name for corpus in self.config.train)
        return checkpoint.Description(self.config.model, run.source_language, run.target_language, self.step, corpora)

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
        checkpoint.recover(self.folder / "latest")
        found = [*checkpoint.steps(self.folder), *self.folder.glob("latest")]
        if not found:
            return
        newest = max(found, key=lambda folder: checkpoint.read_description(folder).step)
        self.refuse_other_model(newest)
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

    def refuse_other_model(self, folder: Path) -> None:
        there, here = checkpoint.read_description(folder).model, self.config.model
        other = [
            f"{field.name} ({getattr(there, field.name)}, now {getattr(here, field.name)})"
            for field in dataclasses.fields(here)
            if field.name != "dropout" and getattr(there, field.name) != getattr(here, field.name)
        ]
        if other:
            raise TrainingConfigError(
                f"{folder} was trained with another model: {', '.join(other)}; give the run another folder"
            )

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
            (loss.smoothed / num_tokens).backward()  # type: ignore[no-untyped-call]
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
            print(
                f"step {self.step:,} validation {name}: loss {loss / count:.4f} "
                f"perplexity {math.exp(loss / count):.2f} BLEU {bleu:.2f}",
                flush=True,
            )
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
            with Progress(run, writer, self.step, self.target_tokens) as progress:
                while self.step < run.max_steps and not self.stop_requested and not self.is_out_of_patience():
                    loss, norm, rate = self.update(list(islice(batches, run.accumulate)))
                    progress.add(self.step, self.target_tokens, loss, norm, rate)
                    if self.step % run.validate_every == 0 or self.step == run.max_steps:
                        self.judge(self.validate(writer))
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

    def judge(self, loss: float) -> None:
        """Saves a validated checkpoint, and as best if it is."""
        better = loss < self.best_loss
        self.best_loss = min(loss, self.best_loss)
        self.bad_validations = 0 if better else self.bad_validations + 1
        self.save(self.folder / f"step-{self.step:08d}")
        if better:
            checkpoint.save(self.folder / "best", self.model.state_dict(), self.tokenizer, self.description(), None)
        for old in checkpoint.steps(self.folder)[: -self.config.run.keep_checkpoints]:
            shutil.rmtree(old)

    def is_out_of_patience(self) -> bool:
        patience = self.config.run.patience
        if patience == 0 or self.bad_validations < patience:
            return False
        print(f"no better validation loss in {patience} validations: stopping at step {self.step:,}", flush=True)
        return True

    def request_stop(self, number: int, _frame: FrameType | None) -> None:
        if self.stop_requested:
            raise KeyboardInterrupt  # asked twice: at once, without saving
        print(
            f"{signal.Signals(number).name}: finishing step {self.step + 1:,} and saving; again: stop now", flush=True
        )
        self.stop_requested = True
