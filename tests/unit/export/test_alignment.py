"""Pieces to words, attention to links, pictures that are pictures."""

import re
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export.align import align
from export.alignment import Alignment, Words, align_words, as_html, draw, pharaoh, words_at
from export.write_bundle import write_manifest
from service.cli import main
from service.commands.exit_codes import CONFIGURATION
from service.decoding.options import DecodeOptions
from service.engine.settings import EngineSettings
from service.engine.translator import Translator
from service.errors import InputError
from service.runtime.bundle import Bundle, Decoding

SHIPPED = Path(__file__).parents[3] / "service" / "models" / "en-fr"


@pytest.fixture
def crossed() -> Alignment:
    return Alignment(("red", "<b>house"), ("maison", "rouge"), np.array([[0.2, 0.7], [0.9, 0.05]]))


def test_tokens_to_words() -> None:
    assert words_at("a bc", [(0, 1), (2, 3), (3, 4)]) == Words(("a", "bc"), [0, 1, 1])
    assert words_at("\x85", [(0, 1), (1, 1)]) == Words(("\x85",), [0, 0])
    # A lone space stands at the word after it, an invisible last token in the word before.
    assert words_at(" xy  z", [(1, 2), (2, 3), (5, 5), (5, 6), (6, 6)]) == Words(("xy", "z"), [0, 0, 1, 1, 1])


def test_a_words_attention_is_its_tokens() -> None:
    attention = np.array([[0.5, 0.2, 0.2, 0.1], [0.1, 0.4, 0.4, 0.1], [0.3, 0.3, 0.2, 0.2], [0.0, 0.0, 0.0, 1.0]])
    found = align_words(Words(("a", "bc"), [0, 1, 1]), Words(("d", "ef"), [0, 1, 1]), attention)
    assert found.source == ("a", "bc")
    assert found.target == ("d", "ef")
    assert found.weights == pytest.approx(np.array([[0.5, 0.4], [0.2, 0.65]]))


def test_pharaoh_is_source_then_target(crossed: Alignment) -> None:
    assert pharaoh(crossed) == "1-0 0-1"


def test_page_is_whole_and_escaped(crossed: Alignment) -> None:
    page = as_html(crossed)
    assert "&lt;b&gt;house" in page
    assert "<b>" not in page
    assert not re.search(r"https?:|src=|@import", page)
    assert page.count('<td style="background') == 4
    assert ">0.90<" in page


def test_picture(crossed: Alignment, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib (extra bench)")
    draw(crossed, tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    money = Alignment(("$_$", "US$100-$200"), crossed.target, crossed.weights)
    draw(money, tmp_path / "money.picture")
    assert (tmp_path / "money.picture").read_bytes().startswith(b"\x89PNG")


def test_picture_without_matplotlib(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    arguments = [str(SHIPPED), "Tom sleeps.", "--translation", "Tom dort.", "--png", str(tmp_path / "map.png")]
    assert main(["align", *arguments]) == CONFIGURATION
    assert capsys.readouterr().err == "dragoman align: --png needs matplotlib: pip install matplotlib\n"


def test_names_are_aligned_by_the_shipped_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "map.html"
    words = "Tom saw Mary in Boston .", "Tom a vu Mary à Boston ."
    assert main(["align", str(SHIPPED), words[0], "--translation", words[1], "--html", str(page)]) == 0
    links = set(capsys.readouterr().out.split())
    assert {"0-0", "2-3", "4-5"} <= links
    assert "Boston" in page.read_text(encoding="utf-8")


def test_a_zip_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of what it was unpacked to, whether the command does its work or refuses."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", SHIPPED)
    assert main(["align", packed, "Tom sleeps.", "--translation", "Tom dort."]) == 0
    assert capsys.readouterr().out == "0-0 1-1\n"
    assert main(["align", packed, "Tom sleeps.", "--to", "de"]) == 1
    assert not list(place.iterdir())


def test_own_translation_is_the_one_that_is_served(tmp_path: Path) -> None:
    """With what the model's authors chose for every search, and ended where it begins to repeat itself."""
    chosen = replace(Bundle.open(SHIPPED).manifest, golden=(), decoding=Decoding(no_repeat_ngram_size=2, min_length=12))
    shutil.copytree(SHIPPED, tmp_path / "bundle")
    write_manifest(tmp_path / "bundle", chosen)
    translator = Translator.load(tmp_path / "bundle", EngineSettings(num_workers=1, threads_per_worker=1))
    texts = ("Thank you.", "very very very very very very good")
    try:
        served = [result.text for result in translator.translate(texts, DecodeOptions(num_beams=1))]
    finally:
        translator.close()
    bundle = Bundle.open(tmp_path / "bundle")
    assert [" ".join(align(bundle, text, None, None).target) for text in texts] == served


def test_own_translation_and_refusals(capsys: pytest.CaptureFixture[str]) -> None:
    bundle = Bundle.open(SHIPPED)
    found = align(bundle, "Thank you.", None, None)
    assert found.weights.shape == (len(found.target), 2)
    assert (found.weights.sum(axis=1) <= 1.0001).all()
    for flags in (["--to", "de"], ["--from", "zz"]):
        assert main(["align", str(SHIPPED), "Thank you.", *flags]) == 1
    assert main(["align", str(SHIPPED), "Thank you.", "--from", "en-US", "--html", "/nowhere/a.html"]) == 1
    for words in (["caf\udce9"], ["Thank you.", "--translation", "caf\udce9"]):
        assert main(["align", str(SHIPPED), *words]) == 1
        assert "a text is not valid UTF-8" in capsys.readouterr().err
    with pytest.raises(InputError, match="the text has 1 tokens"):
        align(bundle, " ", None, None)
    with pytest.raises(InputError, match="no graphs of fp64; it has"):
        align(bundle, "Thank you.", None, "fp64")
