"""Values that no program writes, in any file of a folder: refused by name, never an exception of Python's own."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from export.huggingface.folder import ImportRefused
from export.huggingface.importer import read_checkpoint
from tests.unit.export.huggingface.conftest import edit_json

Make = Callable[..., Path]
CONFIG, GENERATION, SETTINGS = "config.json", "generation_config.json", "tokenizer_config.json"


@pytest.mark.parametrize(
    ("file", "key", "value", "message"),
    [
        (CONFIG, "model_type", [], r"model_type \(\[\]\)"),
        (CONFIG, "activation_function", {}, r"activation_function \(\{\}\)"),
        (CONFIG, "d_model", 10**30, r"d_model \(10{30}\) must be an integer in"),
        (CONFIG, "vocab_size", 10**30, r"vocab_size \(10{30}\) must be an integer in"),
        (CONFIG, "encoder_layers", 10**9, r"encoder_layers \(10{9}\) must be an integer in"),
        (GENERATION, "max_length", float("nan"), r"max_length \(nan\) must be a number >= 0"),
        (GENERATION, "max_new_tokens", float("inf"), r"max_new_tokens \(inf\) must be a number >= 0"),
        (GENERATION, "length_penalty", float("nan"), r"length_penalty \(nan\) must be a number >= 0"),
        (GENERATION, "num_beams", 2.5, r"num_beams \(2\.5\) must be an integer >= 0"),
        (GENERATION, "decoder_start_token_id", 1.5, r"decoder_start_token_id \(1\.5\) must be an integer >= 0"),
        (
            SETTINGS,
            "added_tokens_decoder",
            {"7": 5},
            r"tokenizer_config\.json: its added tokens are damaged: TypeError",
        ),
        (
            SETTINGS,
            "added_tokens_decoder",
            {"7": {}},
            r"tokenizer_config\.json: its added tokens are damaged: KeyError",
        ),
        (SETTINGS, "added_tokens_decoder", [7], r"tokenizer_config\.json: its added tokens are damaged"),
        (SETTINGS, "eos_token", {"lstrip": False}, r"tokenizer_config\.json: eos_token .* is no token"),
        ("tokenizer.json", "added_tokens", 7, r"tokenizer\.json: its added tokens are damaged"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(file: str, key: str, value: Any, message: str, make_folder: Make) -> None:
    folder = make_folder()
    (folder / "tokenizer.json").write_text("{}")
    edit_json(folder / file, **{key: value})
    with pytest.raises(ImportRefused, match=message):
        read_checkpoint(folder, [], [])


def test_no_added_tokens_are_none(make_folder: Make) -> None:
    folder = make_folder()
    (folder / "tokenizer.json").write_text('{"added_tokens": null}')
    edit_json(folder / SETTINGS, added_tokens_decoder=None)
    read_checkpoint(folder, [], [])


def test_json_that_nests_without_end_is_named(make_folder: Make) -> None:
    folder = make_folder()
    (folder / "vocab.json").write_text('{"a":' * 100_000)
    with pytest.raises(ImportRefused, match=r"vocab\.json is not JSON"):
        read_checkpoint(folder, [], [])


def test_a_shard_whose_name_no_file_can_have_is_named(make_folder: Make) -> None:
    folder = make_folder()
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "x" * 300}}))
    with pytest.raises(ImportRefused, match="x{300} is missing"):
        read_checkpoint(folder, [], [])
