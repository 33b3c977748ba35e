"""A model is the same after its weights are balanced, whatever was made larger at one place and smaller at another."""

import copy

import pytest
import torch

from export.balance import balance
from model.transformer import Transformer
from tests.conftest import random_model

SHAPES = {
    "pre-norm, ReLU": {},
    "post-norm, SiLU": {"norm": "post", "activation": "silu"},
    "not tied, GELU": {"tie_embeddings": False, "activation": "gelu"},
}


def logits(model: Transformer) -> torch.Tensor:
    torch.manual_seed(3)
    source, target = (torch.randint(4, model.config.vocab_size, (3, length)) for length in (9, 7))
    with torch.no_grad():
        return model(source, torch.tensor([9, 5, 7]), target)


def unbalance(model: Transformer) -> None:
    """What calibration does: some channels larger where they are made, smaller where they are read."""
    state = model.state_dict()
    factors = torch.linspace(0.1, 9.0, model.config.model_width)
    attention = "decoder.0.cross_attention"
    for name, by in (("value.weight", factors[:, None]), ("value.bias", factors), ("output.weight", 1 / factors)):
        state[f"{attention}.{name}"].mul_(by)
    for name, by in (("query.weight", factors[:, None]), ("query.bias", factors)):
        state[f"{attention}.{name}"].mul_(by)
    for name, by in (("key.weight", factors[:, None]), ("key.bias", factors)):
        state[f"{attention}.{name}"].div_(by)


@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES)
def test_it_computes_the_same(changes: dict[str, object]) -> None:
    model = random_model(**changes)
    wanted = logits(model)
    balance(model)
    assert (logits(model) - wanted).abs().max() <= 1e-4 * wanted.abs().max()


@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES)
def test_what_calibration_moved_goes_back(changes: dict[str, object]) -> None:
    model = random_model(**changes)
    other = copy.deepcopy(model)
    unbalance(other)
    balance(model)
    balance(other)
    for name, values in model.state_dict().items():
        assert torch.allclose(other.state_dict()[name], values, rtol=1e-4, atol=1e-6), name
    value, output = (model.state_dict()[f"encoder.0.self_attention.{name}.weight"] for name in ("value", "output"))
    assert torch.allclose(value.norm(dim=1), output.norm(dim=0), rtol=1e-4)


def test_gains_are_one_where_only_products_read() -> None:
    model = random_model()
    balance(model)
    gains = {name for name, values in model.state_dict().items() if "norm.weight" in name and (values == 1).all()}
    assert {name for name in model.state_dict() if "norm.weight" in name} - gains == {"decoder_norm.weight"}


def test_a_channel_of_nothing_stays_one() -> None:
    model = random_model()
    with torch.no_grad():
        model.state_dict()["encoder.0.feed_forward.inner.weight"][3] = 0
        model.state_dict()["encoder.1.self_attention_residual.norm.weight"][5] = 0
    wanted = logits(model)
    balance(model)
    assert all(values.isfinite().all() for values in model.state_dict().values())
    assert (logits(model) - wanted).abs().max() <= 1e-4 * wanted.abs().max()
