"""What every test here needs: texts, and what the shipped model makes of them when nothing goes wrong."""

import pytest

from service.app import SHIPPED_BUNDLE
from service.decoding.options import DecodeOptions
from service.engine.settings import EngineSettings
from service.engine.translator import Translator

TEXTS = (
    "Good morning.",
    "Where is the station?",
    "She has two children and a dog.",
    "I would like to know when the next train leaves.",
    "The committee has approved the proposal.",
    "It was raining, so we stayed at home and read books.",
    "Thank you very much for your help.",
    "He said that he would come back tomorrow with his brother.",
)


@pytest.fixture(scope="session")
def golden() -> dict[str, str]:
    """Text -> greedy translation by an undisturbed engine."""
    translator = Translator.load(SHIPPED_BUNDLE, EngineSettings(num_workers=1))
    results = translator.translate(TEXTS, DecodeOptions(num_beams=1))
    translator.close()
    return {text: result.text for text, result in zip(TEXTS, results, strict=True)}
