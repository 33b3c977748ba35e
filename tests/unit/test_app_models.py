"""Models that are replaced while the service runs: watched as the first ones, freed, and not without end."""

import asyncio
import gc
import weakref
from pathlib import Path

import grpc
import pytest

from service.app import Application
from service.model_store import Change, ModelStore
from service.pb import translation_pb2_grpc as pb_grpc
from tests.unit.served_application import Facts, config, serve
from tests.unit.transport.running_server import request
from tests.unit.transport.scripted_translator import ScriptedTranslator


def test_the_collector_passes_over_models_that_serve_and_frees_those_that_do_not(tmp_path: Path, facts: Facts):
    loaded: list[weakref.ref[ScriptedTranslator]] = []

    def load(*_: object) -> ScriptedTranslator:
        translator = ScriptedTranslator()
        translator.itself = translator  # a cycle: reference counts alone never free it
        loaded.append(weakref.ref(translator))
        return translator

    async def use(_: dict[str, object]) -> None:
        looked_at = gc.get_objects()
        assert not any(item is loaded[0]() for item in looked_at)
        del looked_at
        await facts.reload(tmp_path, "retired")
        assert [ref() is None for ref in loaded] == [True, False]

    assert serve(Application(config(tmp_path), load), facts, use) == 0
    assert gc.get_freeze_count() == 0


def test_a_failed_engine_that_came_later_ends_it_too(tmp_path: Path, facts: Facts):
    translators = [ScriptedTranslator(), ScriptedTranslator()]
    loading = iter(translators)

    async def run() -> int:
        running = asyncio.create_task(Application(config(tmp_path), lambda *_: next(loading)).run())
        await facts.wait("serving")
        await facts.reload(tmp_path, "retired")
        translators[1].engine.failed.set()
        return await asyncio.wait_for(running, 10)

    assert asyncio.run(run()) == 1


def test_a_look_at_the_models_that_fails_is_not_the_last(tmp_path: Path, facts: Facts, monkeypatch: pytest.MonkeyPatch):
    original, failures = ModelStore.refresh, [RuntimeError("nobody can say")]

    def refresh(store: ModelStore, is_asked: bool) -> Change:
        if failures:
            raise failures.pop()
        return original(store, is_asked)

    monkeypatch.setattr(ModelStore, "refresh", refresh)

    async def use(_: dict[str, object]) -> None:
        await facts.reload(tmp_path, "models could not be looked at; those that were loaded go on")
        await facts.reload(tmp_path, "models looked at")

    assert serve(Application(config(tmp_path), lambda *_: ScriptedTranslator()), facts, use) == 0


def test_a_replaced_version_that_cannot_be_ended_is_told(tmp_path: Path, facts: Facts):
    loaded: list[ScriptedTranslator] = []

    def load(*_: object) -> ScriptedTranslator:
        loaded.append(ScriptedTranslator())
        return loaded[-1]

    def fail(*_: object) -> bool:
        raise RuntimeError("it does not end")

    async def use(_: dict[str, object]) -> None:
        end = loaded[0].close
        loaded[0].close = fail  # type: ignore[method-assign,assignment]
        await facts.reload(tmp_path, "work in the background failed")
        loaded[0].close = end  # type: ignore[method-assign]

    assert serve(Application(config(tmp_path), load), facts, use) == 0


def test_nothing_is_replaced_while_too_many_versions_are_in_use(
    tmp_path: Path, facts: Facts, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("service.app.MAX_RETIRED", 2)
    loaded: list[ScriptedTranslator] = []

    def load(*_: object) -> ScriptedTranslator:
        loaded.append(ScriptedTranslator())
        loaded[-1].gate.clear()
        return loaded[-1]

    async def use(found: dict[str, object]) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{found['port']}") as channel:
            stub, calls = pb_grpc.TranslationServiceStub(channel), []
            for message in ("models looked at", "models looked at", "models are not looked at"):
                calls.append(asyncio.ensure_future(stub.Translate(request("a"))))
                await asyncio.to_thread(loaded[-1].submitted.wait)
                await facts.reload(tmp_path, message)
            assert facts.found["models are not looked at"] == {"versions_still_used": 2}
            assert len(loaded) == 3
            open_the_gates()
            await asyncio.gather(*calls)

    def open_the_gates() -> None:
        for translator in loaded:
            translator.gate.set()

    try:
        assert serve(Application(config(tmp_path), load), facts, use) == 0
    finally:
        open_the_gates()
