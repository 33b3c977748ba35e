"""The Transformer of "Attention Is All You Need" (Vaswani et al. 2017, arXiv:1706.03762), in one file.

Knows: the network and its masks. Does not know: text, batching, the loss, how a translation is searched for.

Dimension key, used in every shape comment of the project:

    B sentences     K beams        S source tokens     T target tokens so far
    M model width   H heads        D head width (M / H)   F feed-forward width
    V vocabulary    L layers

Where this differs from the paper, and why:

- ``norm = "pre"`` normalises the input of each sub-layer instead of its output (Xiong et al. 2020,
  arXiv:2002.04745). It trains at higher rates without a long warm-up. ``"post"`` is the paper's.
- Sine and cosine stand in two halves of the position vector instead of in turn. This is a fixed permutation
  of the paper's columns, the layout that tensor2tensor, Marian and fairseq use, so their weights fit here.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.config import ModelConfig

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "silu": functional.silu,
}


def sinusoidal_positions(num_positions: int, width: int, formula: str = "tensor2tensor", first: int = 0) -> Tensor:
    """The fixed position table, shape (num_positions, width), float32; row i stands for position ``first + i``.

    PE(p) = [sin(p * w_0) ... sin(p * w_{n-1}), cos(p * w_0) ... cos(p * w_{n-1})] with n = width / 2 and

    - ``"paper"`` (equation in section 3.5): w_i = 10000 ** (-i / n)
    - ``"tensor2tensor"`` (the paper's published code): w_i = 10000 ** (-i / (n - 1))
    """
    half = width // 2
    if formula == "paper":
        exponents = torch.arange(half, dtype=torch.float64) / half
    elif formula == "tensor2tensor":
        exponents = torch.arange(half, dtype=torch.float64) / max(half - 1, 1)
    else:
        raise ValueError(f"position formula must be 'paper' or 'tensor2tensor', not {formula!r}")
    angles = torch.arange(first, first + num_positions, dtype=torch.float64)[:, None] * 10000.0**-exponents
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(Q K^T / sqrt(D)) V: equation 1 of the paper.

    Args:
        query: (B, H, T, D). key, value: (B, H, S, D).
        mask: float, added to the scores, broadcastable to (B, H, T, S): 0 where a query may look at a key,
            minus infinity where it may not. None: every query sees every key.

    Returns:
        (B, H, T, D)

    PyTorch's fused kernel does this everywhere but in CPU training, where its backward pass is several times slower
    than the three plain operations on the short sequences that translation has.
    """
    if query.device.type == "cpu" and query.requires_grad:
        scores = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(-2, -1))  # (B, H, T, S)
        if mask is not None:
            scores = scores + mask
        return torch.matmul(scores.softmax(dim=-1), value)
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)


class MultiHeadAttention(nn.Module):
    """H attentions side by side, each on its own D = M / H columns: section 3.2.2 of the paper."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def split_heads(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        return x.view(batch, length, self.num_heads, width // self.num_heads).transpose(1, 2)  # (B, H, T, D)

    def join_heads(self, x: Tensor) -> Tensor:
        batch, _, length, _ = x.shape
        return x.transpose(1, 2).reshape(batch, length, -1)  # (B, T, M)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        """Attends from ``x`` (B, T, M) to ``memory`` (B, S, M); self-attention is attention to ``x`` itself."""
        query = self.split_heads(self.query(x))
        key, value = self.split_heads(self.key(memory)), self.split_heads(self.value(memory))
        return self.output(self.join_heads(scaled_dot_product_attention(query, key, value, mask)))


class FeedForward(nn.Module):
    """Two matrix products with an activation between, at each position alike: section 3.3 of the paper."""

    def __init__(self, width: int, inner_width: int, activation: str) -> None:
        super().__init__()
        self.inner = nn.Linear(width, inner_width)
        self.outer = nn.Linear(inner_width, width)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.activation(self.inner(x)))


class Residual(nn.Module):
    """A residual connection with its layer normalisation, before (pre) or after (post) the sub-layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.model_width, eps=config.norm_epsilon)
        self.pre = config.norm == "pre"
        self.dropout = nn.Dropout(config.dropout)

    def enter(self, x: Tensor) -> Tensor:
        return self.norm(x) if self.pre else x

    def leave(self, x: Tensor, update: Tensor) -> Tensor:
        x = x + self.dropout(update)
        return x if self.pre else self.norm(x)


class EncoderLayer(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(config.model_width, config.num_heads)
        self.self_attention_residual = Residual(config)
        self.feed_forward = FeedForward(config.model_width, config.feed_forward_width, config.activation)
        self.feed_forward_residual = Residual(config)

    def forward(self, x: Tensor, padding_mask: Tensor | None) -> Tensor:
        residual = self.self_attention_residual
        normed = residual.enter(x)
        x = residual.leave(x, self.self_attention(normed, normed, padding_mask))
        residual = self.feed_forward_residual
        return residual.leave(x, self.feed_forward(residual.enter(x)))


class DecoderLayer(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(config.model_width, config.num_heads)
        self.self_attention_residual = Residual(config)
        self.cross_attention = MultiHeadAttention(config.model_width, config.num_heads)
        self.cross_attention_residual = Residual(config)
        self.feed_forward = FeedForward(config.model_width, config.feed_forward_width, config.activation)
        self.feed_forward_residual = Residual(config)

    def forward(self, x: Tensor, memory: Tensor, causal_mask: Tensor, padding_mask: Tensor | None) -> Tensor:
        residual = self.self_attention_residual
        normed = residual.enter(x)
        x = residual.leave(x, self.self_attention(normed, normed, causal_mask))
        residual = self.cross_attention_residual
        x = residual.leave(x, self.cross_attention(residual.enter(x), memory, padding_mask))
        residual = self.feed_forward_residual
        return residual.leave(x, self.feed_forward(residual.enter(x)))


class Transformer(nn.Module):
    """Encoder, decoder and the embeddings they share. ``encode`` and ``decode`` are what search needs."""

    positions: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.model_width
        self.source_embedding = nn.Embedding(config.source_vocab_size or config.vocab_size, width)
        self.target_embedding = (
            self.source_embedding if config.tie_embeddings else nn.Embedding(config.vocab_size, width)
        )
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_decoder_layers))
        # Pre-norm leaves the last sum of each stack un-normalised; one more layer normalisation ends it.
        pre = config.norm == "pre"
        self.encoder_norm = nn.LayerNorm(width, eps=config.norm_epsilon) if pre else nn.Identity()
        self.decoder_norm = nn.LayerNorm(width, eps=config.norm_epsilon) if pre else nn.Identity()
        self.output_bias = nn.Parameter(torch.zeros(config.vocab_size)) if config.output_bias else None
        self.dropout = nn.Dropout(config.dropout)
        table = sinusoidal_positions(config.max_positions, width, config.position_formula, config.position_offset)
        self.register_buffer("positions", table, persistent=False)
        self.initialise()

    def initialise(self) -> None:
        """Embeddings N(0, 1/M), so that tied logits start near unit scale; matrices Glorot uniform; biases zero."""
        for name, parameter in self.named_parameters():
            if "embedding" in name:
                nn.init.normal_(parameter, std=self.config.model_width**-0.5)
            elif parameter.dim() == 2:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def embed(self, embedding: nn.Embedding, tokens: Tensor) -> Tensor:
        """Token vectors times sqrt(M) plus positions, section 3.4: (B, T) ids -> (B, T, M)."""
        length = tokens.shape[1]
        if length > self.config.max_positions:
            raise ValueError(f"{length} tokens exceed max_positions ({self.config.max_positions})")
        x = embedding(tokens)
        if self.config.scale_embeddings:
            x = x * math.sqrt(self.config.model_width)
        x = self.dropout(x + self.positions[:length].to(x.dtype))
        # Under autocast the residual stream, too, is in the low precision: a fifth of a CPU training step otherwise.
        return x.to(torch.get_autocast_dtype(x.device.type)) if torch.is_autocast_enabled(x.device.type) else x

    def padding_mask(self, lengths: Tensor, size: int, dtype: torch.dtype) -> Tensor:
        """No query may look at a key past its sentence's length: (B, 1, 1, S), 0 or minus infinity."""
        beyond = torch.arange(size, device=lengths.device)[None, :] >= lengths[:, None]
        mask = torch.zeros(beyond.shape, dtype=dtype, device=lengths.device).masked_fill_(beyond, -math.inf)
        return mask[:, None, None, :]

    def causal_mask(self, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """No target position may look at a later one: (1, 1, T, T), 0 up to the diagonal, minus infinity above it."""
        return torch.full((size, size), -math.inf, dtype=dtype, device=device).triu(1)[None, None]

    def encode(self, source: Tensor, source_lengths: Tensor) -> Tensor:
        """(B, S) token ids, the end token included, and (B,) lengths -> encoder states (B, S, M)."""
        x = self.embed(self.source_embedding, source)
        mask = self.padding_mask(source_lengths, source.shape[1], x.dtype)
        for layer in self.encoder:
            x = layer(x, mask)
        return self.encoder_norm(x)

    def decode(self, target: Tensor, memory: Tensor, source_lengths: Tensor) -> Tensor:
        """(B, T) target ids from the start token on, and encoder states (B, S, M) -> decoder states (B, T, M)."""
        x = self.embed(self.target_embedding, target)
        causal = self.causal_mask(target.shape[1], x.dtype, x.device)
        padding = self.padding_mask(source_lengths, memory.shape[1], x.dtype)
        for layer in self.decoder:
            x = layer(x, memory, causal, padding)
        return self.decoder_norm(x)

    def project(self, states: Tensor) -> Tensor:
        """Decoder states (..., M) -> logits (..., V), by the target embedding's own matrix."""
        return functional.linear(states, self.target_embedding.weight, self.output_bias)

    def forward(self, source: Tensor, source_lengths: Tensor, target: Tensor) -> Tensor:
        """Logits (B, T, V) of the token after each target position."""
        return self.project(self.decode(target, self.encode(source, source_lengths), source_lengths))
