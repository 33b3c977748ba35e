"""The name of a call: the caller's, or one made here; in every log line and in the trailing metadata.

Knows: where a name may come from. Does not know: what the call is.
"""

import random
from collections.abc import Iterable
from typing import Any

import grpc

from service.logs import request_id

REQUEST_ID_KEY = "x-request-id"
MAX_REQUEST_ID_CHARACTERS = 128


def is_request_id(text: str) -> bool:
    """Whether it may stand in metadata and in a log line: 1 to 128 printable ASCII characters."""
    return 1 <= len(text) <= MAX_REQUEST_ID_CHARACTERS and text.isascii() and text.isprintable()


def name_call(context: "grpc.aio.ServicerContext[Any, Any]", metadata: Iterable[tuple[str, Any]]) -> str:
    """Names the call by its metadata, or anew where they hold no usable name."""
    for key, value in metadata:
        if key == REQUEST_ID_KEY and isinstance(value, str) and is_request_id(value):
            return rename_call(context, value)
    return rename_call(context, f"{random.getrandbits(64):016x}")  # a name, no secret: no system call for it


def rename_call(context: "grpc.aio.ServicerContext[Any, Any]", name: str) -> str:
    """From here on the call has this name; one that is none changes nothing. Returns the name it has now."""
    if is_request_id(name):
        request_id.set(name)
        context.set_trailing_metadata(((REQUEST_ID_KEY, name),))
    return request_id.get()
