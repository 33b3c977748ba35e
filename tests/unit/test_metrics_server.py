"""The HTTP side: pages, probes, and clients that behave badly."""

import logging
import socket
import struct
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from service.metrics_server import MetricsServer, _Handler


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    started = MetricsServer("127.0.0.1:0", lambda: b"x 1\n" * 1_000_000, lambda: True, lambda: False)
    started.start()
    yield started
    started.stop()


def test_a_head_request_has_no_body(server: MetricsServer):
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}/livez", method="HEAD")
    with urllib.request.urlopen(request, timeout=10) as response:
        assert response.status == 200
        assert response.read() == b""


def test_metrics_can_be_off_while_the_probes_are_on():
    server = MetricsServer("127.0.0.1:0", None, lambda: True, lambda: False)
    server.start()
    found = {}
    for page in ("metrics", "livez", "readyz"):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/{page}", timeout=10) as response:
                found[page] = (response.status, response.read())
        except urllib.error.HTTPError as error:
            with error:
                found[page] = (error.code, error.read())
    server.stop()
    assert found == {
        "metrics": (404, b"not found; try /livez, /readyz\n"),
        "livez": (200, b"ok\n"),
        "readyz": (503, b"no\n"),
    }


def test_a_client_that_leaves_is_no_news(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture):
    server = MetricsServer("127.0.0.1:0", lambda: b"x 1\n" * 1_000_000, lambda: True, lambda: True)
    server._server.daemon_threads = False  # so that stop() waits for the answer to fail
    server.start()
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        client.recv(10)
    server.stop()
    assert "Traceback" not in capfd.readouterr().err
    assert caplog.record_tuples == []


def test_a_page_that_fails_is_logged(caplog: pytest.LogCaptureFixture):
    def fail() -> bytes:
        raise RuntimeError("no metrics today")

    failing = MetricsServer("127.0.0.1:0", fail, lambda: True, lambda: True)
    failing.start()
    with socket.create_connection(("127.0.0.1", failing.port)) as client:
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert client.recv(10) == b""
    failing.stop()
    assert [(name, level) for name, level, _ in caplog.record_tuples] == [("dragoman.metrics", logging.ERROR)]


def test_a_client_that_says_nothing_is_left(server: MetricsServer, monkeypatch: pytest.MonkeyPatch):
    assert _Handler.timeout == 10, "each holds a thread and a file descriptor"
    monkeypatch.setattr(_Handler, "timeout", 0.1)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        assert client.recv(10) == b""


def test_it_begins_without_the_dns(monkeypatch: pytest.MonkeyPatch):
    def wait_for_ever(name: str = "") -> str:
        raise AssertionError(f"asked for the name of {name!r}, for which the start of the service would wait")

    monkeypatch.setattr(socket, "getfqdn", wait_for_ever)
    server = MetricsServer("0.0.0.0:0", None, lambda: True, lambda: True)
    server.start()
    server.stop()


def test_it_listens_on_ipv6_too():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    server = MetricsServer("[::1]:0", None, lambda: True, lambda: True)
    server.start()
    try:
        with urllib.request.urlopen(f"http://[::1]:{server.port}/livez", timeout=10) as response:
            assert response.status == 200
    finally:
        server.stop()
