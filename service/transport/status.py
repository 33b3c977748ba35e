"""From our errors to gRPC's: status code, google.rpc details, trailing metadata.

Knows: service.errors.STATUS, the one table. Does not know: why an error was raised.
"""

import math
from typing import Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from service.errors import (
    STATUS,
    Cancelled,
    DeadlineExceeded,
    Draining,
    InvalidRequest,
    NotServing,
    Overloaded,
    RequestError,
)
from service.logs import request_id
from service.pb import translation_pb2 as pb
from service.transport.request_ids import REQUEST_ID_KEY

ERROR_DOMAIN = "dragoman.v1"
PUSHBACK_KEY = "grpc-retry-pushback-ms"
# Another replica can take the call at once; the pause only keeps clients from coming back in one wave.
DRAINING_RETRY_S = 0.1


class InvalidFields(RequestError):
    """Several fields at once are out of their documented ranges.

    Attributes:
        violations: one InvalidRequest per field, in the order of the message.
    """

    def __init__(self, violations: list[InvalidRequest]) -> None:
        super().__init__("; ".join(str(violation) for violation in violations))
        self.violations = violations


def status_and_reason(error: RequestError) -> tuple[grpc.StatusCode, str]:
    """The status code and the ErrorInfo reason of an error, by the nearest class in STATUS."""
    if isinstance(error, InvalidFields):
        return status_and_reason(error.violations[0])
    for kind in type(error).__mro__:
        if kind in STATUS:
            name, reason = STATUS[kind]
            return grpc.StatusCode[name], reason
    raise TypeError(f"{type(error).__name__} is missing in service.errors.STATUS. This is a bug.")


async def abort(context: "grpc.aio.ServicerContext[Any, Any]", error: RequestError) -> NoReturn:
    """Ends the call with the error's status, its details and, where a retry makes sense, when to try again.

    gRPC keeps the exception by which that ends, its traceback keeps the frames that it came through, and they keep the
    call: without a ``del`` in each of ours every refused call would wait for the garbage collector.
    """
    code, reason = status_and_reason(error)
    info = error_details_pb2.ErrorInfo(reason=reason, domain=ERROR_DOMAIN, metadata=_numbers(error))
    details: list[Message] = [info]
    if violations := _violations(error):
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    metadata = [(REQUEST_ID_KEY, request_id.get())]
    if (retry_s := retry_after_s(error)) is not None:
        delay = Duration()
        delay.FromMilliseconds(math.ceil(retry_s * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        metadata.append((PUSHBACK_KEY, str(math.ceil(retry_s * 1000))))
    status = status_pb2.Status(code=code.value[0], message=str(error), details=[_packed(item) for item in details])
    packed = rpc_status.to_status(status)
    try:
        await context.abort(packed.code, packed.details or "", (*(packed.trailing_metadata or ()), *metadata))
    finally:
        del context
    raise RuntimeError("abort returned. This is a bug.")


def retry_after_s(error: RequestError) -> float | None:
    """Seconds until trying again has a chance; None where it has none."""
    if isinstance(error, Overloaded):
        return error.retry_after_s
    return DRAINING_RETRY_S if isinstance(error, Draining | NotServing) else None


def text_error(error: RequestError) -> pb.TextResult:
    """The error in the place of a text's result."""
    code, reason = status_and_reason(error)
    field = error.field if isinstance(error, InvalidRequest) else ""
    finish = pb.FINISH_REASON_ERROR
    if isinstance(error, Cancelled):
        finish = pb.FINISH_REASON_CANCELLED
    elif isinstance(error, DeadlineExceeded):
        finish = pb.FINISH_REASON_DEADLINE
    number = code_pb2.Code.Value(code.name)
    return pb.TextResult(
        error=pb.TextError(code=number, reason=reason, message=str(error), field=field), finish_reason=finish
    )


def _violations(error: RequestError) -> list[error_details_pb2.BadRequest.FieldViolation]:
    invalid = error.violations if isinstance(error, InvalidFields) else [error]
    return [
        error_details_pb2.BadRequest.FieldViolation(field=item.field, description=item.description)
        for item in invalid
        if isinstance(item, InvalidRequest)
    ]


def _numbers(error: RequestError) -> dict[str, str]:
    """Every number of the message, by name; those of several violations under violation0_, violation1_ and so on."""
    numbers = dict(error.numbers)
    if isinstance(error, InvalidFields):
        for place, violation in enumerate(error.violations):
            numbers |= {f"violation{place}_{name}": value for name, value in violation.numbers.items()}
    if (retry_s := retry_after_s(error)) is not None:
        numbers["retry_after_ms"] = math.ceil(retry_s * 1000)
    return {name: str(value) for name, value in numbers.items()}


def _packed(message: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed
