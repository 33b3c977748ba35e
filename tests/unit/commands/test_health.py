"""`dragoman health` against a real server."""

import asyncio
from collections.abc import Iterator

import pytest

from service.cli import main
from service.client import Client
from service.commands import health
from service.commands.health import READY
from service.connection import Connection
from service.demo import free_port
from service.transport.health import SERVICE
from tests.unit.transport.running_server import Running, running_on_thread


@pytest.fixture
def server() -> Iterator[Running]:
    with running_on_thread() as running:
        yield running


def test_it_asks_for_readiness_by_the_name_that_the_server_has():
    assert READY == SERVICE


@pytest.mark.parametrize(("flags", "code"), [([], 0), (["--alive"], 0), (["--service", "no.such.Service"], 1)])
def test_the_exit_code_says_it(server: Running, flags: list[str], code: int):
    assert main(["health", server.address, *flags]) == code


def test_a_draining_server_is_alive_but_not_ready(server: Running, capsys: pytest.CaptureFixture[str]):
    asyncio.run_coroutine_threadsafe(server.server.announce_end(), server.loop).result(10)
    assert main(["health", server.address]) == 1
    assert capsys.readouterr().err == "NOT_SERVING\n"
    assert main(["health", server.address, "--alive"]) == 0


def test_nobody_there(capsys: pytest.CaptureFixture[str]):
    assert main(["health", f"127.0.0.1:{free_port()}", "--timeout", "2"]) == 1
    assert "UNAVAILABLE" in capsys.readouterr().err


@pytest.mark.parametrize(("flags", "expected"), [(["--timeout", "0.25"], 0.25), ([], 3.0)])
def test_it_waits_as_long_as_it_was_told(
    server: Running, flags: list[str], expected: float, monkeypatch: pytest.MonkeyPatch
):
    waits: list[float] = []

    def client(connection: Connection, timeout_s: float) -> Client:
        waits.append(timeout_s)
        return Client(connection)

    monkeypatch.setattr(health, "Client", client)
    assert main(["health", server.address, *flags]) == 0
    assert waits == [expected]


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["127.0.0.1:1", "--timeout", "0"], ["127.0.0.1:1", "--service", "caf\udce9"]]
)
def test_wrong_usage(arguments: list[str]):
    with pytest.raises(SystemExit) as exit_code:
        main(["health", *arguments])
    assert exit_code.value.code == 2
