"""Answers on their way out: which are compressed, and how large they are.

Knows: sizes. Does not know: algorithms and what a client takes; gRPC agrees on gzip with the client by itself
(`channel_options` in server.py), and sends an answer as it is where gzip does not make it smaller.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import grpc

# The call that is being answered.
call_context: "ContextVar[grpc.aio.ServicerContext[Any, Any]]" = ContextVar("call_context")


class AnswerPacking:
    """The answers of one method, each on its way out, within its call."""

    def __init__(
        self,
        serializer: Callable[[Any], bytes],
        compress_from_bytes: int,
        tell_size: Callable[[int], None] = lambda num_bytes: None,
    ) -> None:
        self._serializer = serializer
        self._compress_from_bytes, self._tell_size = compress_from_bytes, tell_size

    def serialize(self, answer: Any) -> bytes:
        """The bytes to send; gRPC asks for them right before it asks whether they may be compressed."""
        payload = self._serializer(answer)
        self._tell_size(len(payload))
        if len(payload) < self._compress_from_bytes:
            call_context.get().disable_next_message_compression()
        return payload
