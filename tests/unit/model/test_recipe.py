"""Every mistake in a training configuration is named, with what to do about it."""

from dataclasses import fields
from pathlib import Path

import pytest

from model import config as config_module
from model.config import ModelConfig, TrainingConfig
from model.recipe import read_training_config
from model.sections import TrainingConfigError, read_section

RECIPES = sorted((Path(config_module.__file__).parent / "recipes").glob("*.toml"))
GOOD = """
[run]
folder = "run"
source_language = "en"
target_language = "fr"

[model]
model_width = 64
num_heads = 4

[vocabulary]
size = 500

[[train]]
name = "a"
tsv = "a.tsv"

[[validation]]
name = "a"
source = "b.en"
target = "b.fr"
"""


def read(text: str, folder: Path) -> TrainingConfig:
    path = folder / "config.toml"
    path.write_text(text)
    return read_training_config(path)


def test_good(tmp_path: Path) -> None:
    config = read(GOOD, tmp_path)
    assert config.model.vocab_size == 500
    assert config.train[0].tsv == str(tmp_path / "a.tsv")
    assert config.validation[0].source == str(tmp_path / "b.en")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("model_width = 64", "model_widht = 64", r"model\.model_widht is unknown; did you mean 'model_width'\?"),
        ("model_width = 64", "zzz = 64", r"model\.zzz is unknown; known are vocab_size, model_width"),
        ("[model]", "[modle]", r"\[modle\] is unknown; known are run, model"),
        ("model_width = 64", 'model_width = "64"', r"model\.model_width must be a whole number, not '64'"),
        ("model_width = 64", "model_width = 64.0", r"model\.model_width must be a whole number, not 64\.0"),
        ("model_width = 64", "model_width = true", r"model\.model_width must be a whole number, not True"),
        ("model_width = 64", "model_width = 66", r"model\.model_width \(66\) must be a multiple of num_heads \(4\)"),
        (
            "model_width = 64",
            "model_width = 24",
            r"model_width / num_heads \(6\) must be a multiple of 8, or it cannot",
        ),
        ("model_width = 64", "model_width = 0", r"model\.model_width \(0\) must be >= 1"),
        ("model_width = 64", "dropout = 1.0", r"model\.dropout \(1\.0\) must be in \[0, 1\)"),
        ("model_width = 64", 'norm = "middle"', r"model\.norm \(middle\) must be pre or post"),
        ("model_width = 64", "vocab_size = 501", r"model\.vocab_size \(501\) must be vocabulary\.size \(500\)"),
        ("model_width = 64", "max_positions = 90", r"corpus 'a': max_tokens \(100\) and an end token must fit"),
        ('folder = "run"', "", r"run\.folder is missing"),
        ('folder = "run"', 'folder = "run"\nseed = -1', r"run\.seed \(-1\) must be >= 0"),
        ('folder = "run"', 'folder = "run"\nfuse = true', r"run\.fuse is unknown"),
        ('source_language = "en"', 'source_language = "../en"', r"run\.source_language .* must be a BCP-47 code"),
        ("size = 500", "size = 500\nmax_sentences = 0", r"vocabulary\.max_sentences \(0\) must be >= 1"),
        ("[vocabulary]", "[vocabulary]\ntype = 'word'", r"vocabulary\.type \(word\) must be unigram or bpe"),
        ("[vocabulary]", "[optimizer]\nbeta1 = 1.0\n[vocabulary]", r"optimizer\.beta1 \(1\.0\) must be in \[0, 1\)"),
        ("[vocabulary]", "[optimizer]\nname = 'sgd'\n[vocabulary]", r"optimizer\.name \(sgd\) must be adam or muon"),
        ('tsv = "a.tsv"', "", r"corpus 'a': give either 'tsv', or 'source' and 'target'"),
        ('tsv = "a.tsv"', 'tsv = "a.tsv"\nsource = "b"', r"corpus 'a': give either 'tsv', or 'source' and 'target'"),
        ('tsv = "a.tsv"', 'tsv = "a.tsv"\nweight = 0', r"corpus 'a': weight \(0\) must be > 0"),
        ('tsv = "a.tsv"', 'tsv = "a.tsv"\nweight = inf', r"corpus 'a': weight \(inf\) must be > 0 and finite"),
        ('tsv = "a.tsv"', 'tsv = "a.tsv"\nsource_script = "Latn"', r"source_script: 'latn' is no script"),
        ('folder = "run"', f'folder = "run"\nseed = {1 << 63}', r"run\.seed \(\d+\) must be below 2 \*\* 63"),
        ("model_width = 64", "tie_embeddings = false\nsource_vocab_size = 9", r"share one vocabulary while training"),
        ('tsv = "a.tsv"', 'tsv = "a.tsv"\nmax_pairs = 0', r"corpus 'a': max_pairs \(0\) must be >= 1"),
        ('name = "a"\ntsv', 'name = "../a"\ntsv', r"corpus '\.\./a': the name must be letters"),
        ('tsv = "a.tsv"', 'tsv = "$DRAGOMAN_NOWHERE/a"', r"train\[0\]\.tsv: .* DRAGOMAN_NOWHERE, which is not set"),
        ('tsv = "a.tsv"', 'tsv = "${DRAGOMAN_NOWHERE}/a"', r"train\[0\]\.tsv: .* DRAGOMAN_NOWHERE, which is not set"),
        (
            "[[validation]]",
            '[[train]]\nname = "a"\ntsv = "c"\n[[validation]]',
            r"\[\[train\]\]: two corpora have the same",
        ),
        ("[[validation]]", "[[train]]", r"at least one \[\[validation\]\] corpus is needed|the same name"),
        ("[[validation]]", "[validation]", r"\[validation\] must be written \[\[validation\]\]"),
        ("[model]\nmodel_width = 64\nnum_heads = 4", "", r"^$"),
        ("[run]", "[run", r"config\.toml is not valid TOML"),
    ],
)
def test_mistake_is_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in GOOD
    text = GOOD.replace(old, new)
    if message == "^$":
        read(text, tmp_path)  # no mistake: every option of the model has a default
        return
    with pytest.raises(TrainingConfigError, match=message):
        read(text, tmp_path)


@pytest.mark.parametrize("value", ["inf", "nan"])
@pytest.mark.parametrize("option", ["peak_learning_rate", "epsilon", "weight_decay", "norm_epsilon"])
def test_a_rate_is_finite(option: str, value: str, tmp_path: Path) -> None:
    """TOML has infinity: weights would be no numbers after a step, or, with an epsilon, never move at all."""
    table = "[model]" if option == "norm_epsilon" else "[optimizer]"
    text = GOOD.replace("[model]", "[optimizer]\n[model]").replace(table, f"{table}\n{option} = {value}")
    with pytest.raises(TrainingConfigError, match=rf"{option} \({value}\) must be >=? 0 and finite"):
        read(text, tmp_path)


def test_section_that_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(TrainingConfigError, match=r"\[model\] must be a table, not 3"):
        read("model = 3\n" + GOOD.replace("[model]\nmodel_width = 64\nnum_heads = 4", ""), tmp_path)


def test_variables_and_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAGOMAN_SOMEWHERE", "/texts")
    monkeypatch.setenv("HOME", "/home/me")
    assert read(GOOD.replace('"a.tsv"', '"$DRAGOMAN_SOMEWHERE/a"'), tmp_path).train[0].tsv == "/texts/a"
    assert read(GOOD.replace('"a.tsv"', '"~/a"'), tmp_path).train[0].tsv == "/home/me/a"
    run = read(GOOD.replace('"run"', '"~/$DRAGOMAN_SOMEWHERE/run"\ninitial_checkpoint = "first/best"'), tmp_path).run
    assert (run.folder, run.initial_checkpoint) == ("/home/me//texts/run".replace("//", "/"), "first/best")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(TrainingConfigError, match=r"cannot read .*none\.toml: No such file"):
        read_training_config(tmp_path / "none.toml")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_are_good(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAGOMAN_DATA", "/texts")
    assert read_training_config(path).train


def test_section_from_json_takes_whole_numbers_for_numbers() -> None:
    assert read_section(ModelConfig, {"vocab_size": 10, "dropout": 0}, "model").dropout == 0


def test_every_option_is_explained() -> None:
    """A line of text follows each field of each section."""
    source = Path(config_module.__file__).read_text().splitlines()
    for section in (getattr(config_module, f.type) for f in fields(TrainingConfig) if str(f.type).endswith("Config")):
        for field in fields(section):
            place = next(i for i, line in enumerate(source) if line.startswith(f"    {field.name}: "))
            assert source[place + 1].strip().startswith('"""'), field.name
