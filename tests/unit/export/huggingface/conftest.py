"""Folders in Hugging Face's layout, small and random, made without that library."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from export.transformers_layout import write_transformers
from service.runtime.tokenizer import Tokenizer
from tests.conftest import random_model

POST_NORM: dict[str, object] = {"norm": "post", "position_formula": "paper", "position_offset": 0}
PRE_NORM: dict[str, object] = {"output_bias": False}


def edit_json(path: Path, **changes: Any) -> None:
    """Sets keys; None as a string removes nothing, "__gone__" removes."""
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value != "__gone__"}))


@pytest.fixture
def make_folder(nonsense_tokenizer: Tokenizer, tmp_path: Path) -> Callable[..., Path]:
    """A Marian folder with two target languages, pad as start and as bad word; ``shape`` of the model."""

    def make(several: bool = True, **shape: object) -> Path:
        folder = tmp_path / "checkpoint"
        model = random_model(**(POST_NORM | shape))
        write_transformers(model, nonsense_tokenizer, ("eng", "fra"), folder)
        pad = nonsense_tokenizer.pad
        edit_json(folder / "config.json", decoder_start_token_id=pad)
        edit_json(
            folder / "generation_config.json",
            **{"decoder_start_token_id": pad, "bad_words_ids": [[pad]], "forced_eos_token_id": nonsense_tokenizer.end},
            **{"num_beams": 6, "max_length": 41, "renormalize_logits": True},
        )
        if several:
            ids = json.loads((folder / "vocab.json").read_text())
            replaced = [piece for piece, i in ids.items() if i >= len(ids) - 2]
            renamed = {
                {replaced[0]: ">>fra<<", replaced[1]: ">>deu<<"}.get(piece, piece): i for piece, i in ids.items()
            }
            (folder / "vocab.json").write_text(json.dumps(renamed))
        return folder

    return make


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(1)
