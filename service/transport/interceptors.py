"""Around the methods of every service: messages in and out, and an answer whatever goes wrong.

Knows: gRPC's handler shapes. Does not know: what a method does, what a call passes (open_call.py).

grpc.aio by itself answers UNKNOWN with the exception's text, for a handler that raises and for bytes that do not parse.
Both are caught here: ours become their own status, others INTERNAL without detail, unreadable bytes INVALID_ARGUMENT.

And grpc.aio reads the message of a call before a handler knows of the call. Here the gate comes first, so that calls
whose message comes slowly or never are no more than other calls may be, and end.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from inspect import isasyncgenfunction
from typing import Any

import grpc

from service.errors import DeadlineExceeded, InvalidRequest, RequestError
from service.transport.compression import AnswerPacking, call_context
from service.transport.open_call import Front, OpenCall
from service.transport.status import abort

Context = grpc.aio.ServicerContext[Any, Any]
Parse = Callable[[bytes], Any]
LEAVING_S = 0.05  # a client that has left looks like one that says nothing, until its call is cancelled a moment later
WATCH = "/grpc.health.v1.Health/Watch"


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps all handlers of a server, each once.

    Args:
        compress_from_bytes: of an answer; 0: none is compressed.
        message_timeout_s: seconds that the message of a call that has one may take to arrive.
    """

    def __init__(self, front: Front, compress_from_bytes: int, message_timeout_s: float) -> None:
        self._front = front
        self._compress_from_bytes, self._message_timeout_s = compress_from_bytes, message_timeout_s
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
        """The same handler; it takes a stream of bytes, so that nothing is read or parsed before the gate."""
        sends = _arity(handler.response_streaming)
        behavior = getattr(handler, f"{_arity(handler.request_streaming)}_{sends}")
        read = self._each_message if handler.request_streaming else self._only_message
        parse = handler.request_deserializer

        async def call(unread: Any, context: Context) -> Any:
            call_context.set(context)
            answer = None
            with OpenCall(self._front, method, context) as opened:
                opened.enter()
                answer = await behavior(await read(parse, context), context)
            if opened.failure:  # only now: whoever has the answer finds it counted
                try:
                    await abort(context, opened.failure)
                finally:
                    del unread, context, opened
            return answer

        async def call_generator(unread: Any, context: Context) -> AsyncIterator[Any]:
            call_context.set(context)
            with OpenCall(self._front, method, context) as opened:
                opened.enter()
                async for response in behavior(await read(parse, context), context):
                    yield response
            if opened.failure:
                try:
                    await abort(context, opened.failure)
                finally:
                    del unread, context, opened

        return handler._replace(
            **{f"stream_{sends}": call_generator if isasyncgenfunction(behavior) else call},
            request_streaming=True,
            request_deserializer=None,
            response_serializer=self._packing(handler).serialize,
        )

    def _packing(self, handler: Any) -> AnswerPacking:
        """A stream waits until what it has written is taken; other answers are counted until then."""
        if handler.response_streaming:
            return AnswerPacking(handler.response_serializer, self._compress_from_bytes)
        return AnswerPacking(handler.response_serializer, self._compress_from_bytes, self._front.gate.count_unread)

    async def _only_message(self, parse: Parse, context: Context) -> Any:
        """The message of a call that has one.

        Raises:
            InvalidRequest: the bytes are none, or there are none. DeadlineExceeded: they have not come. Draining: nor
                had they when the server began to shut down.
        """
        admission, deadline = self._front.gate.admission, asyncio.timeout(self._message_timeout_s)
        try:
            async with deadline:
                admission.silent.add(deadline)
                payload = await context.read()
        except TimeoutError:
            payload = None
        finally:
            admission.silent.discard(deadline)
        if payload is None:
            admission.check_draining()
            raise DeadlineExceeded(f"the message of the call has not arrived within {self._message_timeout_s:g} s")
        if payload is grpc.aio.EOF:
            await asyncio.sleep(LEAVING_S)
            raise InvalidRequest("request", "the call has no message")
        return _parsed(parse, payload)

    async def _each_message(self, parse: Parse, context: Context) -> AsyncIterator[Any]:
        """Those of a stream, parsed when they are read."""
        return _each_parsed(parse, context)


def _arity(is_stream: bool) -> str:
    return "stream" if is_stream else "unary"


def _parsed(parse: Parse, payload: bytes) -> Any:
    """The message; raises InvalidRequest where the bytes are none."""
    try:
        return parse(payload)
    except Exception:  # protobuf's DecodeError, or UnicodeDecodeError, or what a later version raises
        raise InvalidRequest("request", "the bytes are not a valid message of this method") from None


async def _each_parsed(parse: Parse, context: Context) -> AsyncIterator[Any]:
    while (payload := await context.read()) is not grpc.aio.EOF:
        yield _parsed(parse, payload)
