"""make gpu-check without a GPU: what it says, what it keeps, and a rehearsal of all of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu as gpu_check
from benchmarks.static_decoder import StaticDecoder
from model.reference_decode import extend_with, search_beams, search_greedily
from service.runtime import gpu
from tests.conftest import random_model

ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(not gpu.missing(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu", "--work", str(tmp_path / "work")])
    assert gpu_check.main() == 78
    assert "this needs a GPU; missing: " in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


def test_a_part_that_fails_keeps_the_others_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = [("steps", ["no_such_module"]), ("answers", ["json.tool", "--help"])]
    monkeypatch.setattr(gpu_check, "parts", lambda *_: iter(commands))
    monkeypatch.setattr(gpu_check, "prepare", lambda *_: {})
    monkeypatch.setattr(
        sys, "argv", ["gpu", "--rehearse", "--work", str(tmp_path), "--out", str(tmp_path / "gpu.json")]
    )
    assert gpu_check.main() == 1
    found = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert {name: part["exit_code"] for name, part in found.items()} == {"steps": 1, "answers": 0}
    assert "no_such_module" in found["steps"]["said"][-1]


def test_results_of_another_day_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "steps.json").write_text('{"rows": [{"rows": 256}]}')
    monkeypatch.setattr(gpu_check, "prepare", lambda *_: {})
    assert "rows" not in gpu_check.run("steps", ["no_such_module"], tmp_path, rehearse=True)


def test_a_part_that_is_not_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu", "--rehearse", "--only", "speed", "--work", str(tmp_path / "work")])
    with pytest.raises(SystemExit) as ended:
        gpu_check.main()
    assert ended.value.code == 2
    assert "the parts are tests, answers, steps, peers tiny" in capsys.readouterr().err


def test_an_aim_is_reached_by_what_was_found_only() -> None:
    steps = [{"model": "base 1", "rows": 256, "beams": 1, "floor_ms": 1.0, "recorded_ms": 2.0, "tokens_per_s": 1.0}]
    peers = [
        {"rows": 64, "beams": 4, "system": "dragoman", "tokens_per_s": 60.0},
        {"rows": 64, "beams": 4, "system": "transformers", "tokens_per_s": 10.0},
        {"rows": 64, "beams": 4, "system": "transformers compiled", "error": "no"},
    ]
    answers = [
        {"beams": 1, "equal_to_pytorch": 0.99, "scores_equal_to_eager": 1.0, "bleu": 30.0, "bleu_of_pytorch": 30.05}
    ]
    parts = {"tests": {"exit_code": 0}, "answers": answers, "steps": steps, "peers base": peers}
    results = {name: rows if isinstance(rows, dict) else {"rows": rows} for name, rows in parts.items()}
    assert [verdict["reached"] for verdict in gpu_check.verdicts(results)] == [
        *(True, False, True, True, True, False),  # tests, equal ids, replay, BLEU, 256 rows, 1024 rows
        *(True, False),  # Transformers, 1024 rows
    ]
    assert not any(verdict["reached"] for verdict in gpu_check.verdicts({}))


@pytest.mark.parametrize("beams", [1, 3])
def test_the_static_decoder_is_the_slow_search_without_an_end(beams: int) -> None:
    model, length = random_model(), 6
    source = [5, 9, 31, 7]
    extend = extend_with(model, source, start=1)
    best = search_beams(extend, -1, length, beams)[0] if beams > 1 else search_greedily(extend, -1, length)
    assert StaticDecoder(model, beams, length).decode(torch.tensor([source, source]), 1).tolist() == [best.ids] * 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_rehearsal_runs_every_part(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="needs the extra 'bench'")
    out = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "benchmarks.gpu", "--rehearse", "--rows", "1,8", "--sentences", "3"]
    done = subprocess.run([*command, "--work", str(tmp_path), "--out", str(out)], cwd=ROOT, check=False)
    assert done.returncode == 0
    parts = json.loads(out.read_text())["parts"]
    assert set(parts) == {"tests", "answers", "steps", "peers tiny"}
    assert all(row["scores_equal_to_eager"] == 1 for row in parts["answers"]["rows"])
    assert {row["system"] for row in parts["peers tiny"]["rows"] if "tokens_per_s" in row} >= {
        *("dragoman", "transformers", "pytorch static cache"),
    }
