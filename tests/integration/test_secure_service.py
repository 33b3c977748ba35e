"""A service with TLS, tokens and certificates of clients, in a process of its own; and what its log does not say."""

import gzip
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from service.client import Client, ServiceError
from service.connection import Connection
from service.demo import free_port
from service.pb import translation_pb2 as pb
from service.transport.call_log import PAUSE_S
from tests.integration.launched_server import DRAGOMAN, ROOT
from tests.unit.transport.certificate_files import CertificateFiles

pytestmark = pytest.mark.integration
TOKEN = "a-token-for-tests-only"
# In every text that is sent; "Zw" and the like are in no word of the program.
SECRET = "Zwxqv"
MAX_START_S = 60


@dataclass
class Secure:
    """A running service and the flags that reach it."""

    address: str
    flags: list[str]
    connection: Connection
    log: Path
    process: "subprocess.Popen[bytes]"


@pytest.fixture(scope="module")
def service(nonsense_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    folder = tmp_path_factory.mktemp("secure")
    files = CertificateFiles(folder)
    certificate, key = files.issue("dragoman.example", "server")
    own_certificate, own_key = files.issue("web.example", "client")
    (folder / "clients.toml").write_text(f'[web]\ntokens = ["{TOKEN}"]\n')
    (folder / "token").write_text(TOKEN)
    address = f"127.0.0.1:{free_port()}"
    command = [*DRAGOMAN, "serve", "--bundle", nonsense_bundle, "--listen", address, "--metrics-listen", ""]
    command += ["--tls-certificate", certificate, "--tls-key", key, "--tls-client-ca", files.ca]
    command += ["--clients", folder / "clients.toml", "--admit-grace-s", "0.1", "--max-message-bytes", "1000000"]
    reach = {"ca": files.ca, "certificate": own_certificate, "key": own_key, "token_file": folder / "token"}
    flags = [str(word) for name, file in reach.items() for word in (f"--{name.replace('_', '-')}", file)]
    flags += ["--server-name", "dragoman.example"]
    connection = Connection(address, server_name="dragoman.example", **reach)
    with (folder / "log").open("wb") as log, subprocess.Popen(command, cwd=ROOT, stderr=log) as process:
        wait_until_serving(connection, process)
        yield Secure(address, flags, connection, folder / "log", process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def wait_until_serving(connection: Connection, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + MAX_START_S
    while time.monotonic() < deadline and process.poll() is None:
        with Client(connection, timeout_s=5) as client:
            try:
                if client.health("dragoman.v1.TranslationService") == "SERVING":
                    return
            except ServiceError:
                time.sleep(0.05)
    raise AssertionError("the service did not come up")


def dragoman(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*DRAGOMAN, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_the_commands_reach_it(service: Secure):
    done = dragoman("translate", "--to", "fr", "--target", service.address, *service.flags, "the red house")
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)
    assert dragoman("health", service.address, *service.flags).stdout == "SERVING\n"


@pytest.mark.parametrize(
    ("left_out", "complaint"), [("--token-file", "UNAUTHENTICATED"), ("--ca", "UNAVAILABLE"), ("--key", "together")]
)
def test_without_one_of_the_flags_they_do_not(service: Secure, left_out: str, complaint: str):
    at = service.flags.index(left_out)
    flags = [*service.flags[:at], *service.flags[at + 2 :]]
    done = dragoman("translate", "--to", "fr", "--target", service.address, *flags, "the red house")
    assert done.returncode in (1, 2)
    assert complaint in done.stderr
    assert done.stdout == ""


def test_flags_for_a_service_need_one():
    done = dragoman("translate", "--to", "fr", "--tls", "the red house")
    assert done.returncode == 2
    assert "--tls is for --target" in done.stderr


def test_a_message_that_unpacks_to_more_than_the_limit_is_refused(service: Secure):
    """50 MB of zeros are 50 kB packed: the limit holds for what would come out, and it never does."""
    bomb = pb.TranslateRequest(texts=["\0" * 50_000_000], source_language="en", target_language="fr")
    assert len(gzip.compress(bomb.texts[0].encode())) < 1_000_000
    channel = service.connection.open([("grpc.max_send_message_length", -1)])
    before = peak_bytes(service.process.pid)
    call = channel.unary_unary("/dragoman.v1.TranslationService/Translate", pb.TranslateRequest.SerializeToString)
    for _ in range(2):
        with pytest.raises(grpc.RpcError) as caught:
            call(bomb, compression=grpc.Compression.Gzip, timeout=30)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    channel.close()
    assert peak_bytes(service.process.pid) - before < 25_000_000


OPENED_AND_CLOSED = """
import sys
import time
from pathlib import Path

from service.connection import Connection

target, server_name, *files = sys.argv[1:]
connection = Connection(target, False, *map(Path, files[:3]), server_name, Path(files[3]))
end = time.monotonic() + 45
while time.monotonic() < end:
    channel = connection.open([])
    channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=30)
    channel.close()
"""


@pytest.mark.slow
def test_no_client_freezes_as_it_closes(service: Secure):
    """Thousands of times on processors that are all busy; without the channel that stays open one of 4,000 did."""
    connection = service.connection
    files = [connection.ca, connection.certificate, connection.key, connection.token_file]
    words = [sys.executable, "-c", OPENED_AND_CLOSED, service.address, connection.server_name, *map(str, files)]
    clients = [subprocess.Popen(words, cwd=ROOT) for _ in range(4)]
    try:
        assert [client.wait(90) for client in clients] == [0] * 4
    finally:
        for client in clients:
            client.kill()
            client.wait()


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def test_the_log_says_what_happened_and_not_what_was_sent(service: Secure):
    with Client(service.connection) as client:
        client.translate([f"the {SECRET} house"], source="en", target="fr")
        assert list(client.translate_stream([f"{SECRET} and more"], source="en", target="fr"))
        for texts, source, target in (
            ([SECRET], SECRET, "fr"),
            ([SECRET], "en", SECRET),
            ([SECRET] * 3000, "en", "fr"),
            ([SECRET * 30_000], "en", "fr"),
        ):
            with pytest.raises(ServiceError):
                client.translate(texts, source=source, target=target)
    with socket.create_connection(
        ("127.0.0.1", int(service.address.rpartition(":")[2]))
    ) as stranger:  # gRPC would write a line of its own
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        while stranger.recv(4096):
            pass
    time.sleep(2 * PAUSE_S)  # lines wait so long for others
    told = service.log.read_text()
    assert SECRET not in told
    assert TOKEN not in told
    lines = [json.loads(line) for line in told.splitlines()]
    calls = [line for line in lines if line["message"] == "call"]
    assert {call["code"] for call in calls} >= {"OK", "INVALID_ARGUMENT"}
    assert {call.get("client") for call in calls if call["code"] == "OK"} == {"web"}
    assert all(call["request_id"] for call in calls)
