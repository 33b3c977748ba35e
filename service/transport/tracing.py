"""Traces of calls: what is told of one, whoever listens; and the W3C trace context in a call's metadata.

Knows: stages and trace ids. Does not know: OpenTelemetry (service/transport/open_telemetry.py).
"""

import re
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any, Protocol

from service.logs import trace_id

# version-trace-parent-flags; version ff and ids of zeros are not valid (W3C Trace Context, section 3.2).
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
CONTEXT_KEYS = ("traceparent", "tracestate")


class CallTrace(Protocol):
    """What happens in one call. stage() is called on any thread, must not block and must not raise."""

    def stage(self, name: str, began_at: float, ended_at: float) -> None:
        """``queue``, ``encode``, ``decode``, ``detokenize`` or ``score``, in time.monotonic() seconds."""

    def end(self, code: str) -> None:
        """The call is answered with this gRPC status."""


class CallTracer(Protocol):
    """Makes a CallTrace of each call."""

    def begin(self, method: str, context: Mapping[str, str]) -> CallTrace:
        """A call of ``method`` begins; ``context`` holds those of CONTEXT_KEYS that its metadata have."""

    def close(self) -> None:
        """Sends what was not sent yet; may block for a moment."""


class SilentTrace:
    """Nobody listens."""

    def stage(self, name: str, began_at: float, ended_at: float) -> None: ...

    def end(self, code: str) -> None: ...


class SilentTracer:
    """Traces nothing, but names in the log the trace that the caller is in."""

    def begin(self, method: str, context: Mapping[str, str]) -> CallTrace:
        """Takes the trace id over."""
        match = _TRACEPARENT.fullmatch(context.get("traceparent", ""))
        trace_id.set(match[1] if match else "")
        return SilentTrace()

    def close(self) -> None: ...


# The trace of the call that is being answered.
call_trace: ContextVar[CallTrace] = ContextVar("call_trace", default=SilentTrace())  # noqa: B039  # it has no state


def trace_context(metadata: Iterable[tuple[str, Any]]) -> dict[str, str]:
    """The W3C trace context of a call."""
    return {key: value for key, value in metadata if key in CONTEXT_KEYS and isinstance(value, str)}


def open_tracer(endpoint: str, ratio: float) -> CallTracer:
    """The tracer for the service's settings otlp_endpoint and trace_ratio.

    Raises:
        ConfigurationError: the packages of the extra `otel` are not installed.
    """
    if not endpoint:
        return SilentTracer()
    from service.transport.open_telemetry import otlp_tracer

    return otlp_tracer(endpoint, ratio)
