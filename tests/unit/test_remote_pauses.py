"""When a remote engine tries again and when it gives up, by a clock that the test turns; what it sends, and what not.

Its engines have no streams: what a stream's thread would do is done here.
"""

import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from service import remote_engine
from service.client import ServiceError
from service.decoding.options import DecodeOptions
from service.engine.request import TextResult
from service.errors import DragomanError, InvalidRequest
from service.pb import translation_pb2 as pb
from service.remote_engine import MAX_DELAY_S, MAX_TRIES, OTHER_BYTES, RemoteEngine, _Call
from tests.unit.transport.scripted_translator import result_of

PATIENCE_S = 10.0
FULL = ServiceError("RESOURCE_EXHAUSTED", "full")


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(remote_engine, "time", clock)
    monkeypatch.setattr(random, "uniform", lambda *_: 1.0)
    return clock


def engine_of(breaks: list[ServiceError], **limits: int) -> RemoteEngine:
    """Of a service with these limits, and of one model."""
    model = pb.Model(name="en-fr", source_languages=["en"], target_languages=["fr"])
    response = pb.ListModelsResponse(models=[model], limits=pb.Limits(**limits))
    client: Any = SimpleNamespace(list_models=lambda: response, close=lambda: None)
    return RemoteEngine(
        client, "en", "fr", DecodeOptions(), num_streams=0, patience_s=PATIENCE_S, on_break=breaks.append
    )


@pytest.fixture
def breaks() -> list[ServiceError]:
    """Why streams ended, as the engine tells it."""
    return []


@pytest.fixture
def engine(clock: Clock, breaks: list[ServiceError]) -> Iterator[RemoteEngine]:
    engine = engine_of(breaks, max_text_characters=1000, max_message_bytes=100)
    yield engine
    engine.close()


class Answers:
    """Those of one text."""

    def __init__(self, engine: RemoteEngine, text: str) -> None:
        self.found: list[TextResult | DragomanError] = []
        engine.submit(text, self.found.append)


def pause_after(engine: RemoteEngine, clock: Clock, answer: TextResult | ServiceError) -> float:
    """Sends the oldest text, which is answered so; the pause that follows, in seconds, which pass."""
    item = engine.next_text()
    assert item is not None
    engine._receive(item, answer)
    pause_s = max(engine._paused_until - clock.now, 0.0)
    clock.now += pause_s
    return round(pause_s, 6)


def test_pauses_double_up_to_a_limit(engine: RemoteEngine, clock: Clock):
    Answers(engine, "a")
    pauses = [pause_after(engine, clock, FULL) for _ in range(8)]
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, MAX_DELAY_S, MAX_DELAY_S]


def test_no_pause_is_shorter_than_the_service_wants(engine: RemoteEngine, clock: Clock):
    Answers(engine, "a")
    wanted = [3.0, 3.0, 1000.0]
    pauses = [pause_after(engine, clock, ServiceError("UNAVAILABLE", "", seconds)) for seconds in wanted]
    assert pauses == [3.0, 6.0, MAX_DELAY_S]


def test_an_answer_ends_the_doubling(engine: RemoteEngine, clock: Clock):
    first, second = Answers(engine, "a"), Answers(engine, "b")
    assert [pause_after(engine, clock, FULL) for _ in range(3)] == [0.2, 0.4, 0.8]
    assert pause_after(engine, clock, result_of("a")) == 0.0
    assert pause_after(engine, clock, FULL) == 0.2
    assert (len(first.found), len(second.found)) == (1, 0)


def test_many_refusals_at_the_same_time_are_one(engine: RemoteEngine, clock: Clock):
    for _ in range(3):
        Answers(engine, "a")
    items = [engine.next_text() for _ in range(3)]
    for item in items:
        assert item is not None
        engine._receive(item, FULL)
    assert engine._paused_until - clock.now == pytest.approx(0.2)


def wait(engine: RemoteEngine, clock: Clock, seconds: float) -> None:
    """As whoever waits for an answer does: looks again and again whether there will be one."""
    for _ in range(round(seconds / 0.1)):
        clock.now += 0.1
        _ = engine.failure


def test_time_without_an_open_text_is_not_waited_for(engine: RemoteEngine, clock: Clock):
    wait(engine, clock, 10 * PATIENCE_S)
    Answers(engine, "a")
    wait(engine, clock, PATIENCE_S * 0.9)
    Answers(engine, "b")
    assert engine.failure is None
    wait(engine, clock, PATIENCE_S * 0.2)
    assert isinstance(engine.failure, ServiceError), "a second text is no answer to the first"
    assert "no answer for 10 s" in str(engine.failure)


def test_patience_begins_anew_with_each_answer(engine: RemoteEngine, clock: Clock):
    for text in "ab":
        Answers(engine, text)
    wait(engine, clock, PATIENCE_S * 0.9)
    pause_after(engine, clock, result_of("a"))
    wait(engine, clock, PATIENCE_S * 0.9)
    pause_after(engine, clock, FULL)  # a refusal is none
    wait(engine, clock, PATIENCE_S * 0.2)
    assert "the last refusal was: RESOURCE_EXHAUSTED: full" in str(engine.failure)


def test_time_in_which_the_process_was_stopped_tries_no_patience(engine: RemoteEngine, clock: Clock):
    Answers(engine, "a")
    wait(engine, clock, PATIENCE_S * 0.5)
    clock.now += 100 * PATIENCE_S
    wait(engine, clock, PATIENCE_S * 0.3)
    assert engine.failure is None
    wait(engine, clock, PATIENCE_S * 0.2)
    assert engine.failure is not None


def test_what_the_service_could_never_take_is_not_sent(engine: RemoteEngine):
    """The service's gRPC would end the stream over it, without a word about which text it was."""
    bytes_left = 100 - OTHER_BYTES
    for text in ("x" * 1001, "x" * (bytes_left + 1), "é" * (bytes_left // 2 + 1)):
        [answer] = Answers(engine, text).found
        assert isinstance(answer, InvalidRequest)
    assert Answers(engine, "é" * (bytes_left // 2)).found == []
    assert engine.next_text() is not None


@pytest.mark.usefixtures("clock")
def test_a_service_that_names_no_limit_of_bytes_has_none():
    engine = engine_of([], max_text_characters=1000)
    assert Answers(engine, "x" * 1000).found == []
    [refused] = Answers(engine, "x" * 1001).found
    assert "1001 characters are more than the service's 1000" in str(refused)
    engine.close()


def test_what_no_utf_8_has_is_counted_like_any_other_text(engine: RemoteEngine):
    """A lone surrogate: the client's own error says so; one here would end whoever reads the texts."""
    assert Answers(engine, "\ud800").found == []


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED", "ABORTED"])
def test_a_text_that_was_not_done_is_sent_again_as_often_as_it_takes(engine: RemoteEngine, clock: Clock, code: str):
    text = Answers(engine, "a")
    for _ in range(2 * MAX_TRIES):
        pause_after(engine, clock, ServiceError(code, "not now"))
    assert text.found == []


def test_a_text_that_may_be_the_reason_is_sent_so_many_times(engine: RemoteEngine, clock: Clock):
    text = Answers(engine, "a")
    for _ in range(MAX_TRIES):
        assert text.found == []
        pause_after(engine, clock, ServiceError("INTERNAL", "a bug"))
    assert [str(answer) for answer in text.found] == ["INTERNAL: a bug"]


def test_texts_that_come_back_keep_their_order_and_go_first(engine: RemoteEngine):
    for text in "abcd":
        Answers(engine, text)
    sent = [engine.next_text() for _ in range(2)]
    engine.put_back([item for item in sent if item is not None])
    assert [item.text for item in engine._waiting] == ["a", "b", "c", "d"]


def test_a_break_is_told_once_until_the_next_answer(engine: RemoteEngine, clock: Clock, breaks: list[ServiceError]):
    idle, broken = (ServiceError(code, "") for code in ("DEADLINE_EXCEEDED", "INTERNAL"))
    engine._broken(idle)
    assert breaks == [], "there was no text to send again"
    for text in "ab":
        Answers(engine, text)
    engine._broken(broken)
    engine._broken(idle)
    assert breaks == [broken]
    clock.now += MAX_DELAY_S
    pause_after(engine, clock, result_of("a"))
    engine._broken(idle)
    assert breaks == [broken, idle]
    assert engine.failure is None
    engine._broken(ServiceError("UNAUTHENTICATED", "the token is not known here"))
    assert "UNAUTHENTICATED" in str(engine.failure), "no other stream would change that"


def test_a_text_that_comes_while_its_stream_ends_goes_to_the_next(
    engine: RemoteEngine, monkeypatch: pytest.MonkeyPatch
):
    Answers(engine, "sent")
    Answers(engine, "late")
    call = _Call(engine)
    texts = call.texts()
    assert next(texts) == ("0", "sent")
    take = engine.next_text

    def next_text() -> object:
        item = take()
        call.end()
        return item

    with monkeypatch.context() as ending:
        ending.setattr(engine, "next_text", next_text)
        assert list(texts) == []
    assert sorted(item.text for item in engine._waiting) == ["late", "sent"]
