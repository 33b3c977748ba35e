"""A checkpoint's tensors as the weights of our model.

Knows: their names and ours, and which shapes must match. Does not know: files.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from export.huggingface.config import ImportedConfig
from export.huggingface.folder import ImportRefused
from export.transformers_layout import PARAMETERS, layer_names
from model.config import ModelConfig
from model.transformer import Transformer, sinusoidal_positions

SHARED, BIAS, OUTPUT = "model.shared.weight", "final_logits_bias", "lm_head.weight"
EMBEDDINGS = {side: f"model.{side}.embed_tokens.weight" for side in ("encoder", "decoder")}
POSITIONS = tuple(f"model.{side}.embed_positions.weight" for side in ("encoder", "decoder"))
# Tables that M2M-100 computes anyway; old versions of Transformers stored them.
COMPUTED = {
    f"model.{side}.embed_positions.{name}" for side in ("encoder", "decoder") for name in ("weights", "_float_tensor")
}


class Taken:
    """A checkpoint's tensors, taken one after the other; what is left at the end was never understood."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.left = dict(tensors)

    def take(self, name: str, shape: Sequence[int]) -> Tensor:
        """Raises ImportRefused: it is missing, of another shape, or holds no finite numbers."""
        if name not in self.left:
            raise ImportRefused(f"the weights have no {name}")
        tensor = self.left.pop(name)
        if tuple(tensor.shape) != tuple(shape):
            raise ImportRefused(f"{name} has shape {tuple(tensor.shape)}; by config.json it must be {tuple(shape)}")
        if not tensor.is_floating_point():
            raise ImportRefused(f"{name} holds {tensor.dtype}; only floating-point weights can be read")
        tensor = tensor.float()
        if not bool(tensor.isfinite().all()):
            raise ImportRefused(f"{name} holds numbers that are not finite")
        return tensor

    def take_copies(self, names: Sequence[str], original: Tensor) -> None:
        """Takes what is only stored again; raises ImportRefused where it is something else."""
        for name in names:
            if name in self.left and not torch.equal(self.take(name, original.shape), original):
                raise ImportRefused(f"{name} is not the embedding that config.json says it shares")


def embeddings(taken: Taken, config: ModelConfig) -> dict[str, Tensor]:
    """Source and target embedding; the output matrix is the target's."""
    width = config.model_width
    if config.tie_embeddings:
        stored = next((name for name in (SHARED, *EMBEDDINGS.values(), OUTPUT) if name in taken.left), SHARED)
        source = target = taken.take(stored, (config.vocab_size, width))
        taken.take_copies((SHARED, *EMBEDDINGS.values()), source)
    else:
        source = taken.take(EMBEDDINGS["encoder"], (config.source_vocab_size, width))
        target = taken.take(EMBEDDINGS["decoder"], (config.vocab_size, width))
    taken.take_copies((OUTPUT,), target)
    return {"source_embedding.weight": source, "target_embedding.weight": target}


def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Of every parameter of our model."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in Transformer(config).state_dict().items()}


def layers(taken: Taken, config: ModelConfig) -> dict[str, Tensor]:
    names: dict[str, str] = {}
    for side, count in (("encoder", config.num_encoder_layers), ("decoder", config.num_decoder_layers)):
        for layer in range(count):
            names |= layer_names(side, layer)
        if config.norm == "pre":
            names[f"{side}_norm"] = f"model.{side}.layer_norm"
    wanted = shapes(config)
    parts = ((f"{ours}.{part}", f"{theirs}.{part}") for ours, theirs in names.items() for part in PARAMETERS)
    return {ours: taken.take(theirs, wanted[ours]) for ours, theirs in parts}


def positions(taken: Taken, config: ModelConfig) -> Tensor:
    """The position table: as stored, else computed as Transformers does."""
    shape = (config.max_positions, config.model_width)
    if config.position_formula != "paper":
        for name in COMPUTED & taken.left.keys():
            del taken.left[name]
        return float32_positions(config.max_positions, config.model_width, config.position_offset)
    stored = [taken.take(name, shape) for name in POSITIONS if name in taken.left]
    # Numbers up to 1 in bfloat16 are up to 0.002 off.
    computed = sinusoidal_positions(*shape, config.position_formula, config.position_offset)
    table = stored[0] if stored else computed
    if any(not torch.equal(table, other) for other in stored[1:]) or not torch.allclose(table, computed, atol=4e-3):
        raise ImportRefused(f"{POSITIONS[0]} and {POSITIONS[1]} must be the same fixed sinusoids")
    return table


def float32_positions(count: int, width: int, first: int) -> Tensor:
    """M2M-100's table with its own rounding: frequencies and angles in float32."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(10000) / (half - 1)))
    angles = torch.arange(first, first + count, dtype=torch.float32)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def read_model(tensors: Mapping[str, Tensor], config: ImportedConfig, impossible: Sequence[int]) -> Transformer:
    """Our model with these weights, in evaluation mode.

    Args:
        impossible: token ids that get no probability at all.

    Raises:
        ImportRefused: a tensor is missing, of another shape, left over, or not finite.
    """
    taken, shape = Taken(tensors), config.model
    state = layers(taken, shape) | embeddings(taken, shape)
    bias = taken.take(BIAS, (1, shape.vocab_size))[0].clone() if BIAS in taken.left else torch.zeros(shape.vocab_size)
    bias[list(impossible)] = -math.inf
    table = positions(taken, shape)
    if taken.left:
        raise ImportRefused(f"the weights hold {min(taken.left)}, which is no part of such a model")
    has_bias = bool(bias.any())
    with torch.device("meta"):
        model = Transformer(replace(shape, output_bias=has_bias))
    model.load_state_dict(state | ({"output_bias": bias} if has_bias else {}), assign=True)
    model.positions = table
    return model.requires_grad_(False).eval()
