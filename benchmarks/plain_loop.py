"""The training loop that a tutorial would write, to compare with: torch.nn.Transformer, autocast, Adam, cross-entropy.

Knows: how our weights lie in torch.nn.Transformer, so that both begin as the same network. Does not know: ours.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.data import Batch
from model.transformer import DecoderLayer, EncoderLayer, MultiHeadAttention, Transformer


class PlainModel(nn.Module):
    """torch.nn.Transformer with tied embeddings and sinusoids, holding the weights of ``ours``.

    Args:
        ours: pre-norm or post-norm with tied embeddings, relu and no output bias.
        pad: id of the padding token.
    """

    def __init__(self, ours: Transformer, pad: int) -> None:
        super().__init__()
        config = ours.config
        self.pad = pad
        self.embedding = nn.Embedding(config.vocab_size, config.model_width)
        self.register_buffer("positions", ours.positions)
        self.network = nn.Transformer(
            config.model_width,
            config.num_heads,
            config.num_encoder_layers,
            config.num_decoder_layers,
            config.feed_forward_width,
            config.dropout,
            batch_first=True,
            norm_first=config.norm == "pre",
        )
        self.take(ours)

    @torch.no_grad()
    def take(self, ours: Transformer) -> None:
        self.embedding.weight.copy_(ours.target_embedding.weight)
        encoder, decoder = self.network.encoder, self.network.decoder
        for theirs, layer in zip(encoder.layers, ours.encoder, strict=True):
            take_layer(cast(nn.TransformerEncoderLayer, theirs), cast(EncoderLayer, layer))
        for theirs, layer in zip(decoder.layers, ours.decoder, strict=True):
            take_layer(cast(nn.TransformerDecoderLayer, theirs), cast(DecoderLayer, layer))
        for stack, norm in ((encoder, ours.encoder_norm), (decoder, ours.decoder_norm)):
            if isinstance(norm, nn.LayerNorm) and stack.norm is not None:
                stack.norm.load_state_dict(norm.state_dict())
            else:
                stack.norm = None  # post-norm has no normalisation after its last layer

    def embed(self, ids: Tensor) -> Tensor:
        positions = self.get_buffer("positions")
        return self.embedding(ids) * self.embedding.embedding_dim**0.5 + positions[: ids.shape[1]]

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits (B, T, V)."""
        causal = nn.Transformer.generate_square_subsequent_mask(target.shape[1]).isinf()
        padding = source == self.pad
        states = self.network(
            self.embed(source),
            self.embed(target),
            tgt_mask=causal,
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
            tgt_is_causal=True,
        )
        return functional.linear(states, self.embedding.weight)


def take_layer(
    theirs: nn.TransformerEncoderLayer | nn.TransformerDecoderLayer, layer: EncoderLayer | DecoderLayer
) -> None:
    take_attention(theirs.self_attn, layer.self_attention)
    norms = [layer.self_attention_residual.norm, layer.feed_forward_residual.norm]
    if isinstance(theirs, nn.TransformerDecoderLayer) and isinstance(layer, DecoderLayer):
        take_attention(theirs.multihead_attn, layer.cross_attention)
        norms.insert(1, layer.cross_attention_residual.norm)
        theirs.norm3.load_state_dict(norms[2].state_dict())
    theirs.norm1.load_state_dict(norms[0].state_dict())
    theirs.norm2.load_state_dict(norms[1].state_dict())
    theirs.linear1.load_state_dict(layer.feed_forward.inner.state_dict())
    theirs.linear2.load_state_dict(layer.feed_forward.outer.state_dict())


def take_attention(theirs: nn.MultiheadAttention, ours: MultiHeadAttention) -> None:
    """torch.nn.MultiheadAttention keeps the three projections in one matrix."""
    theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
    theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
    theirs.out_proj.load_state_dict(ours.output.state_dict())


class PlainLoop:
    """One step after the other; ``step`` returns the mean smoothed loss of the batch."""

    def __init__(self, ours: Transformer, pad: int, smoothing: float, precision: str = "bf16") -> None:
        self.model, self.pad, self.smoothing = PlainModel(ours, pad), pad, smoothing
        self.enabled = precision == "bf16"
        self.optimizer = torch.optim.Adam(self.model.parameters(), betas=(0.9, 0.98), eps=1e-9)

    def step(self, batch: Batch, rate: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.enabled):
            logits = self.model(batch.source, batch.target_in)
        loss = functional.cross_entropy(
            logits.float().flatten(0, 1),
            batch.target_out.flatten(),
            ignore_index=self.pad,
            label_smoothing=self.smoothing,
        )
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return float(loss.detach())
