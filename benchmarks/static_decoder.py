"""The model in plain PyTorch with a cache of fixed size: what a careful user without an engine would write.

Knows: the modules of model/transformer.py. Does not know: clocks, text. Dimension key: model/transformer.py; R = B * K.
"""

import torch
from torch import Tensor
from torch.nn import functional

from model.transformer import DecoderLayer, Transformer


class StaticDecoder:
    """Greedy or beam search of a batch for a fixed number of tokens; nothing ends early.

    Attributes:
        caches: (R, H, num_tokens, D) keys and values of each layer. positions: as in the model, in its precision.
    """

    def __init__(self, model: Transformer, num_beams: int, num_tokens: int) -> None:
        self.model, self.num_beams, self.num_tokens = model, num_beams, num_tokens
        weight = model.target_embedding.weight
        self.device, self.dtype = weight.device, weight.dtype

    @torch.inference_mode()
    def decode(self, source: Tensor, start: int) -> Tensor:
        """(B, S) ids without padding -> (B, num_tokens) ids of the best hypotheses."""
        batch, length = source.shape
        lengths = torch.full((batch,), length, device=self.device)
        memory = self.model.encode(source, lengths).repeat_interleave(self.num_beams, dim=0)  # (R, S, M)
        crossed = [self.keys_values(layer, memory) for layer in self.layers()]
        rows, heads = len(memory), self.model.config.num_heads
        shape = (rows, heads, self.num_tokens, self.model.config.model_width // heads)
        self.caches = [[torch.zeros(shape, device=self.device, dtype=self.dtype) for _ in "kv"] for _ in self.layers()]
        tokens = torch.full((rows,), start, device=self.device)
        totals = torch.full((batch, self.num_beams), -torch.inf, device=self.device)
        totals[:, 0] = 0.0  # at first all beams are the same
        found = torch.zeros((rows, self.num_tokens), dtype=torch.long, device=self.device)
        for position in range(self.num_tokens):
            scores = self.step(tokens, position, crossed).float().log_softmax(dim=-1)
            parents, tokens, totals = self.best(scores, totals)
            if self.num_beams > 1:
                found = found[parents]
                self.caches = [[cache[parents] for cache in pair] for pair in self.caches]
            found[:, position] = tokens
        return found[:: self.num_beams]

    def layers(self) -> list[DecoderLayer]:
        return [layer for layer in self.model.decoder if isinstance(layer, DecoderLayer)]

    @staticmethod
    def keys_values(layer: DecoderLayer, memory: Tensor) -> tuple[Tensor, Tensor]:
        attention = layer.cross_attention
        return attention.split_heads(attention.key(memory)), attention.split_heads(attention.value(memory))

    def best(self, scores: Tensor, totals: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (R, V), sums (B, K) -> parents (R,), tokens (R,), sums (B, K) of each sentence's best extensions."""
        batch, vocab_size = len(totals), scores.shape[-1]
        extended = (totals[:, :, None] + scores.view(batch, self.num_beams, vocab_size)).view(batch, -1)
        totals, places = extended.topk(self.num_beams, dim=-1)
        firsts = torch.arange(batch, device=self.device)[:, None] * self.num_beams
        return (firsts + places // vocab_size).view(-1), (places % vocab_size).view(-1), totals

    def step(self, tokens: Tensor, position: int, crossed: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Logits (R, V) after ``tokens`` (R,), which stand at ``position``."""
        model = self.model
        x = model.target_embedding(tokens[:, None])
        if model.config.scale_embeddings:
            x = x * model.config.model_width**0.5
        x = x + model.positions[position].to(x.dtype)
        for layer, cache, (cross_key, cross_value) in zip(self.layers(), self.caches, crossed, strict=True):
            attention, residual = layer.self_attention, layer.self_attention_residual
            normed = residual.enter(x)
            for buffer, projection in zip(cache, (attention.key, attention.value), strict=True):
                buffer[:, :, position] = attention.split_heads(projection(normed))[:, :, 0]
            key, value = (buffer[:, :, : position + 1] for buffer in cache)
            query = attention.split_heads(attention.query(normed))
            context = functional.scaled_dot_product_attention(query, key, value)
            x = residual.leave(x, attention.output(attention.join_heads(context)))
            attention, residual = layer.cross_attention, layer.cross_attention_residual
            query = attention.split_heads(attention.query(residual.enter(x)))
            context = functional.scaled_dot_product_attention(query, cross_key, cross_value)
            x = residual.leave(x, attention.output(attention.join_heads(context)))
            x = layer.feed_forward_residual.leave(x, layer.feed_forward(layer.feed_forward_residual.enter(x)))
        return model.project(model.decoder_norm(x)[:, 0])
