"""What the terminal and TensorBoard are told about a run.

Knows: means, speeds and the time left. Does not know: where the numbers come from.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from model.config import RunConfig
from model.loss import perplexity


class Progress:
    """A bar, and a line every log_every steps.

    Args:
        writer: of TensorBoard; None: a process that tells nothing.
        step, target_tokens: where the run stands when this begins.
    """

    def __init__(self, run: RunConfig, writer: SummaryWriter | None, step: int, target_tokens: int) -> None:
        self.run, self.writer = run, writer
        self.bar = tqdm(total=run.max_steps, initial=step, unit=" steps", disable=writer is None or None, mininterval=1)
        self.losses: list[float] = []
        self.since, self.tokens_then = time.monotonic(), target_tokens

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens meanwhile counts neither for the speed nor for the time left."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.since += time.monotonic() - started

    def add(self, step: int, target_tokens: int, loss: float, gradient_norm: float, rate: float) -> None:
        """Takes the numbers of one step; ``target_tokens`` counts from the beginning of the run."""
        self.losses.append(loss)
        self.bar.update(1)
        if self.writer is None or step % self.run.log_every:
            return
        now = time.monotonic()
        speed = (target_tokens - self.tokens_then) / (now - self.since)
        seconds_left = (self.run.max_steps - step) * (now - self.since) / len(self.losses)
        mean = sum(self.losses) / len(self.losses)
        self.bar.write(
            f"step {step:,} loss {mean:.4f} gradient {gradient_norm:.2f} rate {rate:.2e} "
            f"perplexity {perplexity(mean):.1f}, {speed:,.0f} target tokens/s, {target_tokens / 1e6:.1f} M seen, "
            f"{seconds_left / 60:.0f} min left"
        )
        values = {"loss": mean, "gradient_norm": gradient_norm, "learning_rate": rate, "target_tokens_per_s": speed}
        values["perplexity"] = perplexity(mean)
        for name, value in values.items():
            self.writer.add_scalar(f"train/{name}", value, step)
        self.losses, self.since, self.tokens_then = [], now, target_tokens
