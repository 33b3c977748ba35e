"""What a call passes before its method runs: who calls, may they, have they room, has the server.

Knows: the order of the checks. Does not know: what a method does.
"""

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc

from service.errors import Overloaded, PermissionDenied, RequestError, Unauthenticated
from service.metrics import Metrics
from service.transport.admission import Admission
from service.transport.callers import Caller, Callers
from service.transport.quotas import Quotas
from service.transport.security import SecurityOptions

log = logging.getLogger("dragoman.clients")
Context = grpc.aio.ServicerContext[Any, Any]
OWN_SERVICE = "/dragoman.v1.TranslationService/"
HEALTH_SERVICE = "/grpc.health.v1.Health/"
MAX_NAME_CHARACTERS = 64


class Gate:
    """Of all services; only calls of TranslationService take up room.

    Attributes:
        admission: whether the server takes calls now.

    Raises:
        ConfigurationError: the file of the clients cannot be used.
    """

    def __init__(self, options: SecurityOptions, admission: Admission, metrics: Metrics) -> None:
        self.admission = admission
        self._metrics = metrics
        self._callers = Callers(Path(options.clients), metrics) if options.clients else None
        self._open_health = options.open_health
        self._quotas = Quotas(options.max_client_calls, options.max_client_tokens, metrics.call_refused)
        if options.clients and not options.tls_certificate:
            log.warning("tokens are asked for without TLS: whoever can listen on the way can read them")

    def identify(self, details: grpc.HandlerCallDetails) -> Caller | RequestError | None:
        """Whose call this is, before a byte of its message is parsed; None: no name is asked for.

        Returns:
            Instead of raising it, the error that answers the call.
        """
        method: str = details.method
        if self._callers is None or (self._open_health and method.startswith(HEALTH_SERVICE)):
            return None
        try:
            caller = self._callers.identify(details.invocation_metadata)
            if method.startswith(OWN_SERVICE):
                caller.check(method.removeprefix(OWN_SERVICE))
        except (Unauthenticated, PermissionDenied) as error:
            is_known = isinstance(error, PermissionDenied)
            self._metrics.call_refused("permission_denied" if is_known else "unauthenticated")
            return error
        return caller

    def enter(self, stack: ExitStack, method: str, caller: Caller | RequestError | None, context: Context) -> Caller:
        """Takes the room of one call until the stack is left; returns whose call it is.

        Raises:
            RequestError: the call is refused.
        """
        if isinstance(caller, RequestError):
            raise caller
        caller = caller or peer(context)
        if method.startswith(OWN_SERVICE):
            stack.enter_context(self._quotas.call(caller))
            try:
                stack.enter_context(self.admission.admit())
            except RequestError as error:
                self._metrics.call_refused("too_many_calls" if isinstance(error, Overloaded) else "not_serving")
                raise
        return caller


def peer(context: Context) -> Caller:
    """Who calls without a token: the name in the certificate, else the address without its port."""
    names = context.peer_identities()
    if names:
        name = sorted(names)[0].decode("utf-8", "backslashreplace")[:MAX_NAME_CHARACTERS]
        return Caller(name if name.isprintable() else ascii(name))
    return Caller(context.peer().rpartition(":")[0], is_known=False)
