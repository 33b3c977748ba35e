"""config.json of Marian and M2M-100: every key is used, must have one value, is known to be irrelevant, or is refused.

Knows: the keys and what our model has for them. Does not know: weights, tokenizers, how a translation is searched for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from export.huggingface.folder import HuggingFaceFolder, ImportRefused
from export.huggingface.generation import GENERATION_KEYS
from export.transformers_layout import M2M100, MARIAN
from model.config import ModelConfig
from service.runtime.folder_kind import hint

CONFIG = "config.json"
ARCHITECTURES = {"marian": MARIAN, "m2m_100": M2M100}
ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "gelu_python": "gelu", "silu": "silu", "swish": "silu"}
# What each class takes where the file says nothing.
DEFAULTS: dict[str, dict[str, Any]] = {
    "marian": {"activation_function": "gelu", "scale_embedding": False, "vocab_size": 58101, "eos_token_id": 0},
    "m2m_100": {"activation_function": "relu", "scale_embedding": True, "vocab_size": 128112, "eos_token_id": 2},
}
DEFAULTS["marian"] |= {"pad_token_id": 58100, "decoder_start_token_id": 58100}
DEFAULTS["m2m_100"] |= {"pad_token_id": 1, "decoder_start_token_id": 2}
SIZES = {"d_model": 1024, "max_position_embeddings": 1024, "encoder_layers": 12, "decoder_layers": 12}
SIZES |= {
    f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in (("attention_heads", 16), ("ffn_dim", 4096))
}
MOST, MOST_LAYERS = 1 << 22, 1000  # what no such model has; a damaged file shall not fill the memory
# Other names of the same, which Transformers reads after them.
ALIASES = {
    "hidden_size": "d_model",
    "num_hidden_layers": "encoder_layers",
    "num_attention_heads": "encoder_attention_heads",
}
USED = {"model_type", "architectures", *SIZES, *DEFAULTS["marian"], *ALIASES}
USED |= {"decoder_vocab_size", "share_encoder_decoder_embeddings", "tie_word_embeddings"}
# Anything else would be another model.
FIXED: dict[str, tuple[Any, ...]] = {
    "is_encoder_decoder": (True,),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "tie_encoder_decoder": (False,),
    "normalize_before": (False,),
    "normalize_embedding": (False,),
    "add_final_layer_norm": (False,),
    "add_bias_logits": (False,),
    "static_position_embeddings": (True,),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
    "prefix": (None, ""),
    "force_bos_token_to_be_generated": (False,),
}
FIXED_M2M100 = FIXED | {"normalize_before": (True, False), "add_final_layer_norm": (True, False)}
IRRELEVANT = {  # to a finished model that translates
    *("_name_or_path", "name_or_path", "transformers_version", "torch_dtype", "dtype", "use_bfloat16", "torchscript"),
    *("dropout", "attention_dropout", "activation_dropout", "classif_dropout", "classifier_dropout", "init_std"),
    *("encoder_layerdrop", "decoder_layerdrop", "gradient_checkpointing", "save_step", "use_cache", "output_past"),
    *("output_attentions", "output_hidden_states", "return_dict", "chunk_size_feed_forward", "tf_legacy_loss"),
    *("id2label", "label2id", "num_labels", "_num_labels", "problem_type", "finetuning_task", "tokenizer_class"),
    *("task_specific_params", "xla_device", "bos_token_id", "sep_token_id", "cls_token_id", "attn_implementation"),
    *("_attn_implementation_autoset", "max_source_positions", "max_target_positions", "extra_pos_embeddings"),
}


@dataclass(frozen=True, slots=True)
class ImportedConfig:
    """What config.json says.

    Attributes:
        kind: marian or m2m_100. pad, end, start: token ids. values: the file as it is.
    """

    kind: str
    model: ModelConfig
    pad: int
    end: int
    start: int
    values: Mapping[str, Any]


def check_keys(values: Mapping[str, Any], kind: str, where: str) -> None:
    fixed = FIXED_M2M100 if kind == "m2m_100" else FIXED
    for key, value in values.items():
        if key in fixed:
            if value not in fixed[key]:
                raise ImportRefused(
                    f"{where}: {key} ({value!r}) must be {fixed[key][0]!r}; nothing else is implemented"
                )
        elif key not in USED and key not in IRRELEVANT and key not in GENERATION_KEYS:
            raise ImportRefused(f"{where}: key {key!r} ({value!r}) is unknown: what it would change cannot be told")
    for alias, name in ALIASES.items():
        if alias in values and values[alias] != values.get(name, values[alias]):
            raise ImportRefused(f"{where}: {alias} ({values[alias]}) is not {name} ({values[name]})")


def kind_of(values: Mapping[str, Any], where: str) -> str:
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        raise ImportRefused(f"{where}: model_type ({kind!r}) must be one of {', '.join(ARCHITECTURES)}")
    architectures = values.get("architectures") or [ARCHITECTURES[kind]]
    if architectures != [ARCHITECTURES[kind]]:
        raise ImportRefused(f"{where}: architectures ({architectures}) must be {[ARCHITECTURES[kind]]}")
    return str(kind)


class Reader:
    """Takes keys, or their defaults, as what they must be."""

    def __init__(self, values: Mapping[str, Any], kind: str, where: str) -> None:
        aliases = {name: values[alias] for alias, name in ALIASES.items() if alias in values}
        self.values, self.where = SIZES | DEFAULTS[kind] | aliases | dict(values), where

    def integer(self, key: str, least: int, most: int = MOST) -> int:
        value = self.values[key]
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ImportRefused(f"{self.where}: {key} ({value!r}) must be an integer in [{least}, {most}]")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise ImportRefused(f"{self.where}: {key} ({value!r}) must be true or false")
        return value

    def same(self, first: str, second: str) -> int:
        value = self.integer(first, 1)
        if value != self.integer(second, 1):
            raise ImportRefused(f"{self.where}: {second} ({self.values[second]}) must be {first} ({value})")
        return value


def read_config(folder: HuggingFaceFolder) -> ImportedConfig:
    """Raises ImportRefused: a key has a value that cannot be honoured, or is unknown."""
    values, where = folder.json(CONFIG), str(folder.path / CONFIG)
    if "model_type" not in values:
        raise ImportRefused(f"{where} has no model_type{hint(folder.path, 'huggingface')}")
    kind = kind_of(values, where)
    check_keys(values, kind, where)
    reader = Reader(values, kind, where)
    activation = reader.values["activation_function"]
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise ImportRefused(f"{where}: activation_function ({activation!r}) must be one of {', '.join(ACTIVATIONS)}")
    pad, end, start = (reader.integer(f"{name}_token_id", 0) for name in ("pad", "eos", "decoder_start"))
    shared = reader.flag("share_encoder_decoder_embeddings", True) or kind == "m2m_100"
    if not reader.flag("tie_word_embeddings", True):
        raise ImportRefused(f"{where}: tie_word_embeddings (false): an output matrix of its own is not implemented")
    source_size = reader.integer("vocab_size", 1)
    target_size = reader.values.get("decoder_vocab_size") or source_size
    if not isinstance(target_size, int) or (shared and target_size != source_size):
        raise ImportRefused(f"{where}: decoder_vocab_size ({target_size}) must be vocab_size ({source_size}) if shared")
    for name, token in (("pad_token_id", pad), ("eos_token_id", end), ("decoder_start_token_id", start)):
        if token >= target_size:
            raise ImportRefused(f"{where}: {name} ({token}) must be below the vocabulary's size ({target_size})")
    if kind == "m2m_100" and start == pad:
        raise ImportRefused(f"{where}: decoder_start_token_id ({start}) is pad_token_id, which has no position here")
    try:
        model = model_config(reader, kind, ACTIVATIONS[activation], pad, (source_size, target_size), shared)
    except ValueError as error:
        if isinstance(error, ImportRefused):
            raise
        raise ImportRefused(f"{where}: {error}") from error
    return ImportedConfig(kind, model, pad, end, start, values)


def model_config(
    reader: Reader, kind: str, activation: str, pad: int, sizes: tuple[int, int], shared: bool
) -> ModelConfig:
    """``sizes``: source and target vocabulary."""
    is_marian = kind == "marian"
    return ModelConfig(
        vocab_size=sizes[1],
        source_vocab_size=0 if shared else sizes[0],
        model_width=reader.integer("d_model", 1),
        num_heads=reader.same("encoder_attention_heads", "decoder_attention_heads"),
        feed_forward_width=reader.same("encoder_ffn_dim", "decoder_ffn_dim"),
        num_encoder_layers=reader.integer("encoder_layers", 1, MOST_LAYERS),
        num_decoder_layers=reader.integer("decoder_layers", 1, MOST_LAYERS),
        activation=activation,
        norm="post" if is_marian else "pre",
        dropout=0.0,
        max_positions=reader.integer("max_position_embeddings", 2),
        position_formula="paper" if is_marian else "tensor2tensor",
        position_offset=0 if is_marian else pad + 1,
        scale_embeddings=reader.flag("scale_embedding", not is_marian),
        tie_embeddings=shared,
        output_bias=True,
    )
