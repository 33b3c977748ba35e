"""The life of the service: begin, serve, drain, end, and every way it can go wrong; with scripted translators."""

import asyncio
import json
import os
import signal
import socket
import threading
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import pytest

from service.app import Application, bundle_paths
from service.errors import BundleError, ConfigurationError
from service.pb import translation_pb2_grpc as pb_grpc
from service.transport.tracing import SilentTracer
from tests.unit.served_application import Facts, config, serve
from tests.unit.transport.running_server import request
from tests.unit.transport.scripted_translator import ScriptedTranslator, model_info


def http_status(port: object, page: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{page}", timeout=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_it_serves_and_leaves_with_zero(tmp_path: Path, facts: Facts):
    translator = ScriptedTranslator()

    async def use(found: dict[str, object]) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{found['port']}") as channel:
            response = await pb_grpc.TranslationServiceStub(channel).Translate(request("a"))
        assert response.results[0].translation.text == "A"
        pages = {page: await asyncio.to_thread(http_status, found["metrics_port"], page) for page in PAGES}
        assert pages == {"/metrics": 200, "/livez": 200, "/readyz": 200, "/nothing": 404}

    assert serve(Application(config(tmp_path), lambda *_: translator), facts, use) == 0
    assert facts.found["starting"]["config"]["max_texts"] == 1024
    assert facts.found["serving"]["models"] == ["en-fr"]


def test_metrics_are_switched_off_apart_from_the_probes(tmp_path: Path, facts: Facts):
    async def use(found: dict[str, object]) -> None:
        pages = {page: await asyncio.to_thread(http_status, found["metrics_port"], page) for page in PAGES}
        assert pages == {"/metrics": 404, "/livez": 200, "/readyz": 200, "/nothing": 404}

    app = Application(config(tmp_path, metrics=False), lambda *_: ScriptedTranslator())
    assert serve(app, facts, use) == 0


PAGES = ("/metrics", "/livez", "/readyz", "/nothing")


def test_open_calls_are_answered_before_it_leaves(tmp_path: Path, facts: Facts):
    translator = ScriptedTranslator()
    translator.gate.clear()
    texts: list[str] = []

    async def use(found: dict[str, object]) -> None:
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{found['port']}")
        call = pb_grpc.TranslationServiceStub(channel).Translate(request("a"))

        async def finish() -> None:
            texts.append((await call).results[0].translation.text)
            await channel.close()

        background.append(asyncio.create_task(finish()))
        await asyncio.to_thread(translator.submitted.wait)
        asyncio.get_running_loop().call_later(0.1, translator.gate.set)

    background: list[asyncio.Task[None]] = []
    assert serve(Application(config(tmp_path), lambda *_: translator), facts, use) == 0
    assert texts == ["A"]


def test_what_outlasts_the_grace_is_answered_unavailable(tmp_path: Path, facts: Facts):
    translator = ScriptedTranslator()
    translator.gate.clear()
    codes: list[grpc.StatusCode] = []

    async def use(found: dict[str, object]) -> None:
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{found['port']}")
        call = pb_grpc.TranslationServiceStub(channel).Translate(request("a"))

        async def finish() -> None:
            codes.append(await call.code())
            await channel.close()

        background.append(asyncio.create_task(finish()))
        await asyncio.to_thread(translator.submitted.wait)

    background: list[asyncio.Task[None]] = []
    assert serve(Application(config(tmp_path, drain_grace_s=0.1), lambda *_: translator), facts, use) == 1
    assert codes == [grpc.StatusCode.UNAVAILABLE]


def test_a_failed_engine_ends_the_process(tmp_path: Path, facts: Facts):
    translator = ScriptedTranslator()

    async def run() -> int:
        running = asyncio.create_task(Application(config(tmp_path), lambda *_: translator).run())
        await facts.wait("serving")
        translator.engine.failed.set()
        return await asyncio.wait_for(running, 10)

    assert asyncio.run(run()) == 1


def test_a_stuck_engine_is_not_waited_for(tmp_path: Path, facts: Facts):
    """Its step would outlast any grace."""
    translator = ScriptedTranslator()
    translator.gate.clear()
    translator.turns = lambda: [1.0] * translator.submitted.is_set()  # type: ignore[method-assign]  # since that second
    limits = {"max_step_s": 0.05, "max_stuck_s": 0.1, "drain_grace_s": 3600.0}

    async def run() -> int:
        running = asyncio.create_task(Application(config(tmp_path, **limits), lambda *_: translator).run())
        port = (await facts.wait("serving"))["port"]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = pb_grpc.TranslationServiceStub(channel).Translate(request("a"), timeout=10)
            codes.append(await call.code())
        translator.gate.set()
        return await running

    codes: list[grpc.StatusCode] = []
    assert asyncio.run(run()) == 1
    assert codes == [grpc.StatusCode.UNAVAILABLE]
    assert "an engine is stuck" in facts.found


def test_a_service_does_not_go_on_without_its_watchdog(tmp_path: Path, facts: Facts):
    translator = ScriptedTranslator()

    def fail() -> list[float | None]:
        raise RuntimeError("nobody can say")

    translator.turns = fail  # type: ignore[method-assign]

    async def run() -> int:
        app = Application(config(tmp_path, max_step_s=0.05, max_stuck_s=0.1), lambda *_: translator)
        return await asyncio.wait_for(app.run(), 10)

    assert asyncio.run(run()) == 1
    assert "work in the background failed" in facts.found


def test_the_last_traces_are_sent(tmp_path: Path, facts: Facts, monkeypatch: pytest.MonkeyPatch):
    is_closed = threading.Event()
    tracer = SilentTracer()
    tracer.close = is_closed.set  # type: ignore[method-assign]
    monkeypatch.setattr("service.app.open_tracer", lambda *_: tracer)
    ended: list[tuple[int, bool]] = []
    app = Application(
        config(tmp_path), lambda *_: ScriptedTranslator(), lambda code: ended.append((code, is_closed.is_set()))
    )
    assert serve(app, facts) == 0
    assert ended == [(0, True)], "nothing runs after the process has ended"


def test_a_signal_while_loading_is_obeyed(tmp_path: Path, facts: Facts):
    gate = threading.Event()

    def load(*_: object) -> ScriptedTranslator:
        gate.wait()
        return ScriptedTranslator()

    async def run() -> int:
        running = asyncio.create_task(Application(config(tmp_path), load).run())
        await facts.wait("starting")
        os.kill(os.getpid(), signal.SIGTERM)
        return await asyncio.wait_for(running, 10)

    assert asyncio.run(run()) == 0
    gate.set()


@pytest.mark.parametrize("setting", ["listen", "metrics_listen"])
def test_a_busy_port_is_exit_code_one(tmp_path: Path, facts: Facts, setting: str):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        app = Application(config(tmp_path, **{setting: address}), lambda *_: ScriptedTranslator())
        assert asyncio.run(app.run()) == 1
    assert any(address in message for message in facts.found)


@pytest.mark.parametrize("setting", ["listen", "metrics_listen"])
@pytest.mark.parametrize("host", ["a..b", "a" * 64])
def test_a_host_that_can_be_no_name_is_exit_code_one(tmp_path: Path, facts: Facts, setting: str, host: str):
    app = Application(config(tmp_path, **{setting: f"{host}:0"}), lambda *_: ScriptedTranslator())
    assert asyncio.run(app.run()) == 1
    assert any(f"cannot listen on {host}:0" in message for message in facts.found)


def test_a_port_that_is_busy_at_one_address_of_a_name_is_busy(tmp_path: Path, facts: Facts):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"localhost:{taken.getsockname()[1]}"
        app = Application(config(tmp_path, listen=listen), lambda *_: ScriptedTranslator())
        assert asyncio.run(app.run()) == 1
    assert any(listen in message for message in facts.found)


def test_two_models_for_one_pair_are_refused(tmp_path: Path, facts: Facts):
    names = iter(["one", "two"])
    (tmp_path / "other").mkdir()
    two = config(tmp_path, bundle=(str(tmp_path), str(tmp_path / "other")))
    app = Application(two, lambda *_: ScriptedTranslator(model_info(name=next(names))))
    with pytest.raises(ConfigurationError, match="'one' and 'two' both translate en to fr"):
        asyncio.run(app.run())


def test_a_length_that_the_model_cannot_give_is_refused(tmp_path: Path, facts: Facts):
    app = Application(config(tmp_path, max_length=257), lambda *_: ScriptedTranslator())
    with pytest.raises(ConfigurationError, match=r"max_length \(257\) must be <= 256"):
        asyncio.run(app.run())


def test_a_missing_bundle_is_named(tmp_path: Path):
    with pytest.raises(BundleError, match="no bundle at .*nothing"):
        bundle_paths((str(tmp_path / "nothing"),))


def test_settings_can_be_logged(tmp_path: Path):
    assert json.dumps(config(tmp_path).as_dict())
