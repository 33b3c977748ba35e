"""Language models without a network: the next token's probabilities are a function of a seed and the prefix."""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch

VOCAB, END = 40, 2


@dataclass(frozen=True)
class MadeUpModel:
    """``remembers``: the probabilities depend on the prefix; otherwise on its length alone."""

    seed: int
    remembers: bool = True

    def log_probabilities(self, prefix: list[int]) -> np.ndarray:
        digest = hashlib.sha256(repr((self.seed, prefix if self.remembers else 0)).encode()).digest()
        logits = (
            np.random.default_rng(int.from_bytes(digest[:8], "little")).standard_normal(VOCAB).astype(np.float32) * 2
        )
        logits[END] += len(prefix) - 3
        return logits - np.log(np.exp(logits).sum(dtype=np.float32))

    def extend(self, prefix: list[int], count: int) -> tuple[torch.Tensor, torch.Tensor]:
        values, tokens = torch.from_numpy(self.log_probabilities(prefix)).topk(count)
        return values, tokens
