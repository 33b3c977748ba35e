"""The public contract keeps buf's rules and breaks no client; runs where buf is there (`make contract` installs it)."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUF = shutil.which("buf", path=str(ROOT / "build/node/node_modules/.bin")) or shutil.which("buf")
pytestmark = pytest.mark.skipif(BUF is None, reason="needs buf; `make contract` installs it")


def buf(root: Path, *arguments: str) -> str:
    """What buf finds fault with; empty: nothing."""
    result = subprocess.run([str(BUF), *arguments], cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode in (0, 100), result.stderr
    return result.stdout


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    return tmp_path


def change(root: Path, old: str, new: str) -> None:
    path = root / "proto/dragoman/v1/translation.proto"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_it_is_clean() -> None:
    assert buf(ROOT, "lint") == ""
    assert buf(ROOT, "breaking", "--against", "proto/released.binpb") == ""


def test_what_would_break_a_client_is_found(copy: Path) -> None:
    change(copy, "double score = 2;", "float score = 2;")
    change(copy, "  FINISH_REASON_REPETITION = 3;\n", "")
    found = buf(copy, "breaking", "--against", "proto/released.binpb")
    assert 'Field "2" with name "score"' in found
    assert 'enum value "3"' in found.lower() or "FINISH_REASON_REPETITION" in found


def test_bad_style_is_found(copy: Path) -> None:
    change(copy, "  PRIORITY_BATCH = 2;", "  BATCH = 2;")
    assert "PRIORITY_" in buf(copy, "lint")
