"""What a bundle is not made of, and how it comes to its place, whatever the place is called."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from export.write_bundle import ExportError, whole_or_nothing
from model.checkpoint import Description, save
from model.transformer import Transformer
from service.cli import main
from service.engine.settings import EngineSettings
from service.engine.translator import Translator
from service.runtime.bundle import Bundle, Language
from service.runtime.tokenizer import Tokenizer
from tests.conftest import random_model, sentences

Make = Callable[..., Path]


@pytest.fixture
def checkpoint(random_transformer: Transformer, nonsense_tokenizer: Tokenizer, tmp_path: Path) -> Path:
    description = Description(random_transformer.config, "en", "fr", 0)
    save(tmp_path / "checkpoint", random_transformer.state_dict(), nonsense_tokenizer, description, None)
    return tmp_path / "checkpoint"


def export(checkpoint: Path, bundle: str | Path, *more: str) -> int:
    small = ("--max-source-tokens", "64", "--max-target-tokens", "24")
    twice = ("--precision", "cpu-fp32", "--precision", "cpu-fp32")
    return main(["export", str(checkpoint), str(bundle), *small, *twice, *more])


def test_heads_that_no_attention_takes_are_refused(make_bundle: Make, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"a head's width \(6\) must be a multiple of 8"):
        make_bundle(random_model(model_width=24, num_heads=4), tmp_path / "bundle")


def test_a_source_has_room_for_a_token_beside_those_of_its_languages(make_bundle: Make, tmp_path: Path) -> None:
    """Else the bundle could be written and not be served."""
    languages = {"source_languages": (Language("en", (9,)),), "target_languages": (Language("fr", (10, 11)),)}
    with pytest.raises(ExportError, match=r"max_source_tokens \(4\) must be in \[5, "):
        make_bundle(random_model(), tmp_path / "bundle", max_source_tokens=4, **languages)


@pytest.mark.parametrize("name", ["encoder.0.self_attention.query.weight", "decoder_norm.bias"])
def test_weights_that_are_no_numbers_are_refused(name: str, make_bundle: Make, tmp_path: Path) -> None:
    model = random_model()
    with torch.no_grad():
        model.get_parameter(name).view(-1)[-1] = torch.nan
    with pytest.raises(ExportError, match="weights that are no numbers"):
        make_bundle(model, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "flags", [(), ("--lower-capitals",), ("--plain-quotes",), ("--lower-capitals", "--plain-quotes")]
)
def test_a_bundle_says_how_sentences_are_read(flags: tuple[str, ...], checkpoint: Path, tmp_path: Path) -> None:
    """The service does what the bundle says, and golden translations come out as they were made."""
    golden = tmp_path / "golden.txt"
    texts = [*sentences(6), *(f"\u2018{text}\u2019" for text in sentences(6)), *(text.upper() for text in sentences(6))]
    golden.write_text("\n".join(texts), encoding="utf-8")
    assert export(checkpoint, tmp_path / "bundle", "--golden", str(golden), *flags) == 0
    manifest = Bundle.open(tmp_path / "bundle").manifest
    found = (manifest.decoding.lowers_capitals, manifest.decoding.plain_quotes)
    assert found == ("--lower-capitals" in flags, "--plain-quotes" in flags)
    assert not any(one.source.isupper() for one in manifest.golden)
    translator = Translator.load(tmp_path / "bundle", EngineSettings(num_workers=1))  # replays them
    try:
        large, as_read, quoted, plain = translator.translate(["ABC DEF", "Abc def", "\u2018abc\u2019", "'abc'"])
    finally:
        translator.close()
    same = large.alternatives[0].token_ids == as_read.alternatives[0].token_ids
    assert same == ("--lower-capitals" in flags)
    if "--plain-quotes" in flags:
        assert quoted == plain._replace(timings=quoted.timings)


def test_a_precision_given_twice_is_made_once(checkpoint: Path, tmp_path: Path) -> None:
    assert export(checkpoint, tmp_path / "bundle") == 0
    assert list(Bundle.open(tmp_path / "bundle").manifest.precisions) == ["cpu-fp32"]


def test_a_file_is_no_place_for_a_bundle(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    capsys.readouterr()
    assert export(checkpoint, file) == 1
    assert "file exists and is not a bundle" in capsys.readouterr().err
    assert file.read_text() == "mine"


def test_the_folder_that_one_is_in_becomes_the_bundle(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert export(checkpoint, ".") == 0
    Bundle.open(tmp_path / "here")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "here"]


def test_a_link_stays_one_and_leads_to_the_new_bundle(tmp_path: Path) -> None:
    folder, link = tmp_path / "version-1", tmp_path / "links" / "bundle"
    folder.mkdir()
    (folder / "old").touch()
    link.parent.mkdir()
    link.symlink_to(folder)
    with whole_or_nothing(link) as partial:
        (partial / "new").touch()
        assert (link / "old").exists()
    assert link.is_symlink()
    assert [path.name for path in link.iterdir()] == [path.name for path in folder.iterdir()] == ["new"]
    assert [path.name for path in link.parent.iterdir()] == ["bundle"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["links", "version-1"]


@pytest.mark.parametrize("command", ["export", "derive-cuda"])
def test_a_place_that_cannot_be_written_is_named(
    command: str, checkpoint: Path, nonsense_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = nonsense_bundle if command == "derive-cuda" else checkpoint
    limits = ("--max-source-tokens", "64", "--max-target-tokens", "24") if command == "export" else ()
    assert main([command, str(source), "/proc/nowhere/folder", *limits]) == 1
    *_, line = capsys.readouterr().err.splitlines()  # before it: what scales are fixed on
    assert line.startswith("dragoman: [Errno 2] No such file or directory: '/proc/nowhere")


def test_who_writes_a_bundle_is_alone(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second one is told so and touches nothing; the first ends as if nobody had come."""
    bundle = tmp_path / "bundle"
    with whole_or_nothing(bundle) as partial:
        (partial / "half").touch()
        capsys.readouterr()
        assert export(checkpoint, bundle) == 1
        assert capsys.readouterr().err.endswith(f"dragoman: another process is writing {bundle}\n")
        assert (partial / "half").exists()
    assert [path.name for path in bundle.iterdir()] == ["half"]


def test_what_a_killed_process_left_is_in_nobodys_way(checkpoint: Path, tmp_path: Path) -> None:
    script = f"""
import os, pathlib
from export.write_bundle import whole_or_nothing
with whole_or_nothing(pathlib.Path({str(tmp_path / "bundle")!r})) as partial:
    (partial / "cpu-fp32").mkdir()
    (partial / "link").symlink_to("nowhere")
    os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    assert (tmp_path / ".bundle.partial").exists()
    assert export(checkpoint, tmp_path / "bundle") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "checkpoint"]
    assert not (tmp_path / "bundle" / "link").is_symlink()


@pytest.mark.parametrize("margin", [0.0, 1e9])
def test_golden_texts_that_came_to_nothing_are_told(
    margin: float,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Who gave texts to be replayed learns that nothing will be."""
    monkeypatch.setattr("export.golden.GREEDY_MARGIN", margin)
    monkeypatch.setattr("export.golden.BEAM_MARGIN", margin)
    (tmp_path / "texts").write_text("\n".join(sentences(40)))
    limits = ("--max-source-tokens", "64", "--max-target-tokens", "24", "--golden", str(tmp_path / "texts"))
    assert main(["export", str(checkpoint), str(tmp_path / "bundle"), "--precision", "cpu-fp32", *limits]) == 0
    said = "cpu-fp32: no golden translations" in capsys.readouterr().err
    assert said == (not Bundle.open(tmp_path / "bundle").manifest.golden) == (margin > 0)
