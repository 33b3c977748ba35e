"""How a client reaches a service: address, TLS, its certificate, its token, its trace.

Knows: gRPC channels. Does not know: what is called.
"""

import ipaddress
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import grpc

from service.errors import ConfigurationError
from service.transport.pem_files import check_pair, check_roots

AUTHORIZATION = "authorization"
MAX_PORT = 65_535
_TRACING = "opentelemetry.trace"


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a service is, and what it wants to see.

    Attributes:
        target: HOST:PORT, or any name gRPC resolves, such as ``dns:///dragoman:50051``.
        tls: whether the service speaks TLS; so it is where ``ca`` or ``certificate`` is given.
        ca: PEM file of the roots its certificate must come from; None: those that gRPC knows.
        certificate, key: PEM files of the client's own certificate (mutual TLS).
        server_name: the name its certificate must have, where that is not the host of ``target``.
        token_file: file that holds the client's token; read at each call, so that it can be replaced.

    Raises:
        ConfigurationError: the parts do not fit together.
    """

    target: str
    tls: bool = False
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str = ""
    token_file: Path | None = None

    def __post_init__(self) -> None:
        if ":" not in self.target:
            raise ConfigurationError(f"{self.target!r} names no port; give HOST:PORT, such as localhost:50051")
        port = self.target.rpartition(":")[2]
        if port.isdecimal() and int(port) > MAX_PORT:  # gRPC would take it modulo 65536, and reach somebody else
            raise ConfigurationError(f"the port of {self.target!r} must be <= {MAX_PORT}")
        if (self.certificate is None) != (self.key is None):
            raise ConfigurationError("a client's certificate and its key are given together")
        if self.token_file is not None and not (self.has_tls or is_this_machine(self.target)):
            raise ConfigurationError(f"the token would travel to {self.target} in clear text; use TLS")

    @property
    def has_tls(self) -> bool:
        """Whether the channel is encrypted."""
        return self.tls or self.ca is not None or self.certificate is not None

    def open(self, options: Sequence[tuple[str, Any]]) -> grpc.Channel:
        """The channel; it connects at the first call.

        Raises:
            ConfigurationError: a file cannot be read, or is not what it should be.
        """
        if self.token_file:
            self._token()  # a file that is not there is told now
        token = None
        if is_this_machine(self.target):  # a proxy of the environment is elsewhere, and would read a token
            options = [*options, ("grpc.enable_http_proxy", 0)]
        if not self.has_tls:
            channel = grpc.insecure_channel(self.target, options=options)
            token = self._token if self.token_file else None
        else:
            named = [("grpc.ssl_target_name_override", self.server_name)] if self.server_name else []
            channel = grpc.secure_channel(self.target, self._credentials(), options=[*options, *named])
        # Who traces has imported it by now; whoever does not, pays nothing.
        return grpc.intercept_channel(channel, _Metadata(token)) if token or _TRACING in sys.modules else channel

    def _credentials(self) -> grpc.ChannelCredentials:
        """With the token, so that gRPC's own calls have it too: those that watch a server's health."""
        found = grpc.ssl_channel_credentials(_bytes(self.ca), _bytes(self.key), _bytes(self.certificate))
        try:
            if self.ca:
                check_roots(self.ca)
            if self.certificate and self.key:
                check_pair(self.certificate, self.key)
        except ValueError as error:
            raise ConfigurationError(f"TLS: {error}") from None
        if self.token_file is None:
            return found
        channel_that_stays_open()
        return grpc.composite_channel_credentials(found, grpc.metadata_call_credentials(_Bearer(self._token)))

    def _token(self) -> str:
        token = (_bytes(self.token_file) or b"").decode("utf-8", "replace").strip()
        if not token or not token.isascii() or not token.isprintable():  # gRPC would say "Invalid metadata"
            raise ConfigurationError(f"{self.token_file} holds no token")
        return token


@cache
def channel_that_stays_open() -> grpc.Channel:
    """Reaches nobody. Closing the last channel of a process ends gRPC's threads and waits for them, holding Python's
    lock; one of them may wait for that lock to ask for a token or to forget one, and the process stands still for good
    (grpc/grpc pull request 42247). So a process that gives tokens this way has one channel that is never closed.
    """
    return grpc.insecure_channel("unix:/dev/null")


def is_this_machine(target: str) -> bool:
    """Whether what is sent there can be heard by nobody else: a loopback address or a Unix socket."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    host = target.rpartition("/")[2].rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bytes(file: Path | None) -> bytes | None:
    if file is None:
        return None
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from None


class _Bearer(grpc.AuthMetadataPlugin):
    """The token of each call over TLS; gRPC asks on a thread of its own."""

    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        try:
            callback(((AUTHORIZATION, f"Bearer {self._token()}"),), None)
        except ConfigurationError as error:
            callback((), error)


class _CallDetails(NamedTuple):
    method: str
    timeout: float | None
    metadata: Sequence[tuple[str, str | bytes]] | None
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class _Metadata(
    grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamStreamClientInterceptor
):
    """Adds the W3C trace context of the caller to each call, and the token where there is no TLS."""

    def __init__(self, token: Callable[[], str] | None) -> None:
        self._token = token

    def _details(self, details: Any) -> Any:
        metadata = [*(details.metadata or ()), *_trace_context()]
        if self._token:
            metadata.append((AUTHORIZATION, f"Bearer {self._token()}"))
        return _CallDetails(
            details.method,
            details.timeout,
            metadata,
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(self._details(client_call_details), request)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(self._details(client_call_details), request)

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return continuation(self._details(client_call_details), request_iterator)


def _trace_context() -> list[tuple[str, str]]:
    """``traceparent`` and ``tracestate`` of the span that the caller is in, where it uses OpenTelemetry."""
    if _TRACING not in sys.modules:
        return []
    from opentelemetry import propagate  # the extra `otel`

    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return [(key.lower(), value) for key, value in carrier.items()]
