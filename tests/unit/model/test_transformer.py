"""The network against the paper's formulas, written out by hand in NumPy."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.config import ModelConfig
from model.transformer import (
    MultiHeadAttention,
    Transformer,
    scaled_dot_product_attention,
    sinusoidal_positions,
)

Array = NDArray[np.float64]


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def as_array(tensor: Tensor) -> Array:
    return tensor.detach().double().numpy()


def attention_by_hand(module: MultiHeadAttention, x: Array, memory: Array, mask: Array | None) -> Array:
    """Section 3.2.2 for one sentence, head by head: (T, M), (S, M) -> (T, M)."""

    def linear(name: str, values: Array) -> Array:
        layer = module.get_submodule(name)
        return values @ as_array(layer.weight).T + as_array(layer.bias)

    query, key, value = linear("query", x), linear("key", memory), linear("value", memory)
    width = query.shape[1] // module.num_heads
    heads = []
    for head in range(module.num_heads):
        columns = slice(head * width, (head + 1) * width)
        scores = query[:, columns] @ key[:, columns].T / math.sqrt(width)
        heads.append(softmax(scores if mask is None else scores + mask) @ value[:, columns])
    return linear("output", np.concatenate(heads, axis=1))


@pytest.fixture
def config(tiny_model_config: ModelConfig) -> ModelConfig:
    return dataclasses.replace(tiny_model_config, num_encoder_layers=2, num_decoder_layers=2, model_width=16)


@pytest.fixture
def model(config: ModelConfig) -> Transformer:
    return Transformer(config).eval()


class TestAttention:
    def test_equals_the_formula(self) -> None:
        module = MultiHeadAttention(12, 3)
        x, memory = torch.randn(1, 4, 12), torch.randn(1, 6, 12)
        by_hand = attention_by_hand(module, as_array(x)[0], as_array(memory)[0], None)
        np.testing.assert_allclose(as_array(module(x, memory, None))[0], by_hand, atol=1e-6)

    def test_mask_hides_keys(self) -> None:
        module = MultiHeadAttention(12, 3)
        x = torch.randn(1, 5, 12)
        mask = torch.full((5, 5), -math.inf).triu(1)
        by_hand = attention_by_hand(module, as_array(x)[0], as_array(x)[0], as_array(mask))
        np.testing.assert_allclose(as_array(module(x, x, mask[None, None]))[0], by_hand, atol=1e-6)

    @pytest.mark.parametrize("masked", [False, True])
    def test_fused_and_plain_agree(self, masked: bool) -> None:
        query, key, value = (torch.randn(2, 3, 4, 8) for _ in range(3))
        mask = torch.zeros(2, 1, 1, 4) if masked else None
        if mask is not None:
            mask[1, :, :, 2:] = -math.inf
        fused = scaled_dot_product_attention(query, key, value, mask)
        plain = scaled_dot_product_attention(query.requires_grad_(), key, value, mask)
        torch.testing.assert_close(plain, fused)


class TestPositions:
    def test_paper_formula(self) -> None:
        """PE(p, 2i) = sin(p / 10000 ** (2i / M)), PE(p, 2i + 1) = cos of the same; sines first, then cosines, here."""
        table = sinusoidal_positions(50, 16, "paper")
        for position in (0, 1, 17, 49):
            for i in range(8):
                angle = position / 10000 ** (2 * i / 16)
                assert float(table[position, i]) == pytest.approx(math.sin(angle), abs=1e-6)
                assert float(table[position, 8 + i]) == pytest.approx(math.cos(angle), abs=1e-6)

    def test_tensor2tensor_formula_ends_at_one_ten_thousandth(self) -> None:
        table = sinusoidal_positions(50, 16, "tensor2tensor")
        assert float(table[49, 7]) == pytest.approx(math.sin(49 / 10000), abs=1e-6)
        assert float(table[49, 0]) == pytest.approx(math.sin(49), abs=1e-6)

    def test_first_position(self) -> None:
        torch.testing.assert_close(sinusoidal_positions(5, 8, first=2), sinusoidal_positions(7, 8)[2:])

    def test_unknown_formula(self) -> None:
        with pytest.raises(ValueError, match="'paper' or 'tensor2tensor', not 'other'"):
            sinusoidal_positions(5, 8, "other")


class TestMasks:
    def test_later_target_tokens_do_not_reach_earlier_logits(self, model: Transformer) -> None:
        source, lengths = torch.randint(4, 300, (1, 7)), torch.tensor([7])
        target = torch.randint(4, 300, (1, 9))
        changed = target.clone()
        changed[0, 5:] = torch.randint(4, 300, (4,))
        before, after = model(source, lengths, target), model(source, lengths, changed)
        torch.testing.assert_close(after[:, :5], before[:, :5])
        assert not torch.allclose(after[:, 5:], before[:, 5:])

    def test_padding_changes_nothing(self, model: Transformer) -> None:
        short, long = torch.randint(4, 300, (1, 4)), torch.randint(4, 300, (1, 9))
        target = torch.randint(4, 300, (1, 5))
        alone = model(short, torch.tensor([4]), target)
        padded = torch.cat([torch.cat([short, torch.randint(0, 300, (1, 5))], dim=1), long])
        together = model(padded, torch.tensor([4, 9]), torch.cat([target, target]))
        torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=1e-5)

    def test_every_source_token_counts(self, model: Transformer) -> None:
        source, lengths, target = torch.randint(4, 300, (1, 6)), torch.tensor([6]), torch.randint(4, 300, (1, 3))
        before = model(source, lengths, target)
        for place in range(6):
            changed = source.clone()
            changed[0, place] = (changed[0, place] + 1) % 300
            assert not torch.allclose(model(changed, lengths, target), before)

    def test_too_long_a_text_is_refused(self, model: Transformer) -> None:
        with pytest.raises(ValueError, match=r"129 tokens exceed max_positions \(128\)"):
            model.encode(torch.ones(1, 129, dtype=torch.long), torch.tensor([129]))


class TestShape:
    def layer_norm(self, x: Array, epsilon: float) -> Array:
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)

    @pytest.mark.parametrize("norm", ["pre", "post"])
    def test_encoder_layer_by_hand(self, config: ModelConfig, norm: str) -> None:
        model = Transformer(dataclasses.replace(config, norm=norm, num_encoder_layers=1)).eval()
        layer = model.encoder[0]
        source = torch.randint(4, 300, (1, 5))
        x = as_array(model.source_embedding(source))[0] * 4.0 + as_array(model.positions[:5])

        def feed_forward(values: Array) -> Array:
            inner, outer = layer.feed_forward.inner, layer.feed_forward.outer
            hidden = np.maximum(values @ as_array(inner.weight).T + as_array(inner.bias), 0)
            return hidden @ as_array(outer.weight).T + as_array(outer.bias)

        normed = self.layer_norm(x, 1e-5)
        if norm == "pre":
            x = x + attention_by_hand(layer.self_attention, normed, normed, None)
            x = x + feed_forward(self.layer_norm(x, 1e-5))
            x = self.layer_norm(x, 1e-5)  # the one that ends the stack
        else:
            x = self.layer_norm(x + attention_by_hand(layer.self_attention, x, x, None), 1e-5)
            x = self.layer_norm(x + feed_forward(x), 1e-5)
        np.testing.assert_allclose(as_array(model.encode(source, torch.tensor([5])))[0], x, atol=1e-5)

    def test_tied_embeddings_are_one_matrix(self, config: ModelConfig) -> None:
        tied = Transformer(config)
        assert tied.target_embedding is tied.source_embedding
        untied = Transformer(dataclasses.replace(config, tie_embeddings=False))
        more = sum(p.numel() for p in untied.parameters()) - sum(p.numel() for p in tied.parameters())
        assert more == config.vocab_size * config.model_width

    def test_output_bias_is_added(self, config: ModelConfig) -> None:
        model = Transformer(dataclasses.replace(config, output_bias=True)).eval()
        states = torch.randn(3, config.model_width)
        before = model.project(states)
        assert model.output_bias is not None
        with torch.no_grad():
            model.output_bias += torch.arange(config.vocab_size)
        torch.testing.assert_close(
            model.project(states) - before, torch.arange(config.vocab_size).float().expand(3, -1)
        )

    @pytest.mark.parametrize("activation", ["relu", "gelu", "silu"])
    def test_activations(self, config: ModelConfig, activation: str) -> None:
        model = Transformer(dataclasses.replace(config, activation=activation))
        expected = {"relu": 0.0, "gelu": -0.1587, "silu": -0.2689}[activation]
        value = model.encoder[0].feed_forward.activation(torch.tensor(-1.0))
        assert float(value) == pytest.approx(expected, abs=1e-4)

    def test_shipped_recipe_has_eleven_million_parameters(self) -> None:
        config = ModelConfig(vocab_size=8000, model_width=256, feed_forward_width=1536, num_decoder_layers=2)
        assert sum(p.numel() for p in Transformer(config).parameters()) == pytest.approx(11e6, rel=0.05)
