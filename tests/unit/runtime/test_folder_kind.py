"""A folder of another kind than the one wanted is told apart, and the message says what to do with it."""

import json
import shutil
from pathlib import Path

import pytest

from export.huggingface.folder import HuggingFaceFolder, ImportRefused
from model.checkpoint import CheckpointError, load_model
from service.errors import BundleError
from service.runtime.bundle import Bundle
from service.runtime.folder_kind import HINTS, kind_of

FILES = {
    "bundle": ("manifest.json", "{}"),
    "checkpoint": ("config.json", json.dumps({"model": {"vocab_size": 8}, "source_language": "en"})),
    "huggingface": ("config.json", json.dumps({"model_type": "marian"})),
    "run": ("resolved.json", "{}"),
}


@pytest.mark.parametrize("kind", FILES)
def test_each_kind_is_told_from_the_others(tmp_path: Path, kind: str) -> None:
    name, content = FILES[kind]
    (tmp_path / name).write_text(content)
    assert kind_of(tmp_path) == kind
    for wanted, error, use in (
        ("bundle", BundleError, Bundle.open),
        ("checkpoint", CheckpointError, load_model),
        ("huggingface", ImportRefused, lambda folder: HuggingFaceFolder(folder).bytes("source.spm")),
    ):
        with pytest.raises(error) as caught:
            use(tmp_path)
        assert (HINTS[kind] in str(caught.value)) == (kind != wanted)


@pytest.mark.parametrize("content", [b"[]", b"{", b"\xff", b"{}"])
def test_what_could_be_anything_has_no_name(tmp_path: Path, content: bytes) -> None:
    assert kind_of(tmp_path / "nowhere") == ""
    (tmp_path / "config.json").write_bytes(content)
    assert kind_of(tmp_path) == ""
    with pytest.raises(BundleError, match=r"has no manifest\.json$"):
        Bundle.open(tmp_path)


def test_a_zip_is_named_and_not_where_it_was_unpacked(nonsense_bundle: Path, tmp_path: Path) -> None:
    """Packed with its folder, with a file that was altered, and where a precision is not in it."""
    copy = Path(shutil.copytree(nonsense_bundle, tmp_path / "outer" / "inner"))
    whole, nested = (Path(shutil.make_archive(str(tmp_path / f.name), "zip", f)) for f in (copy, copy.parent))
    with pytest.raises(BundleError, match=f"^{nested} is not a bundle: it has no manifest"):
        Bundle.open(nested)
    opened = Bundle.open(whole)
    with pytest.raises(BundleError, match=f"^{whole} has no precision 'cpu-fp8'"):
        opened.graphs("cpu-fp8")
    opened.close()
    (copy / "vocabulary.spm").write_bytes(b"")
    shutil.make_archive(str(whole.with_suffix("")), "zip", copy)
    with pytest.raises(BundleError, match=f"^{whole}/vocabulary.spm has 0 bytes"):
        Bundle.open(whole)
