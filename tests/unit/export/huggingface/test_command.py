"""What `dragoman import-marian` says and leaves behind where the folder is right and something else is not."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from service.cli import main
from service.runtime.bundle import Bundle

Make = Callable[..., Path]


def test_a_precision_given_twice_is_made_once(make_folder: Make, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    assert main(["import-marian", str(make_folder()), str(bundle), *["--precision", "cpu-fp32"] * 2]) == 0
    assert list(Bundle.open(bundle).manifest.precisions) == ["cpu-fp32"]


def test_languages_that_no_request_can_name_are_told(
    make_folder: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder()
    vocabulary = (folder / "vocab.json").read_text()
    (folder / "vocab.json").write_text(vocabulary.replace(">>deu<<", ">>sr@latin<<"))
    assert main(["import-marian", str(folder), str(tmp_path / "bundle"), "--precision", "cpu-fp32"]) == 0
    out = capsys.readouterr().out
    assert "left out, since BCP-47 has no such codes: sr@latin\n" in out
    assert out.endswith("en to fr\n")


def test_a_disk_that_is_full_is_no_wrong_folder(
    make_folder: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `dragoman export` says it: 1, not 78, which is for what was given."""
    folder, bundle = make_folder(), tmp_path / "bundle"

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("export.weights_file.WeightsFile.write", fail)
    assert main(["import-marian", str(folder), str(bundle), "--precision", "cpu-fp32"]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]
    assert main(["import-marian", str(folder), str(folder / "config.json" / "bundle")]) == 1
    assert "Not a directory" in capsys.readouterr().err
