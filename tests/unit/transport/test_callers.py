"""Tokens: who gets in, who does not, what may be replaced while the server runs, and that nothing of it is told."""

import hashlib
import hmac
import logging
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from service.client import Client, ServiceError
from service.connection import Connection
from service.errors import ConfigurationError, Unauthenticated
from service.metrics import Metrics
from service.pb import translation_pb2 as pb
from service.transport.callers import Callers
from service.transport.security import SecurityOptions
from tests.unit.transport.running_server import Running, request, running_on_thread, with_server

WEB, READER, STRANGER = "web-token-0123456789", "reader-token-0123456789", "stranger-token-0123456789"
FILE = f"""
[web]
tokens = ["{WEB}"]

[reader]
tokens = ["sha256:{hashlib.sha256(READER.encode()).hexdigest()}"]
methods = ["ListModels"]
"""


@pytest.fixture
def security(tmp_path: Path) -> SecurityOptions:
    (tmp_path / "clients.toml").write_text(FILE)
    return SecurityOptions(clients=str(tmp_path / "clients.toml"))


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


async def code_of(call: "grpc.aio.Call") -> str:
    return str((await call.code()).name)


def test_a_token_opens_what_its_client_may(security: SecurityOptions):
    async def check(server: Running) -> None:
        translate, models = server.stub.Translate, server.stub.ListModels
        assert await code_of(translate(request("a"), metadata=bearer(WEB))) == "OK"
        assert await code_of(translate(request("a"), metadata=(("authorization", f"bearer {WEB}"),))) == "OK"
        assert await code_of(models(pb.ListModelsRequest(), metadata=bearer(READER))) == "OK"
        assert await code_of(translate(request("a"), metadata=bearer(READER))) == "PERMISSION_DENIED"
        for metadata in (
            (),
            bearer(STRANGER),
            bearer(WEB + "x"),
            bearer(""),
            (*bearer(WEB), *bearer(WEB)),
            (("authorization", WEB),),
        ):
            assert await code_of(translate(request("a"), metadata=metadata)) == "UNAUTHENTICATED"
        stream = server.stub.TranslateStream(iter([pb.TranslateStreamRequest()]))
        assert await code_of(stream) == "UNAUTHENTICATED"
        assert len(server.translator.submissions) == 2
        assert server.sample("dragoman_rejected_total", reason="unauthenticated") == 7
        assert server.sample("dragoman_rejected_total", reason="permission_denied") == 1

    with_server(check, security=security)


def test_the_refusal_has_details(security: SecurityOptions):
    async def check(server: Running) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await server.stub.Translate(request("a"), metadata=bearer(READER))
        status = rpc_status.from_call(caught.value)
        info = error_details_pb2.ErrorInfo()
        assert status is not None
        assert status.details[0].Unpack(info)
        assert info.reason == "PERMISSION_DENIED"
        assert caught.value.details() == "client 'reader' may not call Translate"

    with_server(check, security=security)


def test_a_strangers_bytes_are_not_parsed(security: SecurityOptions):
    async def check(server: Running) -> None:
        call = server.channel.unary_unary("/dragoman.v1.TranslationService/Translate")
        assert await code_of(call(b"\xff\xff")) == "UNAUTHENTICATED"
        assert await code_of(call(b"\xff\xff", metadata=bearer(WEB))) == "INVALID_ARGUMENT"

    with_server(check, security=security)


@pytest.mark.parametrize("open_health", [True, False])
def test_health_is_open_where_a_setting_says_so(security: SecurityOptions, open_health: bool):
    async def check(server: Running) -> None:
        stub = health_pb2_grpc.HealthStub(server.channel)
        asked = health_pb2.HealthCheckRequest(service="")
        assert await code_of(stub.Check(asked)) == ("OK" if open_health else "UNAUTHENTICATED")
        assert await code_of(stub.Check(asked, metadata=bearer(READER))) == "OK"
        reflection = reflection_pb2_grpc.ServerReflectionStub(server.channel)
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        assert await code_of(reflection.ServerReflectionInfo(iter([question]))) == "UNAUTHENTICATED"
        found = reflection.ServerReflectionInfo(iter([question]), metadata=bearer(READER))
        assert [answer async for answer in found]

    with_server(check, security=SecurityOptions(clients=security.clients, open_health=open_health))


def test_tokens_are_replaced_without_a_restart(security: SecurityOptions):
    file = Path(security.clients)

    async def check(server: Running) -> None:
        models = server.stub.ListModels
        file.write_text(FILE.replace(WEB, STRANGER))
        assert await code_of(models(pb.ListModelsRequest(), metadata=bearer(WEB))) == "UNAUTHENTICATED"
        assert await code_of(models(pb.ListModelsRequest(), metadata=bearer(STRANGER))) == "OK"
        for damage in (lambda: file.write_text("[web"), lambda: file.write_text("# nobody"), file.unlink):
            damage()
            for _ in range(2):
                assert await code_of(models(pb.ListModelsRequest(), metadata=bearer(STRANGER))) == "OK"
        assert server.sample("dragoman_credential_reloads_total", kind="clients", outcome="taken") == 1
        assert server.sample("dragoman_credential_reloads_total", kind="clients", outcome="refused") == 3

    with_server(check, security=security)


def test_every_token_is_compared_in_constant_time(security: SecurityOptions, monkeypatch: pytest.MonkeyPatch):
    compared: list[int] = []

    def compare(known: bytes, given: bytes) -> bool:
        compared.append(len(known) - len(given))
        return known == given

    callers = Callers(Path(security.clients), Metrics())
    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert callers.identify(bearer(WEB)).name == "web"
    with pytest.raises(Unauthenticated):
        callers.identify(bearer("w"))
    assert compared == [0, 0, 0, 0]  # both clients each time, and digests whatever the token's length


def test_tokens_are_not_told(security: SecurityOptions, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)

    async def check(server: Running) -> None:
        told = []
        for token in (WEB, READER, STRANGER):
            call = server.stub.Translate(request("a"), metadata=bearer(token))
            told += [await code_of(call), str(await call.details()), str(await call.trailing_metadata())]
        Path(security.clients).write_text(FILE.replace("ListModels", "nothing"))
        await code_of(server.stub.Translate(request("a"), metadata=bearer(WEB)))
        told += [record.getMessage() + str(vars(record)) for record in caplog.records]
        told.append(server.metrics.render().decode())
        everything = "\n".join(told)
        assert "'client': 'web'" in everything
        for token in (WEB, READER, STRANGER):
            assert token not in everything
            assert hashlib.sha256(token.encode()).hexdigest() not in everything

    with_server(check, security=security)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no client"),
        ("[web", "not valid TOML"),
        (f"web = {5000 * '['}", "not valid TOML"),
        ("web = 1", "must be a table"),
        ("[web]", "tokens must be a list"),
        ("[web]\ntokens = []", "tokens must be a list"),
        ("[web]\ntokens = ['secret']", "at least 16"),
        ("[web]\ntokens = ['a secret with spaces']", "without spaces"),
        ("[web]\ntokens = ['sha256:secret']", "64 hexadecimal"),
        ("[web]\ntoken = 'secret'", "unknown key 'token'"),
        ("[web]\ntokens = ['0123456789abcdef']\nmethods = ['Fly']", "methods must be among"),
        ("[web]\ntokens = ['0123456789abcdef']\nmax_open_calls = 0", "max_open_calls"),
        ("[web]\ntokens = ['0123456789abcdef']\nmax_open_tokens = true", "max_open_tokens must be a whole number"),
        (f"[{'n' * 65}]\ntokens = ['0123456789abcdef']", "1 to 64 printable"),
        ("[web]\ntokens = ['0123456789abcdef']\n[app]\ntokens = ['0123456789abcdef']", "share a token"),
        ("['']\ntokens = ['0123456789abcdef']", "1 to 64 printable"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, content: str, message: str):
    file = tmp_path / "clients.toml"
    file.write_text(content)
    with pytest.raises(ConfigurationError, match=message) as caught:
        Callers(file, Metrics())
    assert "secret" not in str(caught.value)
    assert "0123456789abcdef" not in str(caught.value)


def test_the_python_client_sends_its_token(security: SecurityOptions, tmp_path: Path):
    token_file = tmp_path / "token"
    token_file.write_text(f"{STRANGER}\n")
    with (
        running_on_thread(security=security) as server,
        Client(Connection(server.address, token_file=token_file)) as client,
    ):
        assert client.health() == "SERVING"
        with pytest.raises(ServiceError, match="UNAUTHENTICATED"):
            client.list_models()
        token_file.write_text(f"{WEB}\n")
        [result] = client.translate(["a"], source="en", target="fr")
        assert result.text == "A"
        assert [result.text for result in client.translate_stream(["b", "c"], source="en", target="fr")] == ["B", "C"]


@pytest.mark.parametrize(
    ("target", "is_allowed"),
    [
        ("localhost:1", True),
        ("127.0.0.1:1", True),
        ("[::1]:1", True),
        ("unix:/tmp/x", True),
        ("unix-abstract:x", True),
        ("dns:///localhost:1", True),
        ("dragoman:1", False),
        ("10.0.0.1:1", False),
        ("dns:///dragoman:1", False),
        ("127.0.0.1.example:1", False),
    ],
)
def test_a_token_does_not_travel_in_clear_text(target: str, is_allowed: bool, tmp_path: Path):
    Connection(target, tls=True, token_file=tmp_path)
    if is_allowed:
        Connection(target, token_file=tmp_path)
    else:
        with pytest.raises(ConfigurationError, match="clear text"):
            Connection(target, token_file=tmp_path)
