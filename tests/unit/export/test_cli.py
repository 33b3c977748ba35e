"""The files that `dragoman export` reads beside a checkpoint: what is wrong with one is said by its name."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from export.cli import disk_error, read_all_lines, read_card, read_sample
from export.write_bundle import ExportError


@pytest.mark.parametrize(
    ("name", "content"),
    [("bad.txt", b"a\xff\n"), ("cut.gz", b"\x1f\x8b\x08\x00"), ("no.gz", b"plain\n"), ("empty.txt", b"")],
)
def test_a_file_that_holds_no_lines_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    for read in (lambda path: read_sample([path], 5), read_all_lines):
        with pytest.raises(ExportError, match=name):
            read(tmp_path / name)


def test_a_sample_is_spread_over_its_files(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text("".join(f"{name}{number}\tignored\n\n \t\n" for number in range(10)))
    assert read_sample([tmp_path / "a", tmp_path / "b"], 4) == ["a0", "a5", "b0", "b5"]


def test_a_sample_without_a_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "blank.txt").write_text("\n \n\tsecond column\n")
    with pytest.raises(ExportError, match=r"blank\.txt holds no text"):
        read_sample([tmp_path / "blank.txt"], 5)


@pytest.mark.parametrize("content", [b"[1]", b"{", b'{"a": "\xff"}'])
def test_a_card_is_a_json_object(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "card.json"
    path.write_text(json.dumps({"text": "é"}, ensure_ascii=False), encoding="utf-8")
    assert read_card(path) == {"text": "é"}
    path.write_bytes(content)
    with pytest.raises(ExportError, match=r"card\.json"):
        read_card(path)


def test_a_disk_that_is_full_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where many files could not be copied."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fail(*_: object, **__: object) -> None:
        raise full

    (tmp_path / "from").mkdir()
    for name in "ab":
        (tmp_path / "from" / name).touch()
    with pytest.raises(shutil.Error) as caught:
        shutil.copytree(tmp_path / "from", tmp_path / "to", copy_function=fail)
    lines = [f"{tmp_path}/from/{name} cannot be copied to {tmp_path}/to/{name}: {full}" for name in "ab"]
    assert disk_error(caught.value) in lines
    assert disk_error(full) == "[Errno 28] No space left on device"
