"""A folder in Hugging Face's layout gives the same translations in every system that is compared."""

import argparse
from pathlib import Path

import pytest

from export.transformers_layout import write_transformers
from service.cli import main
from service.runtime.tokenizer import Tokenizer
from tests.conftest import random_model, sentences

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default"), pytest.mark.timeout(300)]


def test_an_opus_mt_folder_goes_into_all_systems(nonsense_tokenizer: Tokenizer, tmp_path: Path) -> None:
    for name in ("ctranslate2", "transformers"):
        pytest.importorskip(name, reason=f"compares with {name}, which the extra 'peers' installs")
    from benchmarks.artifacts import prepare
    from benchmarks.systems import make

    folder, bundle = tmp_path / "opus-mt-en-fr", tmp_path / "bundle"
    model = random_model(norm="post", position_formula="paper", position_offset=0, num_heads=4)
    write_transformers(model, nonsense_tokenizer, ("en", "fr"), folder)
    assert main(["import-marian", str(folder), str(bundle), "--precision", "cpu-fp32"]) == 0
    given = argparse.Namespace(checkpoint=folder, bundle=bundle, forced=0, work=tmp_path / "work")
    config, artifacts = prepare(given)
    assert config.vocab_size == nonsense_tokenizer.vocab_size
    assert artifacts.transformers == folder
    families = {"dragoman": ("fp32", 1, 1), "ctranslate2": ("float32", 1, 1, 0, "examples"), "transformers": (1,)}
    found = []
    for family, settings in families.items():
        system = make(family, artifacts, settings)
        found.append(system.translate(sentences(5), 1, 15))
        system.close()
    assert found[0] == found[1] == found[2]
