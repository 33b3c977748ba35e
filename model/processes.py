"""The processes of a run: one, or those that torchrun started.

Knows: who this process is among them, and how they agree on numbers. Does not know: what is trained.

torchrun sets RANK, WORLD_SIZE and LOCAL_RANK. Every process makes the same run object; each computes its share of a
step's batches, DistributedDataParallel adds up the gradients, and process 0 alone writes files and talks.
"""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

Made = TypeVar("Made")
# The others wait while process 0 prepares the text.
WAIT = timedelta(hours=12)


class Processes:
    """The group of this run.

    Attributes:
        rank: which process this is, from 0. count: how many there are.
    """

    def __init__(self) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0")) if self.count > 1 else 0
        self.local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        if self.count > 1 and not dist.is_initialized():
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            dist.init_process_group(backend, timeout=WAIT)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def first_then_others(self, make: Callable[[], Made]) -> Made:
        """``make()`` in process 0, and after that in the others, which find what it has written."""
        if self.count == 1:
            return make()
        if self.is_first:
            made = make()
        dist.barrier()
        if not self.is_first:
            made = make()
        dist.barrier()
        return made

    def sums(self, *values: float) -> list[float]:
        """Each value, summed over all processes."""
        if self.count == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return [float(value) for value in total]

    def from_first(self, value: float) -> float:
        """Process 0's value, in all of them."""
        if self.count == 1:
            return value
        held = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(held, 0)
        return float(held)

    def close(self) -> None:
        if self.count > 1 and dist.is_initialized():
            dist.destroy_process_group()
