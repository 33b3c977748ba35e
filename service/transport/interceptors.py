"""Around every call of every service: its gate, name, log line, metrics, and an answer whatever goes wrong.

Knows: gRPC's handler shapes. Does not know: what a method does.

grpc.aio by itself answers UNKNOWN with the exception's text, for a handler that raises and for bytes that do not parse.
Both are caught here: ours become their own status, others INTERNAL without detail, unreadable bytes INVALID_ARGUMENT.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from inspect import isasyncgenfunction
from typing import Any

import grpc

from service.errors import Draining, EngineFailure, InvalidRequest, RequestError
from service.metrics import Metrics
from service.transport.call_log import CallLog
from service.transport.callers import Caller
from service.transport.compression import AnswerPacking
from service.transport.gate import OWN_SERVICE, Gate
from service.transport.request_ids import name_call
from service.transport.status import abort, status_and_reason
from service.transport.tracing import CallTrace, CallTracer, SilentTrace, call_trace, trace_context

log = logging.getLogger("dragoman.calls")
Context = grpc.aio.ServicerContext[Any, Any]
_CODE_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
_MALFORMED = object()
WATCH = "/grpc.health.v1.Health/Watch"
# A client gives up at its deadline, which reaches us rounded up by as much as a hundredth, and this much later.
_DEADLINE_SLACK_S = 0.05


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps all handlers of a server; every call passes the gate first."""

    def __init__(self, metrics: Metrics, gate: Gate, tracer: CallTracer, compress_from_bytes: int = 0) -> None:
        self._metrics = metrics
        self._gate = gate
        self._tracer = tracer
        self._compress_from_bytes = compress_from_bytes
        self._call_log = CallLog(OWN_SERVICE)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:  # gRPC answers UNIMPLEMENTED; a stranger's method name is no label for a metric.
            return None
        method: str = handler_call_details.method
        kind = _kind(handler)
        caller = self._gate.identify(handler_call_details)
        is_refused = isinstance(caller, RequestError)  # a stranger's bytes are not even parsed
        if is_refused and method == WATCH:
            # UNIMPLEMENTED: a client that watches goes on without, and its calls are told what they lack. Any other
            # code would let them wait for a server that never gets well.
            return None
        packing = AnswerPacking(handler.response_serializer, self._compress_from_bytes)
        return handler._replace(
            **{kind: self._wrapped(getattr(handler, kind), method, caller, handler.request_streaming, packing)},
            request_deserializer=_unread if is_refused else _guarded(handler.request_deserializer),
            response_serializer=packing.serialize,
        )

    def _wrapped(
        self,
        behavior: Callable[..., Any],
        method: str,
        caller: Caller | RequestError | None,
        takes_stream: bool,
        packing: AnswerPacking,
    ) -> Callable[..., Any]:
        async def call(request: Any, context: Context) -> Any:
            packing.context = context
            async with self._call(method, caller, context):
                return await behavior(_checked(request, takes_stream), context)

        async def call_generator(request: Any, context: Context) -> AsyncIterator[Any]:
            packing.context = context
            async with self._call(method, caller, context):
                async for response in behavior(_checked(request, takes_stream), context):
                    yield response

        return call_generator if isasyncgenfunction(behavior) else call

    @asynccontextmanager
    async def _call(self, method: str, caller: Caller | RequestError | None, context: Context) -> AsyncIterator[None]:
        started = time.monotonic()
        name_call(context)
        trace = self._trace(method, context)
        self._metrics.call_opened()
        code = "OK"
        failure: RequestError | None = None
        known: Caller | None = None
        try:
            with ExitStack() as stack:
                known = self._gate.enter(stack, method, caller, context)
                yield
            code = _code(context)
        except asyncio.CancelledError:
            if not (self._gate.admission.is_broken_off and method.startswith(OWN_SERVICE)):
                code = "DEADLINE_EXCEEDED" if _is_late(context, time.monotonic() - started) else "CANCELLED"
                raise
            failure = Draining("the server ended before the answer was ready; send the request again")
            code = status_and_reason(failure)[0].name
        except grpc.aio.AbortError:
            code = _code(context)
            raise
        except Exception as error:
            failure = _answer(error)
            code = status_and_reason(failure)[0].name
        finally:
            duration_s = time.monotonic() - started
            self._metrics.call_closed(method, code, duration_s)
            self._call_log.write(method, code, duration_s, known)
            trace.end(code)
        if failure:  # only now: whoever has the answer finds it counted
            await abort(context, failure)

    def _trace(self, method: str, context: Context) -> CallTrace:
        """The call's trace; of health checks and the like there is none, since they would drown the others."""
        found: CallTrace = SilentTrace()
        if method.startswith(OWN_SERVICE):
            found = self._tracer.begin(method, trace_context(context.invocation_metadata() or ()))
        call_trace.set(found)
        return found


def _is_late(context: Context, duration_s: float) -> bool:
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


def _kind(handler: Any) -> str:
    """Which of the handler's four functions is set."""
    request = "stream" if handler.request_streaming else "unary"
    response = "stream" if handler.response_streaming else "unary"
    return f"{request}_{response}"


def _guarded(deserializer: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def deserialize(payload: bytes) -> Any:
        try:
            return deserializer(payload)
        except Exception:  # protobuf's DecodeError, or UnicodeDecodeError, or what a later version raises
            return _MALFORMED

    return deserialize


def _unread(payload: bytes) -> None:
    """In the place of a deserializer where the call is refused whatever it says."""


def _checked(request: Any, is_stream: bool) -> Any:
    """The request; raises InvalidRequest, for a stream as late as its first message that does not parse."""
    if not is_stream:
        return _well_formed(request)

    async def messages() -> AsyncIterator[Any]:
        async for message in request:
            yield _well_formed(message)

    return messages()


def _well_formed(message: Any) -> Any:
    if message is _MALFORMED:
        raise InvalidRequest("request", "the bytes are not a valid message of this method")
    return message
