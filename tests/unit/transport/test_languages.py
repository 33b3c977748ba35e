"""Language codes and the choice of a model."""

import pytest

from service.errors import ConfigurationError, LanguagePairNotLoaded
from service.transport.languages import choose_model, covers, fallbacks, is_language_code
from service.transport.registry import ModelRegistry
from tests.unit.transport.scripted_translator import ScriptedTranslator, model_info


@pytest.mark.parametrize("code", ["en", "EN", "pt-BR", "zh-Hant-TW", "es-419", "sl-rozaj", "gsw", "de-1996"])
def test_codes(code: str):
    assert is_language_code(code)


@pytest.mark.parametrize("code", ["", "e", "english language", "fr_FR", "en-", "en--US", "é", "en\n", "x" * 36])
def test_what_is_no_code(code: str):
    assert not is_language_code(code)


def test_a_script_is_never_dropped():
    assert list(fallbacks("zh-Hant-TW")) == ["zh-hant-tw", "zh-hant"]
    assert list(fallbacks("en-US")) == ["en-us", "en"]
    assert covers("en", "en-US")
    assert not covers("en-US", "en")
    assert not covers("zh", "zh-Hant")


def test_the_nearest_model_is_chosen():
    models = [model_info("en", "pt"), model_info("en", "pt-BR"), model_info("en-GB", "pt")]
    assert choose_model(models, "en-US", "pt-BR").name == "en-pt-BR"
    assert choose_model(models, "en", "pt-PT").name == "en-pt"
    assert choose_model(models, "en-gb", "pt").name == "en-GB-pt"
    with pytest.raises(LanguagePairNotLoaded, match="en to pt, en to pt-BR"):
        choose_model(models, "en", "fr")
    with pytest.raises(LanguagePairNotLoaded, match="loaded: none"):
        choose_model([], "en", "fr")


def test_two_models_of_one_name_are_refused():
    models = [ScriptedTranslator(model_info("en", target, name="m")) for target in ("fr", "de")]
    with pytest.raises(ConfigurationError, match="same name, 'm'"):
        ModelRegistry(models)
    for model in models:
        model.close()
