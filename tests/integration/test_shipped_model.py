"""The model in the repository: what it says, that it says the same however it is asked, and that it stays small."""

import gzip
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.app import SHIPPED_BUNDLE
from service.client import Client
from service.decoding.options import DecodeOptions
from service.engine.request import TextResult
from service.engine.translator import Translator
from service.runtime.bundle import Bundle
from tests.integration.launched_server import ROOT, LaunchedServer

pytestmark = pytest.mark.integration
BEAMS = (1, 4)
TEXTS = [
    "Good morning!",
    "I would like to know when the next train leaves.",
    "She has been learning French for three years.",
    "My brother doesn't eat meat, but he likes fish.",
    "Can you tell me where the nearest bank is?",
    "It was raining. We stayed at home and read books.",
    "Mr President, I would like to thank the rapporteur for this important work.",
    "The committee has approved the proposal that was presented last week by the Commission.",
    "- First item\n- Second item\n\n    Indented, with    many spaces.",
    "Dr. Smith paid $3.50 for it; that was too much, he said, but he needed it for his work in the new laboratory.",
]


def test_it_fits_into_the_repository() -> None:
    files = [path for path in SHIPPED_BUNDLE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 16 * 2**20


def test_its_card_says_what_it_was_trained_on() -> None:
    card = Bundle.open(SHIPPED_BUNDLE).manifest.card
    assert "Tatoeba" in str(card["training_text"])
    assert "Europarl" in str(card["training_text"])
    assert "CC BY 2.0 FR" in str(card["terms"])
    assert card["scores"]


def test_it_translates() -> None:
    translator = Translator.load(SHIPPED_BUNDLE)
    try:
        results = translator.translate(["Thank you very much.", "Where is the station?", "She has two children."])
        assert [result.text for result in results] == [
            "Merci beaucoup.",
            "Où est la gare ?",
            "Elle a deux enfants.",
        ]
    finally:
        translator.close()


def test_no_word_is_translated_by_nothing() -> None:
    """Alone, these ended at once: an empty translation that nothing told from a whole one."""
    words = ["happy", "bad", "able", "clean", "old", "crime", "dollar", "famous", "c", "d", "j"]
    translator = Translator.load(SHIPPED_BUNDLE)
    try:
        for beams in BEAMS:
            results = translator.translate(words, DecodeOptions(num_beams=beams))
            assert [word for word, result in zip(words, results, strict=True) if not result.text.strip()] == []
    finally:
        translator.close()


def results_alone(texts: list[str]) -> dict[int, list[tuple[str, float]]]:
    """Each text translated by itself in this process: (translation, score) by beam width."""
    translator = Translator.load(SHIPPED_BUNDLE)
    try:
        found = {}
        for beams in BEAMS:
            options = DecodeOptions(num_beams=beams)
            answers = [translator.translate([text], options)[0] for text in texts]
            found[beams] = [(answer.text, answer.score) for answer in answers]
            for start in range(0, len(texts), 64):
                batch = translator.translate(texts[start : start + 64], options)
                assert [(r.text, r.score) for r in batch] == found[beams][start : start + 64]
        return found
    finally:
        translator.close()


def check_service_under_load(texts: list[str], clients: int) -> None:
    """Many clients ask for all texts at once, greedy and beam mixed: everyone gets what asking alone gives."""
    alone = results_alone(texts)
    with LaunchedServer() as server:

        def ask(number: int) -> None:
            beams = BEAMS[number % 2]
            with Client(server.address) as client:
                shift = number * 7 % len(texts)
                turned = texts[shift:] + texts[:shift]
                options = DecodeOptions(num_beams=beams)
                results = client.translate(turned, source="en", target="fr", options=options)
            wanted = alone[beams][shift:] + alone[beams][:shift]
            for result, (text, score) in zip(results, wanted, strict=True):
                assert isinstance(result, TextResult)
                assert result.text == text
                assert result.score == pytest.approx(score, abs=1e-6)  # a float on the wire

        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(ask, range(clients)))


def test_alone_in_batches_and_through_a_busy_service_it_says_the_same() -> None:
    check_service_under_load(TEXTS, clients=6)


@pytest.mark.slow
def test_500_sentences_are_the_same_however_they_are_asked_for() -> None:
    if "DRAGOMAN_DATA" not in os.environ:
        pytest.skip("DRAGOMAN_DATA must name the folder with the test sets")
    data = Path(os.environ["DRAGOMAN_DATA"])
    with gzip.open(data / "eval" / "newstest2013.en-fr.en.gz", "rt", encoding="utf-8") as news:
        texts = [line.rstrip("\n") for line in news][:250]
    with gzip.open(data / "en-fr" / "tatoeba.test.tsv.gz", "rt", encoding="utf-8") as everyday:
        texts += [line.split("\t")[0] for line in everyday][:250]
    check_service_under_load(texts, clients=8)


def test_a_ready_server_is_small() -> None:
    with LaunchedServer() as server:
        assert server.resident_bytes() < 400 * 2**20


def test_its_card_holds_the_scores_that_were_measured() -> None:
    card = Bundle.open(SHIPPED_BUNDLE).manifest.card
    measured = json.loads((ROOT / "benchmarks" / "results" / "quality.json").read_text(encoding="utf-8"))
    rows = [row for row in measured["rows"] if row["precision"] == "cpu-int8"]
    wanted = {(row["test"], row["num_beams"], round(row["bleu"], 2)) for row in rows}
    assert {(score["test"], score["num_beams"], score["bleu"]) for score in card["scores"]} == wanted
