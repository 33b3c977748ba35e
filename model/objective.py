"""The model and its loss as one module: what is differentiated, and what DistributedDataParallel wraps.

Knows: which part runs in which precision. Does not know: batches' origin, optimizers, processes.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from model.data import Batch
from model.loss import Loss, smoothed_cross_entropy
from model.transformer import Transformer


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """bf16 for what profits from it; fp32: nothing."""
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, torch.bfloat16)


def compile_layers(model: Transformer) -> None:
    """torch.compile of every layer, once for all lengths; names of weights stay as they are."""
    for layer in (*model.encoder, *model.decoder):
        layer.compile(dynamic=True)


class Objective(nn.Module):
    """Batch in, Loss out.

    Args:
        precision: bf16 or fp32. smoothing: of the labels while training; none in evaluation mode.
    """

    def __init__(self, model: Transformer, precision: str, smoothing: float, pad: int) -> None:
        super().__init__()
        self.model = model
        self.precision, self.smoothing, self.pad = precision, smoothing, pad

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, int]:
        """The fields of Loss: a plain tuple, in which DistributedDataParallel finds the tensors."""
        smoothing = self.smoothing if self.training else 0.0
        with autocast(batch.source.device, self.precision):
            memory = self.model.encode(batch.source, batch.source_lengths)
            states = self.model.decode(batch.target_in, memory, batch.source_lengths)
        weight, bias = self.model.target_embedding.weight, self.model.output_bias
        loss = smoothed_cross_entropy(states, weight, bias, batch.target_out, smoothing, self.pad)
        return loss.smoothed, loss.negative_log_likelihood, loss.num_tokens

    def loss(self, batch: Batch) -> Loss:
        return Loss(*self(batch))
