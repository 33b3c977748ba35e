"""What the client sends with its calls, what it makes of refusals, and what it leaves behind."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import grpc
import pytest

from service.client import Client, ServiceError, channel_options
from service.connection import AUTHORIZATION, Connection, _Bearer
from service.decoding.options import DecodeOptions
from service.engine.request import Priority, TextFormat, TextResult
from service.errors import ConfigurationError, Overloaded
from service.pb import translation_pb2 as pb
from tests.unit.transport.running_server import CLIENT_TIMEOUT_S, Running
from tests.unit.transport.scripted_translator import result_of

EN_FR: dict[str, Any] = {"source": "en", "target": "fr"}


def test_every_option_arrives(server: Running, client: Client):
    options = DecodeOptions(
        num_beams=3,
        num_alternatives=2,
        length_penalty=0.6,
        max_length=9,
        no_repeat_ngram_size=3,
        repetition_penalty=1.5,
        min_length=2,
    )
    same = [field.name for field in fields(options) if getattr(options, field.name) == field.default]
    assert same == [], "what is not sent would not be missed"
    client.translate(["a"], options=options, **EN_FR)
    list(client.translate_stream(["a"], options=options, **EN_FR))
    list(client.stream([("1", "a")], options=options, **EN_FR))
    assert [sent for _, sent, *_ in server.translator.submissions] == [options] * 3


def test_calls_have_a_deadline_and_streams_have_none(server: Running, client: Client):
    client.translate(["a"], **EN_FR)
    client.score([("a", "b")], **EN_FR)
    list(client.translate_stream(["a"], **EN_FR))
    [(*_, of_translate), (*_, of_stream)] = server.translator.submissions
    [(*_, of_score)] = server.translator.pair_submissions
    assert of_stream is None
    for deadline in (of_translate, of_score):
        assert deadline is not None
        assert time.monotonic() < deadline < time.monotonic() + 2 * CLIENT_TIMEOUT_S  # it travels rounded up


def test_a_refusal_says_when_to_come_back_in_seconds(server: Running, client: Client):
    server.translator.refusal = Overloaded("the queue is full", 2.5)
    with pytest.raises(ServiceError) as refused:
        client.translate(["a"], **EN_FR)
    assert refused.value.retry_after_s == 2.5
    server.translator.refusal = None
    with pytest.raises(ServiceError) as wrong:
        client.translate([], **EN_FR)
    assert wrong.value.retry_after_s is None


def test_a_stream_left_early_lets_go_of_the_thread_that_read_its_texts(client: Client, monkeypatch: pytest.MonkeyPatch):
    """It waits for the place of a text that nobody takes the result of."""
    monkeypatch.setattr("service.client.MAX_OPEN_TEXTS", 1)
    readers: list[threading.Thread] = []

    def texts() -> Iterator[str]:
        while True:
            readers.append(threading.current_thread())
            yield "a"

    results = client.translate_stream(texts(), **EN_FR)
    next(results)
    results.close()  # type: ignore[attr-defined]
    readers[0].join(10)
    assert not readers[0].is_alive()


def test_a_token_that_cannot_be_read_fails_the_call_and_says_why(tmp_path: Path):
    file = tmp_path / "token"
    connection = Connection("localhost:1", token_file=file)
    told: list[tuple[object, Exception | None]] = []
    bearer: Any = _Bearer(connection._token)
    file.write_text("a-token\n")
    bearer(None, lambda *said: told.append(said))
    file.write_text("\n")
    bearer(None, lambda *said: told.append(said))
    file.unlink()
    bearer(None, lambda *said: told.append(said))
    (good, empty, missing) = told
    assert good == (((AUTHORIZATION, "Bearer a-token"),), None)
    for (metadata, error), reason in ((empty, "holds no token"), (missing, "cannot read")):
        assert metadata == ()
        assert isinstance(error, ConfigurationError)
        assert reason in str(error)


def test_tls_is_where_anything_of_it_is_given(tmp_path: Path):
    """So that a token may travel; a certificate or a key alone is a mistake."""
    pair = {"certificate": tmp_path / "web.pem", "key": tmp_path / "web.key"}
    for given in ({"tls": True}, {"ca": tmp_path / "ca.pem"}, pair):
        assert Connection("dragoman:1", token_file=tmp_path / "token", **given).has_tls  # type: ignore[arg-type]
    assert not Connection("dragoman:1").has_tls
    for name, path in pair.items():
        with pytest.raises(ConfigurationError, match="given together"):
            Connection("dragoman:1", **{name: path})  # type: ignore[arg-type]


def test_replicas_are_watched_wherever_the_watcher_can_show_the_token(tmp_path: Path):
    token = tmp_path / "token"
    for connection, is_watched in (
        (Connection("localhost:1"), True),
        (Connection("dragoman:1", tls=True, token_file=token), True),
        (Connection("localhost:1", token_file=token), False),
        (Connection("localhost:1"), True),  # one client's options are not another's
    ):
        config = json.loads(dict(channel_options(connection))["grpc.service_config"])
        assert ("healthCheckConfig" in config) is is_watched


def test_a_stream_of_named_texts_asks_for_what_it_was_told(server: Running, client: Client):
    asked: dict[str, Any] = EN_FR | {"options": DecodeOptions(num_beams=3), "priority": Priority.BATCH}
    for is_aligned, text_format in ((True, TextFormat.PLAIN), (False, TextFormat.HTML)):
        [(name, result)] = client.stream([("one", "a")], alignment=is_aligned, text_format=text_format, **asked)
        assert server.translator.text_format is text_format
        assert isinstance(result, TextResult)
        assert (name, bool(result.alignment)) == ("one", is_aligned)
    for _, options, priority, _ in server.translator.submissions:
        assert (options.num_beams, priority) == (3, Priority.BATCH)


def test_every_call_but_a_stream_is_sent_again():
    config = json.loads(dict(channel_options(Connection("localhost:1")))["grpc.service_config"])
    [policy] = config["methodConfig"]
    service = pb.DESCRIPTOR.services_by_name["TranslationService"]
    calls = {method.name for method in service.methods if not method.client_streaming}
    assert {name["method"] for name in policy["name"]} == calls
    assert {name["service"] for name in policy["name"]} == {service.full_name}


def test_over_tls_a_channel_has_the_same_options(monkeypatch: pytest.MonkeyPatch):
    seen: list[tuple[str, Any]] = []

    def open_channel(target: str, credentials: object, options: list[tuple[str, Any]]) -> grpc.Channel:
        seen.extend(options)
        return grpc.insecure_channel(target)

    monkeypatch.setattr(grpc, "secure_channel", open_channel)
    connection = Connection("dragoman:1", tls=True, server_name="dragoman.example")
    options = channel_options(connection)
    connection.open(options).close()
    assert seen == [*options, ("grpc.ssl_target_name_override", "dragoman.example")]


def test_a_connection_that_died_is_noticed_and_one_at_rest_is_not_disturbed():
    """Milliseconds: a server ends connections that ask more often than every ten seconds."""
    options = dict(channel_options(Connection("localhost:1")))
    assert 10_000 <= options["grpc.keepalive_time_ms"] <= 60_000
    assert 5_000 <= options["grpc.keepalive_timeout_ms"] <= 20_000


@pytest.mark.parametrize("content", [b"two\nlines of one file\n", "clé-très-secrète".encode(), b"\xff\xfea\0"])
def test_what_no_header_can_hold_is_no_token(tmp_path: Path, content: bytes):
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match="holds no token"):
        Client(Connection("localhost:1", token_file=file))


def test_a_token_that_is_not_there_is_told_before_any_call(tmp_path: Path):
    for connection in (
        Connection("localhost:1", token_file=tmp_path / "none"),
        Connection("dragoman:1", tls=True, token_file=tmp_path / "none"),
    ):
        with pytest.raises(ConfigurationError, match="cannot read"):
            Client(connection)


def test_an_answer_may_be_larger_than_the_four_megabytes_of_grpc(server: Running, client: Client):
    server.translator.answers["a"] = result_of("x" * 5_000_000)
    [result] = client.translate(["a"], **EN_FR)
    assert isinstance(result, TextResult)
    assert len(result.text) == 5_000_000


@pytest.mark.parametrize("variable", ["grpc_proxy", "https_proxy", "http_proxy"])
def test_what_is_sent_to_this_machine_passes_no_proxy(
    server: Running, monkeypatch: pytest.MonkeyPatch, variable: str, tmp_path: Path
):
    """It would read the token, which goes in clear text because it does not leave the machine."""
    (tmp_path / "token").write_text("a token that is long enough")
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        with Client(Connection(server.address, token_file=tmp_path / "token"), 10) as client:
            assert client.health("") == "SERVING"
            assert client.list_models().models
        proxy.settimeout(0)
        with pytest.raises(BlockingIOError):
            proxy.accept()
