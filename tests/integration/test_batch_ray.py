"""`dragoman batch --engine ray` on a real Ray on this machine: the rows, and even the bytes, of the job without it."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import sentences

ROOT = Path(__file__).parents[2]
NUM_ROWS = 5_000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra `ray`: pip install 'dragoman[ray]'"),
]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_two_actors_give_what_one_process_gives(tmp_path: Path, nonsense_bundle: Path, ending: str):
    texts = [text for text in sentences(NUM_ROWS // 5) for _ in range(5)]
    rows = [{"key": number, "text": text} for number, text in enumerate(texts)]
    if ending == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet", row_group_size=700)
    else:
        lines = [json.dumps(row) for row in rows]
        lines[77] = "not a row"
        (tmp_path / "in.jsonl").write_text("\n".join(lines))

    def run(output: str, *flags: str) -> int:
        command = [sys.executable, "-m", "service.cli", "batch", f"in.{ending}", output, "--to", "fr", "--beam", "1"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        flags = ("--bundle", str(nonsense_bundle), *flags)
        return subprocess.run([*command, *flags], cwd=tmp_path, env=environment, check=False).returncode

    expected = 1 if ending == "jsonl" else 0
    assert run(f"alone.{ending}") == expected
    assert run(f"ray.{ending}", "--engine", "ray", "--actors", "2", "--cpus-per-actor", "0.5") == expected
    alone, ray = ((tmp_path / f"{name}.{ending}").read_bytes() for name in ("alone", "ray"))
    if ending == "jsonl":
        assert set(ray.splitlines()) == set(alone.splitlines())
        assert len(ray.splitlines()) == NUM_ROWS
    assert ray == alone
