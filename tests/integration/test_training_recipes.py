"""Distillation and fine-tuning as the documents describe them, with the real recipe in miniature."""

import gzip
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from model import checkpoint
from service.app import SHIPPED_BUNDLE

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "model" / "recipes" / "en-fr-distilled.toml"
SMALLER = {
    "max_steps": "60",
    "batch_tokens": "600",
    "validate_every": "20",
    "sample_sentences": "5",
    "model_width": "64",
    "feed_forward_width": "128",
    "num_encoder_layers": "2",
    "num_decoder_layers": "1",
    "size": "380",
    "warmup_steps": "10",
}
PARTS = (
    ("Tom", "Mary", "My brother", "The old man", "Her friend", "The teacher", "This girl", "A cat"),
    ("sees", "likes", "wants", "has", "buys", "reads", "takes", "needs", "knows"),
    ("a book", "the house", "two apples", "the red car", "a letter", "some water", "the big dog", "my keys"),
    ("today", "in the garden", "every day", "with his mother", "at night", "in Boston", "now", "again"),
)


def english(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [f"{' '.join(rng.choice(part) for part in PARTS)}." for _ in range(count)]


def dragoman(*words: str, folder: Path, stdin: Path | None = None, stdout: Path | None = None) -> str:
    """Runs a command in ``folder`` with its texts' folder below it; returns what it printed, in order."""
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "DRAGOMAN_DATA": str(folder / "texts")}
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", *words],
        cwd=folder,
        env=environment,
        input=stdin.read_text() if stdin else "",
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    if stdout:
        stdout.write_text(done.stdout)
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The recipe with smaller numbers at its own place, a source to translate, and validation pairs."""
    recipe = tmp_path / "model" / "recipes" / RECIPE.name
    recipe.parent.mkdir(parents=True)
    text = RECIPE.read_text(encoding="utf-8")
    for key, value in SMALLER.items():
        text, count = re.subn(rf"(?m)^{key} = \S+", f"{key} = {value}", text)
        assert count == 1, f"{key} is not in the recipe any more"
    recipe.write_text(text, encoding="utf-8")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "distilled.en").write_text("".join(f"{line}\n" for line in english(400, seed=1)))
    validation = tmp_path / "texts" / "en-fr" / "tatoeba.dev.tsv.gz"
    validation.parent.mkdir(parents=True)
    own = "".join(f"{line}\n" for line in english(40, seed=2))
    (tmp_path / "validation.en").write_text(own)
    teacher = ("translate", "--bundle", str(SHIPPED_BUNDLE), "--to", "fr", "--beam", "1")
    french = dragoman(*teacher, folder=tmp_path, stdin=tmp_path / "validation.en").splitlines()
    with gzip.open(validation, "wt", encoding="utf-8") as file:
        file.writelines(f"{s}\t{t}\n" for s, t in zip(own.splitlines(), french, strict=True))
    return tmp_path


def losses(printed: str) -> list[float]:
    return [float(loss) for loss in re.findall(r"validation \w+: loss ([\d.]+)", printed)]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_student_learns_from_the_shipped_model_and_is_fine_tuned(folder: Path) -> None:
    source, target = (folder / "runs" / f"distilled.{side}" for side in ("en", "fr"))
    teacher = ("translate", "--bundle", str(SHIPPED_BUNDLE), "--to", "fr", "--beam", "4")
    dragoman(*teacher, folder=folder, stdin=source, stdout=target)
    assert len(target.read_text().splitlines()) == 400
    recipe = f"model/recipes/{RECIPE.name}"
    learned = losses(dragoman("train", recipe, folder=folder))
    assert len(learned) == 3
    assert learned[-1] < learned[0] - 0.5

    # The student becomes a bundle; its checkpoint is gone on from with other text.
    student = folder / "runs" / "en-fr-distilled" / "best"
    dragoman("export", str(student), str(folder / "student"), "--precision", "cpu-int8", folder=folder)
    dragoman("verify", str(folder / "student"), folder=folder)
    again = ("train", recipe, "--folder", "runs/tuned", "--initial-checkpoint", str(student), "--max-steps", "20")
    tuned = losses(dragoman(*again, folder=folder))
    assert tuned[-1] < learned[-1]
    assert checkpoint.read_description(folder / "runs" / "tuned" / "best").step == 20
