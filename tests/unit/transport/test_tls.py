"""TLS and mutual TLS with real handshakes; certificates replaced under a running server."""

import asyncio
import socket
import ssl
from pathlib import Path

import grpc
import pytest

from service.client import Client, ServiceError
from service.connection import Connection
from service.decoding.options import DecodeOptions
from service.errors import ConfigurationError
from service.metrics import Metrics
from service.transport.limits import Limits
from service.transport.security import SecurityOptions
from service.transport.server import ServerOptions, TranslationServer
from tests.unit.transport.certificate_files import CertificateFiles
from tests.unit.transport.running_server import Running, request, running_on_thread, with_server


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> CertificateFiles:
    return CertificateFiles(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def fresh(tmp_path: Path) -> CertificateFiles:
    return CertificateFiles(tmp_path)


def security(files: CertificateFiles, **fields: object) -> SecurityOptions:
    certificate, key = files.issue("127.0.0.1", "server")
    return SecurityOptions(str(certificate), str(key), **fields)


def shown_certificate(address: str, root: bytes) -> str:
    """What the server shows at a handshake of now."""
    host, port = address.split(":")
    context = ssl.create_default_context(cadata=root.decode())
    context.set_alpn_protocols(["h2"])
    with socket.create_connection((host, int(port))) as plain, context.wrap_socket(plain, server_hostname=host) as tls:
        return ssl.DER_cert_to_PEM_cert(tls.getpeercert(binary_form=True))


def test_calls_go_through_tls_and_not_around_it(files: CertificateFiles):
    async def check(server: Running) -> None:
        assert (await server.stub.Translate(request("a"))).results[0].translation.text == "A"
        async with grpc.aio.insecure_channel(server.address) as plain:
            call = plain.unary_unary("/dragoman.v1.TranslationService/ListModels")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"", timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

    with_server(check, security=security(files), root=files.root)


def test_a_replaced_certificate_is_shown_at_the_next_handshake(fresh: CertificateFiles):
    options = security(fresh)

    async def check(server: Running) -> None:
        await server.stub.Translate(request("a"))
        first = await asyncio.to_thread(shown_certificate, server.address, fresh.root)
        assert first in Path(options.tls_certificate).read_text()
        fresh.issue("127.0.0.1", "server")
        second = await asyncio.to_thread(shown_certificate, server.address, fresh.root)
        assert second != first
        assert second in Path(options.tls_certificate).read_text()
        await server.stub.Translate(request("a"))  # the connection of before goes on
        taken = server.sample("dragoman_credential_reloads_total", kind="certificate", outcome="taken")
        assert taken == 1

    with_server(check, security=options, root=fresh.root)


@pytest.mark.parametrize("damage", ["no_pem", "other_key", "gone"])
def test_a_damaged_new_certificate_leaves_the_old_one(fresh: CertificateFiles, damage: str):
    options = security(fresh)

    async def check(server: Running) -> None:
        first = await asyncio.to_thread(shown_certificate, server.address, fresh.root)
        certificate, key = Path(options.tls_certificate), Path(options.tls_key)
        if damage == "no_pem":
            certificate.write_text("nonsense")
        elif damage == "gone":
            key.unlink()
        else:
            key.write_bytes(fresh.issue("127.0.0.1", "other")[1].read_bytes())
        for _ in range(2):
            assert await asyncio.to_thread(shown_certificate, server.address, fresh.root) == first
        assert server.sample("dragoman_credential_reloads_total", kind="certificate", outcome="refused") == 1

    with_server(check, security=options, root=fresh.root)


def test_a_client_says_which_of_its_files_is_damaged(fresh: CertificateFiles, tmp_path: Path):
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    certificate, key = fresh.issue("web.example", "client")
    for files, message in (
        ((nonsense,), r"nonsense\.pem holds no PEM certificates"),
        ((fresh.ca, certificate, nonsense), r"nonsense\.pem are no pair of PEM files"),
        (
            (fresh.ca, certificate, fresh.issue("web.example", "other")[1]),
            "are no pair of PEM files: KEY_VALUES_MISMATCH",
        ),
        ((tmp_path / "gone.pem",), r"cannot read .*gone\.pem"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            Connection("localhost:1", True, *files).open([])
    Connection("localhost:1", True, fresh.ca, certificate, key).open([]).close()


def test_mutual_tls_wants_a_certificate_of_the_right_root(fresh: CertificateFiles, tmp_path: Path):
    (tmp_path / "strange").mkdir()
    strange = CertificateFiles(tmp_path / "strange")
    options = security(fresh, tls_client_ca=str(fresh.ca))
    known, unknown = fresh.issue("web.example", "client"), strange.issue("web.example", "client")
    with running_on_thread(security=options, root=fresh.root) as server:
        for certificate, key in ((None, None), unknown):
            refused = Connection(server.address, True, fresh.ca, certificate, key)
            with Client(refused, 2) as client, pytest.raises(ServiceError, match=r"UNAVAILABLE|DEADLINE"):
                client.list_models()
        with Client(Connection(server.address, True, fresh.ca, *known)) as client:
            [result] = client.translate(["a"], source="en", target="fr")
            assert list(client.translate_stream(["b"], source="en", target="fr"))
        assert result.text == "A"


@pytest.mark.parametrize("wrong", ["certificate", "key", "client_ca"])
def test_it_does_not_start_with_files_that_cannot_be_used(fresh: CertificateFiles, tmp_path: Path, wrong: str):
    options = security(fresh, tls_client_ca=str(fresh.ca))
    file = {"certificate": options.tls_certificate, "key": options.tls_key, "client_ca": options.tls_client_ca}[wrong]
    for damage in (lambda: Path(file).write_text("nonsense"), Path(file).unlink):
        damage()

        async def start() -> None:
            TranslationServer(ServerOptions("127.0.0.1:0", security=options), Limits(), DecodeOptions(), Metrics())

        with pytest.raises(ConfigurationError, match=Path(file).name):
            asyncio.run(start())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tls_key": "x"}, "tls_key needs tls_certificate"),
        ({"tls_client_ca": "x"}, "tls_client_ca needs"),
        ({"max_client_calls": -1}, r"max_client_calls \(-1\) must be in"),
    ],
)
def test_settings_that_do_not_fit_together(fields: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        SecurityOptions(**fields)
