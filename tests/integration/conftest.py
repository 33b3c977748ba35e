"""Engines of the small random model, closed after their test."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from service.engine.translator import Translator
from tests.integration.gated_engine import SETTINGS


@pytest.fixture
def load(nonsense_bundle: Path) -> Iterator[Callable[..., Translator]]:
    loaded: list[Translator] = []

    def make(**changes: object) -> Translator:
        settings = replace(SETTINGS, **changes)  # type: ignore[arg-type]
        loaded.append(Translator.load(nonsense_bundle, settings))
        return loaded[-1]

    yield make
    for translator in loaded:
        translator.close()
