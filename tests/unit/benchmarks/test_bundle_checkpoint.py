"""A checkpoint made of a bundle is the model that the bundle holds."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.bundle_checkpoint import write_checkpoint
from export.derive import SOURCE, pytorch_model
from model.checkpoint import load_model
from model.transformer import Transformer
from service.runtime.bundle import Bundle
from tests.conftest import random_model


@pytest.fixture
def bundle(make_bundle: Callable[..., Path], random_transformer: Transformer, tmp_path: Path) -> Path:
    return make_bundle(random_transformer, tmp_path / "int8", precisions=(SOURCE,))


def test_its_weights_and_vocabulary_are_the_bundle_s(bundle: Path, random_transformer: Transformer, tmp_path: Path):
    write_checkpoint(bundle, tmp_path / "checkpoint")
    model, tokenizer, description = load_model(tmp_path / "checkpoint")
    wanted = pytorch_model(Bundle.open(bundle), SOURCE).state_dict()
    found = model.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    for name, values in random_transformer.state_dict().items():
        assert (found[name] - values).abs().max() <= 0.02 * values.abs().max(), name  # rounded, not replaced
    assert (tokenizer.vocab_size, description.target_language) == (model.config.vocab_size, "fr")


def test_an_imported_model_is_refused(make_bundle: Callable[..., Path], tmp_path: Path):
    model = random_model(position_formula="paper", position_offset=0)
    bundle = make_bundle(model, tmp_path / "int8", precisions=(SOURCE,))
    with pytest.raises(ValueError, match="imported"):
        write_checkpoint(bundle, tmp_path / "checkpoint")
    assert not (tmp_path / "checkpoint").exists()


def test_what_is_there_already_is_left_alone(bundle: Path, tmp_path: Path):
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(ValueError, match="exists"):
        write_checkpoint(bundle, tmp_path / "checkpoint")
    assert list((tmp_path / "checkpoint").iterdir()) == []
