"""HTML through the real model: the words of the plain text, between the tags of the source, whoever asks."""

import json
from pathlib import Path

import pytest

from service.app import SHIPPED_BUNDLE
from service.cli import main
from service.client import Client
from service.decoding.options import DecodeOptions
from service.engine.request import TextFormat, TextResult
from service.engine.translator import Translator
from service.errors import InvalidRequest
from tests.integration.launched_server import LaunchedServer

pytestmark = pytest.mark.integration
PAGE = """\
<h1>Good morning!</h1>
<ul>
  <li>She has <b>two</b> children.<!-- both grown up --></li>
  <li><a href="/map?a=1&amp;b=2">Where is the station?</a> Thank you <i>very much</i>.</li>
</ul>
<script>if (1 < 2) { say("Hello") }</script>
<p>The black <em>cat</em> sleeps. &lt;&copy;&gt;</p>"""
SENTENCES = ["Good morning!", "She has two children.", "Where is the station?", "Thank you very much."]
TEXTS = [PAGE, "<b>Thank you very much.</b>", "", "<hr>", "I have <1>two</1> <0>sisters</0>."]
LANGUAGES = {"source": "en", "target": "fr"}


@pytest.fixture(scope="module")
def alone() -> list[TextResult]:
    """Each text by itself, in this process."""
    translator = Translator.load(SHIPPED_BUNDLE)
    try:
        found = []
        for text in TEXTS:
            [result] = translator.translate([text], DecodeOptions(), text_format=TextFormat.HTML)
            found.append(result)
        plain = translator.translate(SENTENCES, DecodeOptions())
        with pytest.raises(InvalidRequest, match="must be 1 with HTML"):
            translator.translate(["a"], DecodeOptions(num_alternatives=2), text_format=TextFormat.HTML)
    finally:
        translator.close()
    ids = found[0].alternatives[0].token_ids
    said = [result.alternatives[0].token_ids for result in plain]
    assert ids[: sum(map(len, said))] == sum(said, ())
    assert found[0].num_sentences == len(SENTENCES) + 1
    return found


def test_tags_come_back_around_their_words(alone: list[TextResult]) -> None:
    page, *others = [result.text for result in alone]
    assert page.startswith(
        "<h1>Bonjour !</h1>\n<ul>\n  <li>Elle a <b>deux</b> enfants.<!-- both grown up --></li>\n"
        '  <li><a href="/map?a=1&amp;b=2">Où est la gare ?</a> Merci <i>beaucoup</i>.</li>\n</ul>\n'
        '<script>if (1 < 2) { say("Hello") }</script>\n<p>Le <em>chat</em> noir dort. &lt;©&gt;</p>'
    )
    assert others == ["<b>Merci beaucoup.</b>", "", "<hr>", "J'ai <1>deux</1> <0>sœurs</0>."]


def test_whoever_asks_gets_the_same(alone: list[TextResult], tmp_path: Path) -> None:
    expected = [(result.text, result.score) for result in alone]
    rows, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    with LaunchedServer() as server, Client(server.address) as client:
        together = client.translate(TEXTS, text_format=TextFormat.HTML, **LANGUAGES)
        streamed = client.translate_stream(TEXTS, text_format=TextFormat.HTML, **LANGUAGES)
        for results in (together, list(streamed)):
            assert [(each.text, each.score) for each in results if isinstance(each, TextResult)] == expected
        command = ["batch", str(rows), str(output), "--to", "fr", "--format", "html", "--if-exists", "replace"]
        for more in ([], ["--target", server.address]):
            assert main([*command, *more]) == 0
            found = [json.loads(line) for line in output.read_text().splitlines()]
            assert [(row["translation"], row["score"]) for row in found] == expected
