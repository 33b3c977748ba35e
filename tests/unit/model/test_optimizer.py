"""Which optimizer moves which weight, and with which numbers."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from model.config import OptimizerConfig
from model.optimizer import Optimizers
from model.sections import TrainingConfigError

CONFIG = OptimizerConfig(beta1=0.8, beta2=0.95, epsilon=1e-6, weight_decay=0.25, peak_learning_rate=0.5)
MUON = replace(CONFIG, name="muon")


class Model(nn.Module):
    """A weight of each kind."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embedding, self.linear, self.norm = nn.Embedding(5, 4), nn.Linear(4, 3), nn.LayerNorm(3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.norm(self.linear(self.embedding(tokens)))
        return result


def moved(optimizers: Optimizers, model: Model) -> list[set[str]]:
    """Names of the weights that each part moves."""
    names = {id(weight): name for name, weight in model.named_parameters()}
    return [{names[id(p)] for group in part.param_groups for p in group["params"]} for part in optimizers.parts]


def test_muon_moves_hidden_matrices_and_adam_all_else():
    model = Model()
    rest = {"embedding.weight", "linear.bias", "norm.weight", "norm.bias"}
    assert moved(Optimizers(model, CONFIG), model) == [rest | {"linear.weight"}]
    assert moved(Optimizers(model, MUON), model) == [rest, {"linear.weight"}]


def test_every_number_of_the_configuration_is_used():
    adam, muon = Optimizers(Model(), MUON).parts
    [group] = adam.param_groups
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.8, 0.95), 1e-6, 0.25)
    [group] = muon.param_groups
    assert (group["weight_decay"], group["adjust_lr_fn"]) == (0.25, "match_rms_adamw")


@pytest.mark.parametrize("config", [CONFIG, MUON])
def test_a_step_moves_every_weight_at_the_given_rate_and_gradients_are_forgotten(config: OptimizerConfig):
    model = Model()
    optimizers = Optimizers(model, config)
    before = [weight.clone() for weight in model.parameters()]
    for rate, is_moved in ((0.0, False), (0.1, True)):
        optimizers.zero_grad()
        assert all(weight.grad is None for weight in model.parameters())
        (model(torch.arange(5)) * torch.arange(15.0).reshape(5, 3)).sum().backward()
        optimizers.step(rate)
        assert [not torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True)] == [is_moved] * 5


@pytest.mark.parametrize(("then", "now"), [(CONFIG, MUON), (MUON, CONFIG)])
def test_moments_of_another_optimizer_are_refused(then: OptimizerConfig, now: OptimizerConfig):
    state = Optimizers(Model(), then).state_dict()
    with pytest.raises(TrainingConfigError, match=rf"optimizer\.name was {then.name}, is {now.name}"):
        Optimizers(Model(), now).load_state_dict(state)
