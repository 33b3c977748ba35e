"""What a call passes before its method runs: who calls, may they, have they room, has the server.

Knows: the order of the checks. Does not know: what a method does.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from service.errors import Draining, Overloaded, PermissionDenied, RequestError, Unauthenticated
from service.metrics import Metrics
from service.transport.admission import Admission
from service.transport.callers import Caller, Callers
from service.transport.quotas import Quotas, Share
from service.transport.quotas import share as current_share
from service.transport.security import SecurityOptions
from service.transport.unread import UnreadAnswers

log = logging.getLogger("dragoman.clients")
Context = grpc.aio.ServicerContext[Any, Any]
Metadata = Sequence[tuple[str, Any]]
OWN_SERVICE = "/dragoman.v1.TranslationService/"
HEALTH_SERVICE = "/grpc.health.v1.Health/"
MAX_NAME_CHARACTERS = 64


class Gate:
    """Of all services; only calls of TranslationService take up room.

    Attributes:
        admission: whether the server takes calls now. unread: answers that wait for their clients.

    Raises:
        ConfigurationError: the file of the clients cannot be used.
    """

    def __init__(self, options: SecurityOptions, admission: Admission, metrics: Metrics) -> None:
        self.admission, self.unread = admission, UnreadAnswers()
        self._metrics = metrics
        self._callers = Callers(Path(options.clients), metrics) if options.clients else None
        self._open_health = options.open_health
        self._quotas = Quotas(options.max_client_calls, options.max_client_tokens, metrics.call_refused)
        if options.clients and not options.tls_certificate:
            log.warning("tokens are asked for without TLS: whoever can listen on the way can read them")

    def identify(self, method: str, metadata: Metadata) -> Caller | RequestError | None:
        """Whose call this is, before a byte of its message is parsed; None: no name is asked for.

        Returns:
            Instead of raising it, the error that answers the call.
        """
        if self._callers is None or (self._open_health and method.startswith(HEALTH_SERVICE)):
            return None
        try:
            caller = self._callers.identify(metadata)
            if method.startswith(OWN_SERVICE):
                caller.check(method.removeprefix(OWN_SERVICE))
        except (Unauthenticated, PermissionDenied) as error:
            is_known = isinstance(error, PermissionDenied)
            self._metrics.call_refused("permission_denied" if is_known else "unauthenticated")
            return error
        return caller

    def enter(self, method: str, caller: Caller) -> "Passage | None":
        """Takes the room of one call until the passage is left; None: calls of this method take no room.

        Raises:
            RequestError: the call is refused.
        """
        if not method.startswith(OWN_SERVICE):
            return None
        share = self._quotas.open_call(caller)
        try:
            self.unread.check(share.key)
            return Passage(self._quotas, share, self.admission, self.admission.enter())
        except RequestError as error:
            self._quotas.close_call(share)
            self._metrics.call_refused(_reason(error))
            raise

    def count_unread(self, num_bytes: int) -> None:
        """The answer of the call that this task answers goes out now, and waits for its client."""
        task = asyncio.current_task()
        if task is not None:
            self.unread.add(current_share.get().key, num_bytes, task)


def _reason(error: RequestError) -> str:
    """What a refusal by the server's state is counted as."""
    if isinstance(error, Overloaded):
        return "unread_answers" if "unread_bytes" in error.numbers else "too_many_calls"
    return "draining" if isinstance(error, Draining) else "not_serving"


@dataclass(slots=True)
class Passage:
    """The room of one call: of its client's share, and of the server."""

    quotas: Quotas
    share: Share
    admission: Admission
    task: "asyncio.Task[Any]"

    def leave(self) -> None:
        """Gives both back."""
        self.admission.leave(self.task)
        self.quotas.close_call(self.share)


def peer(context: Context) -> Caller:
    """Who calls without a token: the name in the certificate, else the address without its port."""
    names = context.peer_identities()
    if names:
        name = sorted(names)[0].decode("utf-8", "backslashreplace")[:MAX_NAME_CHARACTERS]
        return Caller(name if name.isprintable() else ascii(name))
    return Caller(context.peer().rpartition(":")[0], is_known=False)
