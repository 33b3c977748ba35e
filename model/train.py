"""The training loop: batches in, checkpoints out, to be stopped and resumed at any moment.

Knows: the order of one step, when to log, validate and save. Does not know: how batches, losses, rates or updates are
made. With torchrun every process runs this loop on its share of each step's batches (model/processes.py).

Dropout is seeded by the number of the step and of the batch in it: what happens does not depend on interruptions, nor
on how many processes share a step.
"""

import math
import signal
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils.tensorboard import SummaryWriter

from model import checkpoint
from model.config import CorpusConfig, TrainingConfig
from model.corpus import corpus_files
from model.data import Batch, BatchStream, SpecialTokens
from model.loss import Loss
from model.machine import choose_device, keep_few_kernels, keep_freed_memory
from model.objective import Objective, compile_layers
from model.optimizer import Optimizers
from model.processes import Processes
from model.progress import Progress
from model.run_folder import RunFolder, refuse_other_model
from model.schedule import learning_rate
from model.sections import TrainingConfigError
from model.subword_dropout import SubwordDropout
from model.token_store import TokenStore, prepare
from model.transformer import Transformer
from model.validation import Validation


class TrainingError(RuntimeError):
    """Training cannot go on; the message says at which step and why."""


def restore(newest: Path, model: Transformer, optimizers: Optimizers) -> dict[str, Any]:
    """Weights and moments of a run's checkpoint; returns what else training.pt holds.

    Raises:
        TrainingConfigError: the moments are another optimizer's. CheckpointError: a file is missing, damaged or unfit.
    """
    try:
        state = checkpoint.load_training(newest)
        checkpoint.fill(model, newest)
    except checkpoint.CheckpointError as error:
        raise checkpoint.CheckpointError(
            f"{error}; with {newest} moved away the run goes on from the checkpoint before it"
        ) from error
    try:
        optimizers.load_state_dict(state["optimizers"])
    except TrainingConfigError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise unfit(newest, error) from error
    return state


def unfit(newest: Path, error: Exception) -> checkpoint.CheckpointError:
    """For a training.pt that another program has written."""
    return checkpoint.CheckpointError(f"{newest} does not fit this run: {type(error).__name__}: {error}")


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
        self.processes = Processes()
        self.folder = RunFolder(Path(config.run.folder))
        if self.processes.is_first:
            self.folder.take()
        self.device = choose_device(config.run.device, self.processes.local_rank)
        if self.device.type == "cpu":
            keep_freed_memory()
            keep_few_kernels()
        for corpus in (*config.train, *config.validation):
            corpus_files(corpus)  # a file that is missing is told before hours are spent on the others
        self.tokenizer = self.processes.first_then_others(lambda: self.folder.vocabulary(config))
        special = SpecialTokens(self.tokenizer.pad, self.tokenizer.start, self.tokenizer.end)
        stores = self.processes.first_then_others(lambda: [self.store(corpus, "train") for corpus in config.train])
        held_out = self.processes.first_then_others(
            lambda: {corpus.name: self.store(corpus, "validation") for corpus in config.validation}
        )
        self.validation = Validation(held_out, self.tokenizer, special, config.run)
        self.stream = self.open_stream(stores, special)
        torch.manual_seed(config.run.seed)
        self.model = Transformer(config.model).to(self.device)
        smoothing = config.optimizer.label_smoothing
        self.objective = Objective(self.model, config.run.precision, smoothing, special.pad)
        self.optimizers = Optimizers(self.model, config.optimizer)
        self.step, self.target_tokens, self.best_loss, self.bad_validations = 0, 0, math.inf, 0
        # The signal that asked this process to stop, and what all processes saw of any at their last step.
        self.signal, self.agreed_to_stop = 0, False
        self.resume()
        if config.run.compile:
            compile_layers(self.model)
        several = self.processes.count > 1
        self.shared = DistributedDataParallel(self.objective, forward_sync_buffers=False) if several else self.objective

    def open_stream(self, stores: Sequence[TokenStore], special: SpecialTokens) -> BatchStream:
        run, weights = self.config.run, [corpus.weight for corpus in self.config.train]
        process, count = self.processes.rank, self.processes.count
        probability, longest = self.config.vocabulary.dropout, self.config.model.max_positions - 1
        dropout = SubwordDropout(self.tokenizer.processor, probability, longest) if probability else None
        return BatchStream(stores, weights, special, run.batch_tokens, run.seed, process, count, dropout)

    def store(self, corpus: CorpusConfig, part: str) -> TokenStore:
        return prepare(corpus, self.tokenizer, self.folder.path / "data" / f"{part}-{corpus.name}", self.say)

    def description(self) -> checkpoint.Description:
        run, corpora = self.config.run, tuple(corpus.name for corpus in self.config.train)
        return checkpoint.Description(self.config.model, run.source_language, run.target_language, self.step, corpora)

    def save(self, folder: Path) -> None:
        """Raises TrainingError where a weight is no number: the checkpoints before this one stay the newest."""
        if not self.processes.is_first:
            return
        weights = self.model.state_dict()
        if not all(bool(weight.isfinite().all()) for weight in weights.values()):
            raise TrainingError(f"step {self.step}: weights are not finite; nothing was saved. Lower the learning rate")
        state: dict[str, Any] = {
            "optimizers": self.optimizers.state_dict(),
            "stream": self.stream.position(),
            "step": self.step,
            "target_tokens": self.target_tokens,
            "best_loss": self.best_loss,
            "bad_validations": self.bad_validations,
        }
        checkpoint.save(folder, weights, self.tokenizer, self.description(), state)

    def resume(self) -> None:
        """Goes on from the newest checkpoint of the run's folder; where there is none, from the initial checkpoint."""
        newest = self.folder.check_resume(self.config)
        if newest is None:
            self.take_initial_weights()
            return
        state = restore(newest, self.model, self.optimizers)
        try:
            self.stream.seek(state["stream"])
            self.step, self.target_tokens = state["step"], state["target_tokens"]
            self.best_loss, self.bad_validations = state["best_loss"], state["bad_validations"]
        except (KeyError, TypeError, ValueError) as error:
            raise unfit(newest, error) from error
        self.say(f"resumed from {newest} at step {self.step:,}")
        if self.step >= self.config.run.max_steps:
            self.say(f"nothing is left to do: run.max_steps is {self.config.run.max_steps:,}; with more it goes on")

    def take_initial_weights(self) -> None:
        if self.config.run.initial_checkpoint is None:
            return
        folder = Path(self.config.run.initial_checkpoint)
        refuse_other_model(folder, self.config.model, "copy its [model] table")
        checkpoint.fill(self.model, folder)
        self.say(f"weights and vocabulary taken from {folder}")

    def say(self, text: str) -> None:
        if self.processes.is_first:
            print(text, flush=True)

    def loss(self, batch: Batch) -> Loss:
        """Differentiable sums over the tokens of a batch."""
        return Loss(*self.shared(batch.to(self.device)))

    def seed_dropout(self, number: int) -> None:
        """The same random numbers for batch ``number`` of this step, wherever and whenever it is computed."""
        entropy = [self.config.run.seed, self.step, number * self.processes.count + self.processes.rank]
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1))

    def without_exchange(self) -> AbstractContextManager[Any]:
        """Gradients are added up here and not yet exchanged with the other processes."""
        return self.shared.no_sync() if isinstance(self.shared, DistributedDataParallel) else nullcontext()

    def update(self, batches: list[Batch]) -> tuple[float, float, float]:
        """One optimizer step over ``batches``, and those of the other processes.

        Returns:
            Mean loss, gradient length before clipping, learning rate.

        Raises:
            TrainingError: the loss or the gradient is no number, or the loss has exploded; the batch is named.
        """
        self.step += 1
        options = self.config.optimizer
        [num_tokens] = self.processes.sums(sum(batch.num_target_tokens for batch in batches))
        self.optimizers.zero_grad()
        losses = []
        for number, batch in enumerate(batches):
            self.seed_dropout(number)
            with self.without_exchange() if number < len(batches) - 1 else nullcontext():
                loss = self.loss(batch)
                # DistributedDataParallel takes the mean over the processes; the sum is wanted.
                (loss.smoothed * (self.processes.count / num_tokens)).backward()  # type: ignore[no-untyped-call]
            losses.append(float(loss.smoothed.detach()))
        total, num_signals = self.processes.sums(sum(losses), float(self.signal))
        self.agreed_to_stop = num_signals > 0
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), options.max_gradient_norm or math.inf))
        self.refuse_explosion(total / num_tokens, norm, batches, losses)
        rate = learning_rate(self.step, options, self.config.run.max_steps, self.config.model.model_width)
        self.optimizers.step(rate)
        self.target_tokens += int(num_tokens)
        return total / num_tokens, norm, rate

    @property
    def is_stopped(self) -> bool:
        """One process stops at once, several at the step at which all have heard of it."""
        return self.agreed_to_stop or (self.signal > 0 and self.processes.count == 1)

    @property
    def max_loss(self) -> float:
        """A mean loss above it has exploded."""
        return self.config.run.max_loss or 2 * math.log(self.config.model.vocab_size)

    def refuse_explosion(self, mean: float, norm: float, batches: list[Batch], losses: list[float]) -> None:
        limit = self.max_loss
        if math.isfinite(norm) and mean <= limit:
            return
        means = {batch.name: loss / batch.num_target_tokens for batch, loss in zip(batches, losses, strict=True)}
        worst = max(means, key=lambda name: means[name] if math.isfinite(means[name]) else math.inf)
        what = "are not finite" if not math.isfinite(mean + norm) else f"have exploded (run.max_loss {limit:g})"
        raise TrainingError(
            f"step {self.step}: loss {mean} and gradient length {norm} {what}; "
            f"worst batch of process {self.processes.rank}: {worst}, with a mean loss of {means[worst]}"
        )

    def validate(self, writer: SummaryWriter | None) -> float:
        """The validation loss, which process 0 computes for all."""
        loss = math.inf if writer is None else self.validation.loss(self.objective, self.step, writer)
        return self.processes.from_first(loss)

    def train(self) -> None:
        """Runs to max_steps, to the end of patience, or to SIGINT or SIGTERM; each leaves a checkpoint.

        Raises:
            TrainingError: the loss has exploded or is no number; the last checkpoint is one from before that.
        """
        previous = {number: signal.signal(number, self.request_stop) for number in (signal.SIGINT, signal.SIGTERM)}
        writer = None
        if self.processes.is_first:
            changes = self.folder.note(self.config)
            if changes and self.step:
                self.say(f"changed since then: {changes}")
            writer = SummaryWriter(str(self.folder.path / "tensorboard"), purge_step=self.step + 1)
        try:
            with Progress(self.config.run, writer, self.step, self.target_tokens) as progress:
                self.loop(progress, writer)
            if self.is_stopped:
                self.save(self.folder.latest)
                self.say(f"stopped at step {self.step:,}; the same command goes on from here")
        finally:
            self.folder.release()
            for number, handler in previous.items():
                signal.signal(number, handler)
            if writer is not None:
                writer.close()

    def loop(self, progress: Progress, writer: SummaryWriter | None) -> None:
        run, batches, saved_at = self.config.run, iter(self.stream), time.monotonic()
        self.objective.train()
        while self.step < run.max_steps and not self.is_stopped and not self.is_out_of_patience():
            loss, norm, rate = self.update(list(islice(batches, run.accumulate)))
            progress.add(self.step, self.target_tokens, loss, norm, rate)
            is_due = self.step % run.validate_every == 0 or self.step == run.max_steps
            if is_due or time.monotonic() - saved_at > run.checkpoint_every_s:
                with progress.paused():
                    if is_due:
                        self.judge(self.validate(writer))
                    else:
                        self.save(self.folder.latest)
                saved_at = time.monotonic()

    def judge(self, loss: float) -> None:
        """Saves a validated checkpoint, and as best if it is.

        As best first: a run that is killed before the other comes to this step once more.
        """
        if not loss <= self.max_loss:
            raise TrainingError(f"step {self.step}: the validation loss is {loss}; nothing was saved")
        better = loss < self.best_loss
        self.best_loss = min(loss, self.best_loss)
        self.bad_validations = 0 if better else self.bad_validations + 1
        if better and self.processes.is_first:
            weights = self.model.state_dict()
            checkpoint.save(self.folder.best, weights, self.tokenizer, self.description(), None)
        self.save(self.folder.step(self.step))
        if self.processes.is_first:
            self.folder.keep(self.config.run.keep_checkpoints)

    def is_out_of_patience(self) -> bool:
        patience = self.config.run.patience
        if patience == 0 or self.bad_validations < patience:
            return False
        self.say(f"no better validation loss in {patience} validations: stopping at step {self.step:,}")
        return True

    def request_stop(self, number: int, _frame: FrameType | None) -> None:
        if self.signal:
            raise KeyboardInterrupt  # asked twice: at once, without saving
        self.say(f"{signal.Signals(number).name}: finishing a step and saving; again: stop now")
        self.signal = number
