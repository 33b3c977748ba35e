"""Language codes and the choice of a model."""

from dataclasses import replace

import pytest

from service.engine.request import ModelInfo
from service.errors import ConfigurationError, InvalidRequest, LanguagePairNotLoaded
from service.transport.languages import choose_model, covers, fallbacks, is_language_code, model_languages
from service.transport.registry import ModelRegistry
from tests.unit.transport.scripted_translator import ScriptedTranslator, model_info


@pytest.mark.parametrize("code", ["en", "EN", "pt-BR", "zh-Hant-TW", "es-419", "sl-rozaj", "gsw", "de-1996"])
def test_codes(code: str):
    assert is_language_code(code)


@pytest.mark.parametrize("code", ["zh-yue", "zh-cmn-Hans-CN", "en-US-u-hc-h12", "en-x-ours", "de-a-foo-b-bar-x-1"])
def test_codes_with_more_than_a_model_knows(code: str):
    assert is_language_code(code)


@pytest.mark.parametrize(
    "code", ["", "e", "english language", "fr_FR", "en-", "en--US", "é", "en\n", "x" * 36, "en-u", "en-x"]
)
def test_what_is_no_code(code: str):
    assert not is_language_code(code)


def test_a_script_is_never_dropped():
    assert list(fallbacks("zh-Hant-TW")) == ["zh-hant-tw", "zh-hant"]
    assert list(fallbacks("en-US")) == ["en-us", "en"]
    assert covers("en", "en-US")
    assert covers("en-US", "en-US-u-hc-h12")
    assert covers("zh", "zh-yue")
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


def several(name: str = "m") -> ModelInfo:
    info = model_info("en", "fr", name=name)
    return replace(info, target_languages=("fr", "de", "zh-Hans"))


def test_a_model_of_several_targets():
    info = several()
    assert choose_model([info], "en-GB", "de-AT") is info
    assert model_languages(info, "en-GB", "de-AT") == ("en", "de")
    assert model_languages(info, "", "ZH-hans-CN") == ("en", "zh-Hans")
    with pytest.raises(LanguagePairNotLoaded, match="en to fr or de or zh-Hans"):
        choose_model([info], "en", "it")
    with pytest.raises(InvalidRequest, match="of which one must be named") as error:
        model_languages(info, "en", "")
    assert error.value.field == "target_language"
    with pytest.raises(InvalidRequest, match="not 'it'"):
        model_languages(info, "en", "it")


def test_a_pair_may_be_served_only_once():
    models = [ScriptedTranslator(several()), ScriptedTranslator(model_info("en", "de"))]
    with pytest.raises(ConfigurationError, match="both translate en to de"):
        ModelRegistry(models)
    registry = ModelRegistry(models[:1])
    assert registry.choose("m", "", "de") is models[0]
    with pytest.raises(InvalidRequest, match="must be named"):
        registry.choose("m", "", "")
    for model in models:
        model.close()
