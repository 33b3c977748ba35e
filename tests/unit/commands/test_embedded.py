"""`dragoman translate` and `batch` with a model in this process: their flags reach it, and it may be full."""

from dataclasses import replace
from pathlib import Path

import pytest

from service import cli
from service.commands.lines import EmbeddedLines
from service.engine.settings import EngineSettings
from service.engine.translator import Translator
from service.errors import ConfigurationError, EngineFailure, Overloaded, RequestError
from tests.unit.transport.scripted_translator import ScriptedTranslator, refuse_at_first, result_of

WHERE = ("--to", "fr", "--bundle", "bundle")


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[EngineSettings]:
    """What engines were loaded with; there is a bundle, and a file to translate."""
    found: list[EngineSettings] = []

    def load(bundle: Path, settings: EngineSettings, *_: object) -> ScriptedTranslator:
        found.append(settings)
        return ScriptedTranslator()

    monkeypatch.setattr(Translator, "load", load)
    monkeypatch.chdir(tmp_path)
    Path("bundle").mkdir()
    Path("bundle/manifest.json").write_text("{}")
    Path("in.txt").write_text("a\n")
    return found


@pytest.mark.parametrize("words", [("translate", "a"), ("batch", "in.txt", "out.txt")])
def test_precision_and_device_are_those_of_the_flags(words: tuple[str, ...], loaded: list[EngineSettings]) -> None:
    assert cli.main([*words, *WHERE, "--precision", "fp32", "--device", "auto"]) == 0
    assert cli.main([*words, *WHERE, *(("--if-exists", "replace") if "batch" in words else ())]) == 0
    assert [(settings.precision, settings.device) for settings in loaded] == [("fp32", "auto"), ("auto", "cpu")]


@pytest.mark.parametrize(
    ("several", "source", "target", "message"),
    [
        ((), "de", None, "bundle translates en to fr, not from de"),
        ((), None, "de", "bundle translates en to fr, not en to de"),
        (("en", "es"), None, "fr", "bundle translates en or es to fr; name both with --from and --to"),
        (("en", "es"), "de", "fr", "bundle translates en or es to fr, not de to fr"),
    ],
)
def test_languages_that_the_model_has_not(
    several: tuple[str, ...],
    source: str | None,
    target: str | None,
    message: str,
    loaded: list[EngineSettings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was asked for is said, not what could have been; languages not named are those to be named."""
    translator = ScriptedTranslator(replace(ScriptedTranslator().info, source_languages=several))
    monkeypatch.setattr(Translator, "load", lambda *_: translator)
    with pytest.raises(ConfigurationError, match=f"^{message}$"):
        EmbeddedLines(Path("bundle"), EngineSettings(), source, target)


@pytest.mark.usefixtures("loaded")
def test_lines_wait_for_room(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    refusals: list[RequestError] = [Overloaded("the queue is full", 0.001)] * 2
    refuse_at_first(monkeypatch, refusals)
    assert cli.main(["translate", *WHERE, "one", "two"]) == 0
    assert tuple(capsys.readouterr()) == ("ONE\nTWO\n", "")
    assert refusals == []


@pytest.mark.usefixtures("loaded")
def test_lines_that_an_engine_refuses_are_empty(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As one that has failed does: nothing is waited for."""

    def submit(*_: object, **__: object) -> None:
        raise EngineFailure()

    monkeypatch.setattr(ScriptedTranslator, "submit", submit)
    assert cli.main(["translate", *WHERE, "one", "two"]) == 1
    printed = capsys.readouterr()
    assert printed.out == "\n\n"
    assert printed.err.count("dragoman translate: text ") == 2


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize("flag", ["split", "length_limited", "repetition_found"])
def test_each_kind_of_flagged_line_is_told_of(
    flag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = result_of("one")._replace(**{flag: True})  # type: ignore[arg-type]
    monkeypatch.setattr(ScriptedTranslator, "_answer", lambda *_: answer)
    assert cli.main(["translate", *WHERE, "one"]) == 0
    assert "1 of 1 translations: the text was split, or the translation ends" in capsys.readouterr().err
    assert cli.main(["translate", *WHERE, "--json", "one"]) == 0
    assert f'"{flag}": true' in capsys.readouterr().out
