"""The keys, and the kinds of values, of configurations as the published checkpoints have them: all are understood.

Sizes are made small where weights would be needed; here nothing but the two configuration files is read.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from export.huggingface.config import read_config
from export.huggingface.folder import HuggingFaceFolder
from export.huggingface.generation import Generation, read_generation

Values = dict[str, Any]
DROPOUTS: Values = {"dropout": 0.1, "attention_dropout": 0.0, "activation_dropout": 0.0}
SEQUENCE: Values = {"is_encoder_decoder": True, "use_cache": True, "init_std": 0.02, "num_hidden_layers": 6}
OLD_MARIAN: Values = {
    **{"_num_labels": 3, "add_bias_logits": False, "add_final_layer_norm": False, "classif_dropout": 0.0},
    **{"classifier_dropout": 0.0, "gradient_checkpointing": False, "normalize_before": False},
    **{"normalize_embedding": False, "static_position_embeddings": True, "bos_token_id": 0},
    **{"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}, "_name_or_path": "/tmp/x", "extra_pos_embeddings": 0},
    **{"force_bos_token_to_be_generated": False, "output_past": False, "torch_dtype": "float16"},
}


def layers(width: int, heads: int, inner: int, count: int, drop: float = 0.0) -> Values:
    sides = ("encoder", "decoder")
    values: Values = {f"{side}_{key}": value for side in sides for key, value in (
        ("layers", count), ("attention_heads", heads), ("ffn_dim", inner), ("layerdrop", drop))}  # fmt: skip
    return values | {"d_model": width}


def marian(size: int, end: int, beams: int, width: int, heads: int, activation: str) -> tuple[Values, Values]:
    ids: Values = {"pad_token_id": size - 1, "eos_token_id": end, "decoder_start_token_id": size - 1, "bos_token_id": 0}
    search: Values = {"bad_words_ids": [[size - 1]], "forced_eos_token_id": end, "max_length": 512, "num_beams": beams}
    config = OLD_MARIAN | DROPOUTS | SEQUENCE | layers(width, heads, 4 * width, 6) | ids | search
    config |= {"model_type": "marian", "architectures": ["MarianMTModel"], "activation_function": activation}
    config |= {"vocab_size": size, "decoder_vocab_size": size, "scale_embedding": True, "tokenizer_class": None}
    config |= {"share_encoder_decoder_embeddings": True, "max_position_embeddings": 512, "transformers_version": "4.22"}
    return config, ids | search | {"renormalize_logits": True, "transformers_version": "4.32.0", "bos_token_id": 0}


def m2m100(size: int, drop: float, config: Values, generation: Values) -> tuple[Values, Values]:
    ids: Values = {"pad_token_id": 1, "eos_token_id": 2, "bos_token_id": 0, "decoder_start_token_id": 2}
    values = DROPOUTS | SEQUENCE | layers(1024, 16, 4096, 12, drop) | ids | {"vocab_size": size, "max_length": 200}
    values |= {"model_type": "m2m_100", "architectures": ["M2M100ForConditionalGeneration"], "scale_embedding": True}
    values |= {"activation_function": "relu", "max_position_embeddings": 1024, "num_hidden_layers": 12}
    return values | config, ids | {"_from_model_config": True, "max_length": 200} | generation


PUBLISHED = {
    "opus-mt-en-de": marian(58101, 0, 6, 512, 8, "swish"),
    "opus-mt-en-ROMANCE": marian(65001, 0, 4, 512, 8, "swish"),
    "opus-mt-tc-big-en-fr": marian(53017, 43311, 4, 1024, 16, "relu"),
    "m2m100_418M": m2m100(
        128112, 0.05, {"early_stopping": True, "num_beams": 5, "gradient_checkpointing": False},
        {"early_stopping": True, "num_beams": 5},
    ),
    "nllb-200-distilled-600M": m2m100(
        256206, 0, {"tokenizer_class": "NllbTokenizer", "torch_dtype": "float32"}, {"transformers_version": "4.27"}
    ),
}  # fmt: skip


def read(folder: Path, config: Values, generation: Values | None) -> Generation:
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").unlink(missing_ok=True)
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    files = HuggingFaceFolder(folder)
    read_in = read_config(files)
    assert read_in.model.vocab_size == config["vocab_size"]
    return read_generation(files, read_in.values, (read_in.pad, read_in.end, read_in.start))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations_are_understood(name: str, tmp_path: Path) -> None:
    config, generation = PUBLISHED[name]
    with_file, without = read(tmp_path, config, generation), read(tmp_path, config, None)
    is_marian = config["model_type"] == "marian"
    assert with_file.start == without.start == config["decoder_start_token_id"]
    assert with_file.decoding.max_length == without.decoding.max_length == config["max_length"] - 1
    assert with_file.decoding.force_end == without.decoding.force_end == is_marian
    assert with_file.impossible == ((config["pad_token_id"],) if is_marian else ())
    # Without the second file nothing says that what a bad word gives up goes to the others.
    assert without.decoding.banned == with_file.impossible
    assert with_file.decoding.stop_at_beams == generation.get("early_stopping", False)
    assert with_file.num_beams == generation.get("num_beams", 1)
