"""Around the methods of every service: messages in and out, and an answer whatever goes wrong.

Knows: gRPC's handler shapes. Does not know: what a method does, what a call passes (open_call.py).

grpc.aio by itself answers UNKNOWN with the exception's text, for a handler that raises and for bytes that do not parse.
Both are caught here: ours become their own status, others INTERNAL without detail, unreadable bytes INVALID_ARGUMENT.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from inspect import isasyncgenfunction
from typing import Any

import grpc

from service.errors import InvalidRequest, RequestError
from service.transport.compression import AnswerPacking, call_context
from service.transport.open_call import Front, OpenCall
from service.transport.status import abort

Context = grpc.aio.ServicerContext[Any, Any]
Parse = Callable[[bytes], Any]
WATCH = "/grpc.health.v1.Health/Watch"


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps all handlers of a server, each once."""

    def __init__(self, front: Front, compress_from_bytes: int = 0) -> None:
        self._front = front
        self._compress_from_bytes = compress_from_bytes
        self._wrapped: dict[str, Any] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        method: str = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None:  # gRPC answers UNIMPLEMENTED; a stranger's method name is no label for a metric.
                return None
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        if method == WATCH:
            caller = self._front.gate.identify(method, handler_call_details.invocation_metadata)
            if isinstance(caller, RequestError):
                # UNIMPLEMENTED: a client that watches goes on without, and its calls are told what they lack. Any other
                # code would let them wait for a server that never gets well.
                return None
        return wrapped

    def _wrap(self, method: str, handler: Any) -> Any:
        """The same handler; it takes bytes, so that nothing is parsed before the gate."""
        kind = f"{_arity(handler.request_streaming)}_{_arity(handler.response_streaming)}"
        behavior, parse = getattr(handler, kind), handler.request_deserializer
        read = _each_parsed if handler.request_streaming else _parsed

        async def call(request: Any, context: Context) -> Any:
            call_context.set(context)
            answer = None
            with OpenCall(self._front, method, context) as opened:
                opened.enter()
                answer = await behavior(read(parse, request), context)
            if opened.failure:  # only now: whoever has the answer finds it counted
                try:
                    await abort(context, opened.failure)
                finally:
                    del context, opened
            return answer

        async def call_generator(request: Any, context: Context) -> AsyncIterator[Any]:
            call_context.set(context)
            with OpenCall(self._front, method, context) as opened:
                opened.enter()
                async for response in behavior(read(parse, request), context):
                    yield response
            if opened.failure:
                try:
                    await abort(context, opened.failure)
                finally:
                    del context, opened

        return handler._replace(
            **{kind: call_generator if isasyncgenfunction(behavior) else call},
            request_deserializer=None,
            response_serializer=AnswerPacking(handler.response_serializer, self._compress_from_bytes).serialize,
        )


def _arity(is_stream: bool) -> str:
    return "stream" if is_stream else "unary"


def _parsed(parse: Parse, payload: bytes) -> Any:
    """The message; raises InvalidRequest where the bytes are none."""
    try:
        return parse(payload)
    except Exception:  # protobuf's DecodeError, or UnicodeDecodeError, or what a later version raises
        raise InvalidRequest("request", "the bytes are not a valid message of this method") from None


async def _each_parsed(parse: Parse, payloads: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    """The same for each message of a stream, when it is read."""
    async for payload in payloads:
        yield _parsed(parse, payload)
