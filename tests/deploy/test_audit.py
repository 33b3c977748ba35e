"""`make audit` tells packages with vulnerabilities from an index that cannot say."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("says", "exits", "code", "is_offline"),
    [
        ("No known vulnerabilities found", 0, 0, False),
        ("Found 2 known vulnerabilities in 1 package", 1, 1, False),
        ("ERROR:pip_audit._cli:numpy: Dependency not found and could not be audited", 1, 2, True),
        ("ConnectionError: Max retries exceeded", 1, 2, True),
    ],
)
def test_what_it_says(tmp_path: Path, says: str, exits: int, code: int, is_offline: bool):
    program = tmp_path / "pip-audit"
    program.write_text(f'#!/bin/sh\necho "$@" | grep -q constraints.txt || exit 9\necho "{says}" >&2\nexit {exits}\n')
    program.chmod(0o755)
    environment = os.environ | {"BIN": str(tmp_path)}
    done = subprocess.run(
        ["sh", "deploy/audit.sh"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert says in done.stdout + done.stderr
    assert ("nothing was checked" in done.stderr) is is_offline
