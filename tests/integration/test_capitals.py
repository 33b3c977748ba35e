"""Sentences in capitals through the real model: what it says of them otherwise, in capitals, whatever is asked."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from service.app import SHIPPED_BUNDLE
from service.decoding.options import DecodeOptions
from service.engine.request import TextFormat
from service.engine.scoring import PairResult
from service.engine.translator import Translator
from tests.integration.test_html import LANGUAGES
from tests.integration.test_scoring import Answers

pytestmark = pytest.mark.integration
CODES = (LANGUAGES["source"], LANGUAGES["target"])


@pytest.fixture(scope="module")
def translator() -> Iterator[Translator]:
    translator = Translator.load(SHIPPED_BUNDLE)
    yield translator
    translator.close()


def score(translator: Translator, *pairs: tuple[str, str]) -> list[PairResult]:
    answers = Answers(len(pairs))
    translator.submit_pairs(pairs, 1.0, answers, languages=CODES)
    return [answer for answer in answers.in_order() if isinstance(answer, PairResult)]


def test_the_same_words_in_capitals(translator: Translator) -> None:
    large, small, mixed = translator.translate(
        [
            "WHERE IS THE STATION? I AM LATE.",
            "Where is the station? I am late.",
            "Hello. PLEASE CLOSE THE DOOR! Thank you.",
        ]
    )
    assert large.alternatives[0].token_ids == small.alternatives[0].token_ids
    assert large.text == small.text.upper()
    first, *shouted, last = mixed.text.split(" ")
    assert (first, last) == ("Bonjour.", "Merci.")
    assert " ".join(shouted).isupper()


def test_alternatives_too(translator: Translator) -> None:
    options = DecodeOptions(num_beams=4, num_alternatives=3)
    large, small = translator.translate(["THE DOOR IS OPEN.", "The door is open."], options)
    assert [one.text for one in large.alternatives] == [one.text.upper() for one in small.alternatives]


def test_tags_stand_around_their_words(translator: Translator) -> None:
    [page] = translator.translate(["<p>THE BLACK <b>CAT</b> SLEEPS.</p>"], text_format=TextFormat.HTML)
    assert page.text == "<p>LE <b>CHAT</b> NOIR DORT.</p>"


def test_its_score_and_alignment(translator: Translator) -> None:
    source, target = "WHERE IS THE STATION?", "OÙ EST LA GARE ?"
    large, small = score(translator, (source, target), ("Where is the station?", "Où est la gare ?"))
    assert large == replace(small, queue_s=large.queue_s, score_s=large.score_s)
    answers = Answers(1)
    translator.submit([source], DecodeOptions(), answers, languages=CODES, alignment=True)
    [result] = answers.in_order()
    words = {
        (source[a.source_start : a.source_end], result.text[a.target_start : a.target_end]) for a in result.alignment
    }
    assert ("STATION", "GARE") in words
