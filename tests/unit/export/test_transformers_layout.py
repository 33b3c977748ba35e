"""A checkpoint written for Hugging Face Transformers computes there what it computes here."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from export.transformers_layout import write_transformers
from export.write_bundle import ExportError
from model.reference_decode import beam_search, greedy_search
from model.transformer import Transformer
from service.cli import main
from service.runtime.tokenizer import Tokenizer
from tests.conftest import random_model, sentences

PRE_NORM: dict[str, object] = {"output_bias": False}
POST_NORM: dict[str, object] = {"norm": "post", "position_formula": "paper", "position_offset": 0}
MAX_LENGTH = 15  # a token less than the shortest loop that the reference stops at
TOLERANCE = 1e-4  # of the largest logit: M2M100 makes its position table in float32, we in float64
needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None,
    reason="compares with Hugging Face Transformers, which the extra 'peers' installs",
)


def loaded(folder: Path) -> Any:
    from transformers import AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM.from_pretrained(folder).eval()


@needs_transformers
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "changes",
    [
        PRE_NORM,
        PRE_NORM | {"activation": "silu", "num_encoder_layers": 3, "num_heads": 4, "scale_embeddings": False},
        POST_NORM,
        POST_NORM | {"activation": "gelu", "output_bias": False},
        POST_NORM | {"tie_embeddings": False, "num_decoder_layers": 1},
    ],
)
def test_transformers_computes_the_same(
    changes: dict[str, object], nonsense_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = random_model(**changes)
    write_transformers(model, nonsense_tokenizer, ("en", "fr"), tmp_path / "folder")
    peer = loaded(tmp_path / "folder")
    sources = [[*ids, nonsense_tokenizer.end] for ids in nonsense_tokenizer.encode(sentences(4))]
    check_logits(model, peer, nonsense_tokenizer, sources)
    check_searches(model, peer, nonsense_tokenizer, sources)


@torch.inference_mode()
def check_logits(model: Transformer, peer: Any, tokenizer: Tokenizer, sources: list[list[int]]) -> None:
    """A padded batch, and targets that begin with the start token."""
    lengths = torch.tensor([len(ids) for ids in sources])
    source = torch.full((len(sources), int(lengths.max())), tokenizer.pad)
    for row, ids in zip(source, sources, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    target = torch.cat([torch.full((len(sources), 1), tokenizer.start), source.flip(1)[:, :6].clamp(min=4)], dim=1)
    theirs = peer(input_ids=source, attention_mask=source != tokenizer.pad, decoder_input_ids=target).logits
    ours = model(source, lengths, target)
    assert float((theirs - ours).abs().max()) <= TOLERANCE * float(ours.abs().max())


def check_searches(model: Transformer, peer: Any, tokenizer: Tokenizer, sources: list[list[int]]) -> None:
    start, end = tokenizer.start, tokenizer.end
    for source in sources:
        for beams in (1, 4):
            if beams == 1:
                right = greedy_search(model, source, start, end, MAX_LENGTH).ids
            else:
                right = beam_search(model, source, start, end, MAX_LENGTH, beams)[0].ids
            found = peer.generate(torch.tensor([source]), num_beams=beams, max_new_tokens=MAX_LENGTH)[0].tolist()
            assert found[0] == start
            assert [token for token in found[1:] if token != tokenizer.pad] == right


@needs_transformers
@pytest.mark.filterwarnings("default")
def test_its_tokenizer_gives_our_ids(nonsense_tokenizer: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    write_transformers(random_model(**PRE_NORM), nonsense_tokenizer, ("en", "fr"), tmp_path / "folder")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "folder")
    for text in sentences(5):
        [ids] = nonsense_tokenizer.encode([text])
        assert tokenizer(text).input_ids == [*ids, nonsense_tokenizer.end]
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({}, "output_bias"),
        (PRE_NORM | {"position_offset": 0}, "position_offset"),
        (PRE_NORM | {"position_formula": "paper"}, "position_formula"),
        (PRE_NORM | {"tie_embeddings": False}, "tie_embeddings"),
        (POST_NORM | {"position_formula": "tensor2tensor"}, "position_formula"),
        (POST_NORM | {"norm_epsilon": 1e-6}, "norm_epsilon"),
    ],
)
def test_what_fits_no_class_is_refused_by_name(
    changes: dict[str, object], option: str, nonsense_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=rf"model\.{option} "):
        write_transformers(random_model(**changes), nonsense_tokenizer, ("en", "fr"), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_a_folder_of_something_else_is_left_alone(nonsense_tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("keep")
    with pytest.raises(ExportError, match="was not written by this command"):
        write_transformers(random_model(**PRE_NORM), nonsense_tokenizer, ("en", "fr"), tmp_path)
    with pytest.raises(ExportError, match="was not written by this command"):
        write_transformers(random_model(**PRE_NORM), nonsense_tokenizer, ("en", "fr"), tmp_path / "letters.txt")
    assert (tmp_path / "letters.txt").read_text() == "keep"


def test_a_checkpoint_of_somebody_else_is_left_alone(nonsense_tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Its files have the same names."""
    folder = tmp_path / "folder"
    write_transformers(random_model(**PRE_NORM), nonsense_tokenizer, ("en", "fr"), folder)
    weights = load_file(folder / "model.safetensors")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for damage in (lambda: None, lambda: (folder / "model.safetensors").unlink()):
        damage()
        before = {path.name: path.stat().st_ino for path in folder.iterdir()}
        with pytest.raises(ExportError, match="was not written by this command"):
            write_transformers(random_model(**PRE_NORM), nonsense_tokenizer, ("en", "fr"), folder)
        assert {path.name: path.stat().st_ino for path in folder.iterdir()} == before


def test_command_writes_the_folder(nonsense_tokenizer: Tokenizer, tmp_path: Path) -> None:
    from model.checkpoint import Description, save

    model = random_model(**PRE_NORM)
    description = Description(model.config, "en", "fr", 1)
    save(tmp_path / "checkpoint", model.state_dict(), nonsense_tokenizer, description, None)
    for _ in range(2):  # what it wrote itself it replaces
        assert main(["export-transformers", str(tmp_path / "checkpoint"), str(tmp_path / "folder")]) == 0
    config = json.loads((tmp_path / "folder" / "config.json").read_text())
    assert config["architectures"] == ["M2M100ForConditionalGeneration"]
    assert main(["export-transformers", str(tmp_path / "nothing"), str(tmp_path / "other")]) == 78
