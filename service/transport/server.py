"""The gRPC server: its port, its options, its services, and how it ends.

Knows: grpc.aio. Does not know: where models come from (service/app.py).
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from service.decoding.options import DecodeOptions
from service.engine.translator import Translator
from service.errors import ConfigurationError
from service.metrics import Metrics
from service.pb import translation_pb2_grpc as pb_grpc
from service.transport.addresses import is_busy
from service.transport.admission import Admission
from service.transport.call_log import CallLog
from service.transport.certificates import ServerCertificates
from service.transport.gate import OWN_SERVICE, Gate
from service.transport.health import SERVICE, HealthServicer
from service.transport.interceptors import CallInterceptor
from service.transport.limits import Limits
from service.transport.open_call import Front
from service.transport.registry import ModelRegistry
from service.transport.security import SecurityOptions
from service.transport.servicer import ServingState, TranslationServicer
from service.transport.submission import Submitter
from service.transport.tracing import CallTracer, SilentTracer

# Time for answers that are already decided to reach their clients; only health watchers make it last so long.
FLUSH_S = 1.0
# Last answers leave, and calls that were on their way are refused, before the port goes.
_LINGER_S = 0.2


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How the server deals with connections. Ranges are checked by service/config.py."""

    listen: str
    """HOST:PORT; port 0 picks a free one."""
    max_open_calls: int = 1024
    """Calls of TranslationService open at a time."""
    max_connection_age_s: float = 300.0
    """Seconds until a connection is told to reconnect, so that clients find new replicas (gRFC A9); 0: never."""
    max_connection_age_grace_s: float = 0.0
    """Seconds that the open calls of such a connection have; 0: as long as they take."""
    keepalive_time_s: float = 30.0
    """Seconds of silence until a client is checked for being there."""
    handshake_timeout_s: float = 10.0
    """Seconds that a new connection has to say that it speaks HTTP/2, TLS included."""
    message_timeout_s: float = 30.0
    """Seconds that the message of a call, which is one of max_open_calls by then, may take to arrive."""
    compress_from_bytes: int = 4096
    """Bytes of an answer from which on it is compressed for clients that take it; 0: never."""
    reflection: bool = True
    """Whether the server describes its API."""
    security: SecurityOptions = field(default_factory=SecurityOptions)
    """Who may call, and how much at a time."""
    tracer: CallTracer = field(default_factory=SilentTracer)
    """Who is told how calls went."""


MAX_PENDING_CALLS = 4096
MAX_PENDING_S = 3600


class TranslationServer:
    """Answers from start() on: health at once, translations once models are there."""

    def __init__(self, options: ServerOptions, limits: Limits, defaults: DecodeOptions, metrics: Metrics) -> None:
        """Raises ConfigurationError where the files of TLS or of the clients cannot be used."""
        self._options = options
        self._admission = Admission(options.max_open_calls)
        self._health = HealthServicer()
        self._metrics = metrics
        has_tls = bool(options.security.tls_certificate)
        self._certificates = ServerCertificates(options.security, metrics) if has_tls else None
        submitter = Submitter(limits.max_request_characters, metrics.call_refused)
        self._state = ServingState(ModelRegistry([]), limits, defaults, self._admission, metrics, submitter)
        self._gate = Gate(options.security, self._admission, metrics)
        self._call_log = CallLog(OWN_SERVICE)
        front = Front(self._gate, metrics, options.tracer, self._call_log)
        self._server = grpc.aio.server(
            interceptors=[CallInterceptor(front, options.compress_from_bytes, options.message_timeout_s)],
            options=channel_options(options, limits.max_message_bytes),
        )
        own: Any = _ByName(self._server)
        pb_grpc.add_TranslationServiceServicer_to_server(TranslationServicer(self._state), own)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, own)
        if options.reflection:
            names = [SERVICE, "grpc.health.v1.Health", reflection.SERVICE_NAME]
            reflection.enable_server_reflection(names, self._server)

    async def start(self) -> int:
        """Binds the port and begins to answer; returns the port.

        Raises:
            ConfigurationError: the address cannot be bound.
        """
        try:
            port = 0 if is_busy(self._options.listen) else self._bind()
        except RuntimeError:
            port = 0
        if not port:
            raise ConfigurationError(
                f"cannot listen on {self._options.listen}: the port is busy, or the host is unknown or not ours; "
                "--listen names another"
            )
        await self._health.set_ready(False)
        await self._server.start()
        return port

    def _bind(self) -> int:
        if self._certificates:
            return self._server.add_secure_port(self._options.listen, self._certificates.credentials())
        return self._server.add_insecure_port(self._options.listen)

    async def open(self, translators: Sequence[Translator]) -> None:
        """Takes calls from now on, with these models.

        Raises:
            ConfigurationError: two of them are for the same calls.
        """
        self._state.models = ModelRegistry(translators)
        self._admission.open()
        await self._state_ready(True)

    async def replace(self, translators: Sequence[Translator]) -> None:
        """Serves these models from the next call on; calls that are open keep theirs.

        Raises:
            ConfigurationError: two of them are for the same calls.
        """
        before = {info.name for info in self._state.models.infos}
        self._state.models = ModelRegistry(translators)
        names = {info.name for info in self._state.models.infos}
        await self._health.set_models(sorted(names - before), sorted(before - names))

    async def wait_free(self, translator: Translator) -> None:
        """Returns when no call uses a model any more that replace() has taken out."""
        await self._state.leases.wait_free(translator)

    async def announce_end(self) -> None:
        """Tells load balancers to send no more calls; those that come are still taken."""
        await self._state_ready(False)

    async def drain(self, timeout_s: float) -> bool:
        """Refuses new calls and waits for the open ones; True if all were answered in time, down to the last byte."""
        self._admission.drain()
        until = time.monotonic() + timeout_s
        if not await self._admission.wait_idle(timeout_s):
            return False
        return await self._gate.unread.wait_none(max(until - time.monotonic(), 0.0))

    async def settle(self) -> None:
        """Ends what drain() left open with UNAVAILABLE, and goes on to refuse calls until every answer is out."""
        if not await self._admission.wait_idle(FLUSH_S):
            self._admission.break_off()
        await asyncio.sleep(_LINGER_S)
        self._call_log.flush()

    async def stick(self, is_stuck: bool) -> None:
        """While an engine is stuck the server is not ready and takes no calls."""
        self._admission.stick(is_stuck)
        await self._state_ready(not is_stuck)

    async def fail(self) -> None:
        """Says, to whoever asks, that this process has to be started again."""
        await self._health.set_dead()

    async def stop(self) -> None:
        """Closes the port. Calls that gRPC has and our handlers have not seen get CANCELLED from it, which is why
        a process that only ends does not come here (service/app.py)."""
        self._admission.break_off()
        await self._server.stop(FLUSH_S)
        self._call_log.flush()
        self._state.submitter.close()

    async def _state_ready(self, is_ready: bool) -> None:
        self._metrics.ready(is_ready)
        await self._health.set_ready(is_ready, [info.name for info in self._state.models.infos])


class _ByName:
    """A server to add services to, whose methods are found by their names only.

    Registered methods each have their own line of calls, and grpc.aio waits for all lines anew with every call, which
    takes longer than to look a name up.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self.add_generic_rpc_handlers = server.add_generic_rpc_handlers

    def add_registered_method_handlers(self, service_name: str, method_handlers: dict[str, Any]) -> None:
        """Leaves them to the generic handlers, which have them too."""


def channel_options(options: ServerOptions, max_message_bytes: int) -> list[tuple[str, int]]:
    """gRPC's own settings; its names end in the unit, milliseconds, but for one in seconds."""
    chosen = [
        ("grpc.so_reuseport", 0),  # a busy port is an error instead of a port shared with a stranger
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", -1),  # what was accepted is also answered
        ("grpc.keepalive_time_ms", int(options.keepalive_time_s * 1000)),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # gRPC's own limit is two minutes, in which strangers who say nothing hold file descriptors that others need.
        ("grpc.server_handshake_timeout_ms", int(options.handshake_timeout_s * 1000)),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        # Calls that wait to be seen. Beyond 1,000, gRPC's own limit, some get CANCELLED, which says nothing and which
        # no client sends again; a late RESOURCE_EXHAUSTED says when to.
        ("grpc.server.max_pending_requests", MAX_PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", MAX_PENDING_CALLS),
        # And after 30 s, its own limit again: whoever was stopped or moved to another host for that long.
        ("grpc.server_max_unrequested_time_in_server", MAX_PENDING_S),
    ]
    if options.compress_from_bytes:
        # The lowest of gRPC's levels is gzip, where the client's grpc-accept-encoding has it; compression.py chooses
        # the answers.
        chosen.append(("grpc.default_compression_level", 1))
    if options.max_connection_age_s:
        chosen.append(("grpc.max_connection_age_ms", int(options.max_connection_age_s * 1000)))
        if options.max_connection_age_grace_s:
            chosen.append(("grpc.max_connection_age_grace_ms", int(options.max_connection_age_grace_s * 1000)))
    return chosen
