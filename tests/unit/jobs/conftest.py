"""`dragoman batch` in this process, with a translator that answers in upper case."""

from collections.abc import Callable
from pathlib import Path

import pytest

from service import cli
from service.engine.translator import Translator
from service.jobs import text_engine
from tests.unit.transport.scripted_translator import ScriptedTranslator

Batch = Callable[..., int]


@pytest.fixture
def translator(monkeypatch: pytest.MonkeyPatch) -> ScriptedTranslator:
    """What every bundle is loaded as."""
    scripted = ScriptedTranslator()
    monkeypatch.setattr(Translator, "load", lambda *_: scripted)
    return scripted


@pytest.fixture
def batch(tmp_path: Path, translator: ScriptedTranslator, monkeypatch: pytest.MonkeyPatch) -> Batch:
    """Runs the command with INPUT, OUTPUT and flags in an empty folder; the exit code, also where argparse leaves.

    The scripted translator closes with the first run; every run gets a fresh one with the same script.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "manifest.json").write_text("{}")

    def load(*_: object) -> ScriptedTranslator:
        fresh = ScriptedTranslator(translator.info)
        fresh.answers, fresh.submissions = translator.answers, translator.submissions
        return fresh

    monkeypatch.setattr(text_engine, "MAX_WAIT_S", 0.001)
    monkeypatch.setattr(Translator, "load", load)

    def run(*arguments: str) -> int:
        try:
            target = () if "--to" in arguments else ("--to", "fr")
            return cli.main(["batch", *arguments, *target, *(() if "--target" in arguments else BUNDLE)])
        except SystemExit as end:
            return int(end.code or 0)

    return run


BUNDLE = ("--bundle", "bundle")
