"""ONNX Runtime reports about its use to its maker unless it is told not to before it is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("module", ["service.runtime.session", "export.graph_runner"])
def test_nothing_is_kept_or_sent(module: str, tmp_path: Path):
    # In CI it is quiet by itself; what it would report under, it keeps in the home directory.
    silent = ("CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "XDG_CACHE_HOME", "XDG_DATA_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in silent and "CI" not in name}
    environment |= {"HOME": str(tmp_path)}
    subprocess.run(
        [sys.executable, "-c", f"import {module}"], env=environment, cwd=Path(__file__).parents[3], check=True
    )
    assert list(tmp_path.rglob("*")) == []
