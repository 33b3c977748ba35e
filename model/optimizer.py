"""Which optimizer moves which weight.

Knows: parameter names and shapes. Does not know: the schedule, the loss.

``muon`` gives every hidden matrix an orthogonalised momentum update (Jordan et al. 2024; scaled to Adam's usual size as
in Liu et al. 2025, arXiv:2502.16982) and everything else Adam. It needs clearly fewer tokens for the same loss, for
about a tenth more time per step at the sizes here.
"""

from typing import Any

import torch
from torch import nn

from model.config import OptimizerConfig
from model.sections import TrainingConfigError


class Optimizers:
    """One or two torch optimizers that act as one."""

    def __init__(self, model: nn.Module, config: OptimizerConfig) -> None:
        matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and "embedding" not in name]
        chosen = {id(p) for p in matrices} if config.name == "muon" else set()
        rest = [p for p in model.parameters() if id(p) not in chosen]
        adam = torch.optim.AdamW(
            rest,
            lr=config.peak_learning_rate,
            betas=(config.beta1, config.beta2),
            eps=config.epsilon,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.parts: list[torch.optim.Optimizer] = [adam]
        if config.name == "muon":
            muon = torch.optim.Muon(
                matrices,
                lr=config.peak_learning_rate,
                weight_decay=config.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
            self.parts.append(muon)

    def step(self, learning_rate: float) -> None:
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = learning_rate
            part.step()

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, Any]]:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Takes the moments; rates, decays and the like stay those of the configuration.

        Raises:
            TrainingConfigError: they are another optimizer's.
        """
        if len(states) != len(self.parts):
            names = {1: "adam", 2: "muon"}
            raise TrainingConfigError(
                f"optimizer.name was {names[len(states)]}, is {names[len(self.parts)]}; give the run another folder"
            )
        for part, state in zip(self.parts, states, strict=True):
            own = [{name: value for name, value in group.items() if name != "params"} for group in part.param_groups]
            part.load_state_dict(state)
            for group, options in zip(part.param_groups, own, strict=True):
                group.update(options)
