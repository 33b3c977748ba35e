"""Between the Python client's words and the contract's: decode options, results, errors.

Knows: both forms. Does not know: channels, calls (service/client.py).
"""

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import grpc
from google.rpc import code_pb2, error_details_pb2
from grpc_status import rpc_status

from service.decoding.options import DecodeOptions
from service.engine.request import AlignmentLink, Alternative, FinishReason, Priority, TextFormat, TextResult, Timings
from service.errors import DragomanError
from service.pb import translation_pb2 as pb

PRIORITIES = {Priority.INTERACTIVE: pb.PRIORITY_INTERACTIVE, Priority.BATCH: pb.PRIORITY_BATCH}
FORMATS = {TextFormat.PLAIN: pb.TEXT_FORMAT_PLAIN, TextFormat.HTML: pb.TEXT_FORMAT_HTML}
_FINISH_REASONS = {
    pb.FINISH_REASON_END_TOKEN: FinishReason.END_TOKEN,
    pb.FINISH_REASON_LENGTH_LIMIT: FinishReason.LENGTH_LIMIT,
    pb.FINISH_REASON_REPETITION: FinishReason.REPETITION,
}


class ServiceError(DragomanError):
    """A call, or one text of it, was answered with an error.

    Attributes:
        code: name of the gRPC status, such as ``UNAVAILABLE``.
        reason: what happened, for programs, such as ``DRAINING`` (README.md has the table); empty where the answer does
            not come from the service itself.
        retry_after_s: when the service wants to be asked again; None where it did not say.
        request_id: the call's name in the service's log; empty for a text.
    """

    def __init__(
        self, code: str, message: str, retry_after_s: float | None = None, reason: str = "", request_id: str = ""
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.reason = code, reason
        self.retry_after_s = retry_after_s
        self.request_id = request_id


def settings(
    source: str,
    target: str,
    options: DecodeOptions | None,
    alignment: bool,
    text_format: TextFormat,
    priority: Priority,
    model: str = "",
) -> dict[str, Any]:
    """Those fields of a TranslateRequest, or of a StreamConfig, that are not its texts."""
    return {
        "source_language": source,
        "target_language": target,
        "model": model,
        "options": options_message(options),
        "priority": PRIORITIES[priority],
        "include_token_ids": True,
        "include_alignment": alignment,
        "text_format": FORMATS[text_format],
    }


def options_message(options: DecodeOptions | None) -> pb.DecodeOptions | None:
    """What stands in a request; None: the service's defaults."""
    if options is None:
        return None
    return pb.DecodeOptions(
        num_beams=options.num_beams,
        length_penalty=options.length_penalty,
        num_alternatives=options.num_alternatives,
        max_length=options.max_length,
        no_repeat_ngram_size=options.no_repeat_ngram_size,
        repetition_penalty=options.repetition_penalty,
        min_length=options.min_length,
    )


def decode_options(message: pb.DecodeOptions) -> DecodeOptions:
    """The opposite, of a message in which every field is set."""
    return DecodeOptions(**{field.name: getattr(message, field.name) for field in fields(DecodeOptions)})


def text_outcome(result: pb.TextResult) -> TextResult | ServiceError:
    """What became of one text."""
    if result.HasField("error"):
        return text_error(result.error)
    translation = result.translation
    best = Alternative(translation.text, tuple(translation.token_ids), translation.score)
    others = [Alternative(item.text, tuple(item.token_ids), item.score) for item in translation.alternatives[1:]]
    timings = translation.timings
    return TextResult(
        alternatives=(best, *others),
        # A reason that a later service made up tells no more here than that there is a translation.
        finish_reason=_FINISH_REASONS.get(result.finish_reason, FinishReason.END_TOKEN),
        num_source_tokens=translation.num_source_tokens,
        num_target_tokens=translation.num_target_tokens,
        num_sentences=translation.num_sentences,
        split=translation.split,
        timings=Timings(
            timings.queue_s,
            timings.encode_s,
            timings.decode_s,
            timings.prepare_s,
            timings.finish_s,
            timings.align_s,
        ),
        length_limited=translation.length_limited,
        repetition_found=translation.repetition_found,
        alignment=tuple(_links(translation.alignment)),
    )


def text_error(error: pb.TextError) -> ServiceError:
    """The error in the place of one text."""
    known = code_pb2.Code.values()
    code = code_pb2.Code.Name(error.code) if error.code in known else "UNKNOWN"
    return ServiceError(code, error.message, reason=error.reason)


def call_error(error: grpc.RpcError) -> ServiceError:
    """The error of a whole call."""
    code: Any = getattr(error, "code", lambda: grpc.StatusCode.UNKNOWN)()
    details: Any = getattr(error, "details", lambda: "")()
    trailing: Any = getattr(error, "trailing_metadata", lambda: None)()
    said = {item.key: item.value for item in trailing or ()}
    pushback = said.get("grpc-retry-pushback-ms")
    retry_after_s = float(pushback) / 1000 if pushback else None
    return ServiceError(code.name, details or "", retry_after_s, _reason(error), said.get("x-request-id", ""))


def _reason(error: grpc.RpcError) -> str:
    """The reason in the call's google.rpc.ErrorInfo."""
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]  # an error of a call is the call
    except (AttributeError, ValueError):  # no call, or somebody in between rewrote its status
        return ""
    info = error_details_pb2.ErrorInfo()
    return str(info.reason) if status and any(detail.Unpack(info) for detail in status.details) else ""


def _links(links: Iterable[pb.AlignmentLink]) -> Iterable[AlignmentLink]:
    for link in links:
        yield AlignmentLink(link.source_start, link.source_end, link.target_start, link.target_end, link.weight)
