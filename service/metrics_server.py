"""/metrics, /livez and /readyz over plain HTTP. Knows: HTTP. Does not know: what is measured or what makes it ready."""

import logging
import socket
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer

from prometheus_client import CONTENT_TYPE_LATEST

from service.config import parse_address
from service.errors import ConfigurationError

log = logging.getLogger("dragoman.metrics")


class MetricsServer:
    """Answers on a thread of its own.

    Args:
        address: HOST:PORT; port 0 picks a free one. render: the metrics' text; None: there is no such page. is_alive,
            is_ready: the two probes.

    Raises:
        ConfigurationError: the address cannot be bound.
    """

    def __init__(
        self,
        address: str,
        render: Callable[[], bytes] | None,
        is_alive: Callable[[], bool],
        is_ready: Callable[[], bool],
    ) -> None:
        class Handler(_Handler):
            pages = {"/livez": lambda: _probe(is_alive()), "/readyz": lambda: _probe(is_ready())}

        if render:
            Handler.pages["/metrics"] = lambda: (200, render(), CONTENT_TYPE_LATEST)

        host, port = parse_address("metrics_listen", address)
        kind = _HttpServer6 if ":" in host else _HttpServer
        try:
            self._server = kind((host, port), Handler)
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {address} for metrics: {error.strerror or error}; --metrics-listen names another"
            ) from None
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True)

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Closes the port; idempotent once started."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Without HTTPServer's own, which asks the DNS for a name that nobody reads, and the event loop waits."""
        TCPServer.server_bind(self)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves before it has its answer is no news; anything else is."""
        if not isinstance(sys.exc_info()[1], OSError):
            log.exception("a request for metrics failed")


class _HttpServer6(_HttpServer):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    pages: dict[str, Callable[[], tuple[int, bytes, str]]] = {}
    # A client that connects and says nothing is left after so many seconds.
    timeout = 10

    def do_GET(self) -> None:  # noqa: N802  # http.server's name
        """Answers one of the pages, or 404."""
        page = self.pages.get(self.path.partition("?")[0])
        missing = f"not found; try {', '.join(self.pages)}\n"
        status, body, kind = page() if page else (404, missing.encode(), "text/plain")
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815  # http.server's name

    def log_message(self, format: str, *args: object) -> None:
        """Probes are no news."""


def _probe(is_well: bool) -> tuple[int, bytes, str]:
    return (200, b"ok\n", "text/plain") if is_well else (503, b"no\n", "text/plain")
