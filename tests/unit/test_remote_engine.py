"""The engine that is a running service: what it sends again, and which model it finds."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from service.client import Client
from service.decoding.options import DecodeOptions
from service.engine.request import Priority, TextResult
from service.errors import ConfigurationError, DragomanError
from service.pb import translation_pb2 as pb
from service.remote_engine import RemoteEngine
from tests.unit.transport.running_server import Running, running_on_thread

NUM_TEXTS = 300
HELD = "text 5"


def hold(running: Running, end: threading.Event) -> None:
    """One text is not answered there before the end; all that come after it are."""
    original = running.translator._answer

    def answer(text: str, *rest: Any) -> Any:
        if text == HELD:
            end.wait(30)
        return original(text, *rest)

    running.translator._answer = answer  # type: ignore[method-assign]


def break_off(running: Running) -> None:
    """As when the drain takes longer than its grace: what is open ends with UNAVAILABLE."""
    for step in (running.server.announce_end(), running.server.drain(0), running.server.settle()):
        asyncio.run_coroutine_threadsafe(step, running.loop).result(10)


def test_only_what_has_no_answer_is_sent_again():
    answers: dict[str, list[TextResult | DragomanError]] = {f"text {number}": [] for number in range(NUM_TEXTS)}
    left = threading.Semaphore(0)
    end = threading.Event()
    with running_on_thread() as first, running_on_thread() as second:
        client = Client(f"ipv4:{first.address},{second.address}")
        hold(first, end)
        hold(second, end)
        engine = RemoteEngine(client, "en", "fr", DecodeOptions(), priority=Priority.BATCH)
        for text, found in answers.items():
            engine.submit(text, lambda answer, found=found: (found.append(answer), left.release()))  # type: ignore[misc]
        for _ in range(NUM_TEXTS - 1):
            assert left.acquire(timeout=30)
        leaving, other = (first, second) if first.translator.submissions else (second, first)
        break_off(leaving)
        end.set()
        assert left.acquire(timeout=30)
        assert engine.failure is None
        engine.close()
    assert [(texts, priority) for texts, _, priority, _ in other.translator.submissions] == [([HELD], Priority.BATCH)]
    assert all([getattr(answer, "text", "") for answer in found] == [text.upper()] for text, found in answers.items())


def listing(*pairs: tuple[str, str]) -> Any:
    """A client of a service with a model for each pair."""
    models = [
        pb.Model(name=f"{source}-{target}", source_languages=[source], target_languages=[target])
        for source, target in pairs
    ]
    response = pb.ListModelsResponse(models=models)
    return SimpleNamespace(list_models=lambda: response, close=lambda: None)


@pytest.mark.parametrize(
    ("source", "name"), [("pt-BR", "pt-BR-en"), ("pt", "pt-en"), ("pt-PT", "pt-en"), ("PT-br", "pt-BR-en")]
)
def test_the_nearest_model_is_the_one_that_the_service_takes(source: str, name: str):
    engine = RemoteEngine(listing(("pt", "en"), ("pt-BR", "en"), ("pt", "de")), source, "en", DecodeOptions())
    assert engine.model["name"] == name
    engine.close()


def test_a_service_without_the_languages():
    with pytest.raises(ConfigurationError, match="no model from de to en"):
        RemoteEngine(listing(("pt", "en")), "de", "en", DecodeOptions())
