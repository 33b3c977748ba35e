"""The blockwise cross-entropy against PyTorch's own, values and gradients."""

import pytest
import torch
from torch.nn import functional

from model import loss as loss_module
from model.loss import smoothed_cross_entropy

PAD = 1


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("block_tokens", [512, 7])
def test_equals_torch(smoothing: float, with_bias: bool, block_tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "BLOCK_TOKENS", block_tokens)
    labels = torch.randint(2, 40, (3, 11))
    labels[1, 6:] = PAD
    values = torch.randn(3, 11, 8), torch.randn(40, 8), torch.randn(40)
    ours = [value.clone().requires_grad_() for value in values]
    theirs = [value.clone().requires_grad_() for value in values]

    result = smoothed_cross_entropy(ours[0], ours[1], ours[2] if with_bias else None, labels, smoothing, PAD)
    (result.smoothed * 0.25).backward()
    logits = functional.linear(theirs[0], theirs[1], theirs[2] if with_bias else None).flatten(0, 1)
    options = {"ignore_index": PAD, "reduction": "sum"}
    expected = functional.cross_entropy(logits, labels.flatten(), label_smoothing=smoothing, **options)
    (expected * 0.25).backward()

    torch.testing.assert_close(result.smoothed, expected)
    plain = functional.cross_entropy(logits.detach(), labels.flatten(), **options)
    torch.testing.assert_close(result.negative_log_likelihood, plain)
    assert result.num_tokens == 28
    for mine, other in zip(ours if with_bias else ours[:2], theirs, strict=False):
        torch.testing.assert_close(mine.grad, other.grad)


def test_without_gradient() -> None:
    with torch.inference_mode():
        result = smoothed_cross_entropy(
            torch.zeros(1, 2, 4), torch.zeros(10, 4), None, torch.tensor([[3, 4]]), 0.0, PAD
        )
    assert float(result.negative_log_likelihood) == pytest.approx(2 * torch.tensor(10.0).log().item())


def test_low_precision_states_keep_a_float32_loss() -> None:
    states = torch.randn(1, 5, 8, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(20, 8, requires_grad=True)
    result = smoothed_cross_entropy(states, weight, None, torch.randint(2, 20, (1, 5)), 0.1, PAD)
    result.smoothed.backward()
    assert result.smoothed.dtype == torch.float32
    assert states.grad is not None
    assert weight.grad is not None
    assert (states.grad.dtype, weight.grad.dtype) == (torch.bfloat16, torch.float32)
