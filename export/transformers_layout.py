"""A checkpoint as a folder that Hugging Face Transformers loads.

Knows: which of our shapes are a class of Transformers, and what its weights and options are called there.
Does not know: how that library computes. It is not needed to write the folder.

Two of its classes fit:

- ``M2M100ForConditionalGeneration``: pre-norm, tied embeddings, tensor2tensor positions from pad + 1 on, no output
  bias. The models that this project trains.
- ``MarianMTModel``: post-norm, the paper's positions from 0 on. OPUS-MT.

The tokenizer is written as a ``MarianTokenizer`` for both: one SentencePiece model, an end token behind every source.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from export.write_bundle import ExportError, is_empty_folder, whole_or_nothing
from model.config import ModelConfig
from model.transformer import Transformer
from service.runtime.tokenizer import Tokenizer

M2M100, MARIAN = "M2M100ForConditionalGeneration", "MarianMTModel"
MODEL_TYPES = {M2M100: "m2m_100", MARIAN: "marian"}
NORM_EPSILON = 1e-5  # neither class has an option for it
DEFAULT_MAX_LENGTH = 384  # tokens of a translation, the start token counted, where the caller of generate names none
WEIGHTS = "model.safetensors"
METADATA = {"format": "pt", "writer": "dragoman export-transformers"}
PARAMETERS = ("weight", "bias")
# Our names -> theirs, of what stands in a layer.
ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}
PARTS = {"self_attention": "self_attn", "cross_attention": "encoder_attn"}
FEED_FORWARD = {"feed_forward.inner": "fc1", "feed_forward.outer": "fc2"}
NORMS = {
    "self_attention_residual.norm": "self_attn_layer_norm",
    "cross_attention_residual.norm": "encoder_attn_layer_norm",
    "feed_forward_residual.norm": "final_layer_norm",
}


def architecture_of(config: ModelConfig, pad: int) -> str:
    """The class of Transformers that computes what a model of this shape computes.

    Raises:
        ExportError: there is none; the message names the option.
    """
    name = M2M100 if config.norm == "pre" else MARIAN
    fits: dict[str, object] = {"norm_epsilon": NORM_EPSILON}
    if name == M2M100:
        fits |= {
            "position_formula": "tensor2tensor",
            "position_offset": pad + 1,
            "tie_embeddings": True,
            "output_bias": False,
        }
    else:
        fits |= {"position_formula": "paper", "position_offset": 0}
    for option, needed in fits.items():
        value = getattr(config, option)
        if value != needed:
            raise ExportError(
                f"model.{option} ({value}) must be {needed} for {name}, the class of Transformers for "
                f"{config.norm}-norm models; there is no other"
            )
    return name


def config_json(config: ModelConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """The content of config.json. Raises ExportError where the shape fits no class."""
    name = architecture_of(config, tokenizer.pad)
    values: dict[str, Any] = {
        "architectures": [name],
        "model_type": MODEL_TYPES[name],
        "is_encoder_decoder": True,
        "vocab_size": config.vocab_size,
        "d_model": config.model_width,
        "scale_embedding": config.scale_embeddings,
        "activation_function": config.activation,
        "max_position_embeddings": config.max_positions,
        "tie_word_embeddings": True,
        "pad_token_id": tokenizer.pad,
        "eos_token_id": tokenizer.end,
        "bos_token_id": None,
        "decoder_start_token_id": tokenizer.start,
        "forced_eos_token_id": None,
        "torch_dtype": "float32",
    }
    for option in ("dropout", "attention_dropout", "activation_dropout"):
        values[option] = config.dropout if option == "dropout" else 0.0
    for side in ("encoder", "decoder"):
        values[f"{side}_layers"] = getattr(config, f"num_{side}_layers")
        values[f"{side}_attention_heads"] = config.num_heads
        values[f"{side}_ffn_dim"] = config.feed_forward_width
        values[f"{side}_layerdrop"] = 0.0
    if name == MARIAN:
        values |= {"decoder_vocab_size": config.vocab_size, "share_encoder_decoder_embeddings": config.tie_embeddings}
    return values


def generation_json(config: ModelConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """How ``generate`` searches by default: as reference_decode.py does, four beams, no token forced."""
    return {
        "num_beams": 4,
        "length_penalty": 1.0,
        "early_stopping": False,
        "max_length": min(DEFAULT_MAX_LENGTH, config.max_positions),
        "pad_token_id": tokenizer.pad,
        "eos_token_id": tokenizer.end,
        "decoder_start_token_id": tokenizer.start,
    }


def layer_names(side: str, layer: int) -> dict[str, str]:
    """Our parameter stems of one layer -> theirs."""
    ours, theirs = f"{side}.{layer}", f"model.{side}.layers.{layer}"
    kinds = PARTS if side == "decoder" else {"self_attention": PARTS["self_attention"]}
    names = {f"{kind}.{a}": f"{other}.{b}" for kind, other in kinds.items() for a, b in ATTENTION.items()}
    norms = {a: b for a, b in NORMS.items() if side == "decoder" or not a.startswith("cross")}
    return {f"{ours}.{a}": f"{theirs}.{b}" for a, b in (names | FEED_FORWARD | norms).items()}


def weights(model: Transformer, architecture: str) -> dict[str, Tensor]:
    """The tensors of model.safetensors by their names there."""
    config, state = model.config, model.state_dict()
    names: dict[str, str] = {}
    for side, count in (("encoder", config.num_encoder_layers), ("decoder", config.num_decoder_layers)):
        for layer in range(count):
            names |= layer_names(side, layer)
        if config.norm == "pre":
            names[f"{side}_norm"] = f"model.{side}.layer_norm"
    stored = {f"{theirs}.{part}": state[f"{ours}.{part}"] for ours, theirs in names.items() for part in PARAMETERS}
    if config.tie_embeddings:
        stored["model.shared.weight"] = state["source_embedding.weight"]
    else:
        stored["model.encoder.embed_tokens.weight"] = state["source_embedding.weight"]
        stored["model.decoder.embed_tokens.weight"] = state["target_embedding.weight"]
        stored["lm_head.weight"] = state["target_embedding.weight"].clone()
    if architecture == MARIAN:
        bias = state.get("output_bias", torch.zeros(config.vocab_size))
        stored["final_logits_bias"] = bias[None]
        for side in ("encoder", "decoder"):
            stored[f"model.{side}.embed_positions.weight"] = model.positions.clone()
    return {name: tensor.detach().float().contiguous() for name, tensor in stored.items()}


def pieces(tokenizer: Tokenizer) -> dict[str, int]:
    """Every piece of the vocabulary and its id."""
    return {tokenizer.processor.id_to_piece(i): i for i in range(tokenizer.vocab_size)}


def write_tokenizer(folder: Path, tokenizer: Tokenizer, languages: tuple[str, str], max_length: int) -> None:
    names = {kind: tokenizer.processor.id_to_piece(getattr(tokenizer, kind)) for kind in ("pad", "end", "unknown")}
    for name in ("source.spm", "target.spm"):
        (folder / name).write_bytes(tokenizer.model)
    write_json(folder / "vocab.json", pieces(tokenizer))
    settings = {
        "tokenizer_class": "MarianTokenizer",
        "source_lang": languages[0],
        "target_lang": languages[1],
        "model_max_length": max_length,
        "pad_token": names["pad"],
        "eos_token": names["end"],
        "unk_token": names["unknown"],
    }
    write_json(folder / "tokenizer_config.json", settings)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def is_own(folder: Path) -> bool:
    """Whether this program wrote the folder: a downloaded checkpoint has files of the same names."""
    try:
        with safe_open(folder / WEIGHTS, "pt") as file:
            return (file.metadata() or {}).get("writer") == METADATA["writer"]
    except (OSError, SafetensorError):
        return False


def write_transformers(model: Transformer, tokenizer: Tokenizer, languages: tuple[str, str], folder: Path) -> None:
    """Writes the folder; it appears whole or stays as it was.

    Args:
        languages: BCP-47 codes of source and target.

    Raises:
        ExportError: no class of Transformers has this shape, or ``folder`` is something else than such a folder.
    """
    config = config_json(model.config, tokenizer)
    if folder.exists() and not is_empty_folder(folder) and not is_own(folder):
        raise ExportError(f"{folder} exists and was not written by this command; choose another place or remove it")
    with whole_or_nothing(folder) as partial:
        write_json(partial / "config.json", config)
        write_json(partial / "generation_config.json", generation_json(model.config, tokenizer))
        tensors = weights(model, config["architectures"][0])
        save_file(tensors, partial / WEIGHTS, metadata=METADATA)
        write_tokenizer(partial, tokenizer, languages, model.config.max_positions)
