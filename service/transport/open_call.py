"""One call from its arrival to its answer: its name, its room, its trace, its counts, its log line.

Knows: the order of these. Does not know: gRPC's handler shapes (interceptors.py), what a method does.

A refused call costs little more than what is done here and in gRPC, and a flood of them comes when there is least time:
so this is one object with plain methods, not a stack of context managers.
"""

import asyncio
import logging
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import grpc

from service.errors import Draining, EngineFailure, RequestError
from service.metrics import Metrics
from service.transport.call_log import CallLog
from service.transport.callers import Caller
from service.transport.gate import OWN_SERVICE, Gate, Metadata, Passage, peer
from service.transport.request_ids import name_call
from service.transport.status import status_and_reason
from service.transport.tracing import CallTrace, CallTracer, SilentTrace, call_trace, trace_context

log = logging.getLogger("dragoman.calls")
Context = grpc.aio.ServicerContext[Any, Any]
_CODE_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
# A client gives up at its deadline, which reaches us rounded up by as much as a hundredth, and this much later.
_DEADLINE_SLACK_S = 0.05


@dataclass(frozen=True, slots=True)
class Front:
    """What every call passes or reports to."""

    gate: Gate
    metrics: Metrics
    tracer: CallTracer
    call_log: CallLog


class OpenCall:
    """``with OpenCall(...) as call: call.enter()``, then the method.

    Attributes:
        failure: the error that answers the call, once it is closed; it was swallowed so that the call is counted before
            the client has its answer.
    """

    __slots__ = ("_caller", "_context", "_front", "_metadata", "_method", "_passage", "_started", "_trace", "failure")

    def __init__(self, front: Front, method: str, context: Context) -> None:
        self._front, self._method, self._context = front, method, context
        self._passage: Passage | None = None
        self._caller: Caller | None = None
        self.failure: RequestError | None = None

    def __enter__(self) -> "OpenCall":
        self._started = time.monotonic()
        given: Any = self._context.invocation_metadata()  # a tuple of pairs, made anew for each who asks
        self._metadata: Metadata = given or ()
        name_call(self._context, self._metadata)
        self._trace = self._begin_trace()
        self._front.metrics.call_opened()
        return self

    def enter(self) -> None:
        """Passes the gate; nothing of the call's message was looked at yet.

        Raises:
            RequestError: the call is refused.
        """
        gate = self._front.gate
        caller = gate.identify(self._method, self._metadata)
        if isinstance(caller, RequestError):
            raise caller
        self._caller = caller or peer(self._context)
        self._passage = gate.enter(self._method, self._caller)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if self._passage:
            self._passage.leave()
        code = _code(self._context) if error is None else self._judge(error)
        duration_s = time.monotonic() - self._started
        self._front.metrics.call_closed(self._method, code, duration_s)
        self._front.call_log.write(self._method, code, duration_s, self._caller)
        self._trace.end(code)
        return self.failure is not None

    def _judge(self, error: BaseException) -> str:
        """The code that an error becomes, and ``failure`` where it is to be answered instead of raised."""
        if isinstance(error, asyncio.CancelledError):
            if not (self._front.gate.admission.is_broken_off and self._method.startswith(OWN_SERVICE)):
                was_late = is_late(self._context, time.monotonic() - self._started)
                return "DEADLINE_EXCEEDED" if was_late else "CANCELLED"
            self.failure = Draining("the server ended before the answer was ready; send the request again")
        elif isinstance(error, grpc.aio.AbortError) or not isinstance(error, Exception):
            return _code(self._context)
        else:
            self.failure = _answer(error)
            self.failure.__traceback__ = None  # its frames hold this object
        return status_and_reason(self.failure)[0].name

    def _begin_trace(self) -> CallTrace:
        """The call's trace; of health checks and the like there is none, since they would drown the others."""
        found: CallTrace = SilentTrace()
        if self._method.startswith(OWN_SERVICE):
            found = self._front.tracer.begin(self._method, trace_context(self._metadata))
        call_trace.set(found)
        return found


def is_late(context: Context, duration_s: float) -> bool:
    """Whether a cancelled call was given up because of its deadline; gRPC reports both the same way."""
    left: Any = context.time_remaining()  # None without a deadline, which the published types do not know
    if left is None:
        return False
    left_s = float(left)
    total_s = duration_s + left_s
    return left_s <= min(_DEADLINE_SLACK_S + 0.01 * total_s, total_s / 2)


def _answer(error: Exception) -> RequestError:
    """What the client is told; what it is not told goes to the log."""
    if isinstance(error, RequestError) and not isinstance(error, EngineFailure):
        return error
    log.error("a call failed", exc_info=error)
    return error if isinstance(error, EngineFailure) else EngineFailure()


def _code(context: Context) -> str:
    number: Any = context.code()
    return _CODE_NAMES.get(number.value[0] if isinstance(number, grpc.StatusCode) else number or 0, "UNKNOWN")
