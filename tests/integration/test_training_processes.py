"""Training in processes of its own: two that share each step, and one that is killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from model.checkpoint import load_weights
from tests.unit.model.conftest import write_pairs

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

RECIPE = """
[run]
folder = "run"
source_language = "en"
target_language = "fr"
max_steps = {steps}
batch_tokens = 200
accumulate = {accumulate}
device = "cpu"
precision = "fp32"
validate_every = 10
log_every = 1
sample_sentences = 2
checkpoint_every_s = 0.05

[model]
model_width = 32
num_heads = 2
feed_forward_width = 64
num_encoder_layers = 1
num_decoder_layers = 1
dropout = 0.2
max_positions = 128

[vocabulary]
size = 300

[optimizer]
name = "muon"
warmup_steps = 5

[[train]]
name = "digits"
tsv = "train.tsv"
drop_duplicates = false

[[validation]]
name = "digits"
tsv = "train.tsv"
max_pairs = 40
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_pairs(tmp_path / "train.tsv", 500, seed=1)
    return tmp_path


def command(
    place: Path, folder: str, launcher: tuple[str, ...] = (), accumulate: int = 2, steps: int = 30
) -> list[str]:
    config = place / f"{folder}.toml"
    config.write_text(RECIPE.format(accumulate=accumulate, steps=steps))
    main = ("-m", "service.cli", "train", str(config), "--folder", str(place / folder))
    return [sys.executable, *launcher, *main]


def environment() -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root, "PYTHONUNBUFFERED": "1"}


def run(arguments: list[str]) -> list[float]:
    """Losses of every step that the run prints."""
    done = subprocess.run(arguments, env=environment(), capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Warning" not in done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith("corpus ")]
    assert len(told) == 2, "the text for training and that for validation, by one of the processes"
    return [float(line.split()[3]) for line in done.stdout.splitlines() if " gradient " in line]


def test_two_processes_learn_what_one_learns(place: Path) -> None:
    """torchrun with two processes of one batch a step, beside one process of two: dropout, Muon and all."""
    alone = run(command(place, "alone", steps=20))
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python", sys.executable)
    together = run(command(place, "together", torchrun, accumulate=1, steps=20))
    assert len(alone) == 20
    assert together == pytest.approx(alone, abs=2e-4)
    one, two = (load_weights(place / name / "step-00000020") for name in ("alone", "together"))
    assert all(torch.allclose(two[name], weight, atol=2e-4) for name, weight in one.items())


def test_killed_at_any_moment_it_ends_with_the_same_weights(place: Path) -> None:
    undisturbed = run(command(place, "whole"))
    assert len(undisturbed) == 30
    rng = random.Random(int(os.environ.get("PYTEST_SEED", "7")))
    arguments = command(place, "killed")
    for _ in range(3):
        process = subprocess.Popen(arguments, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for_a_checkpoint(process, place / "killed")
        time.sleep(rng.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
    run(arguments)
    whole, killed = (load_weights(place / name / "step-00000030") for name in ("whole", "killed"))
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


def wait_for_a_checkpoint(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Until this process has written one, or has ended."""
    before = newest_step(folder)
    while process.poll() is None and newest_step(folder) <= before:
        time.sleep(0.01)


def newest_step(folder: Path) -> int:
    steps = [0]
    for config in folder.glob("*/config.json"):
        try:
            steps.append(json.loads(config.read_text())["step"])
        except (OSError, ValueError):
            continue  # being replaced just now
    return max(steps)
