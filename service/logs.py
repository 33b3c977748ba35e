"""Log lines: one JSON object each, with the ids of the request and the trace they belong to. Never a text of a user.

Knows: form. Does not know: what is logged; callers pass facts as ``extra={"facts": {...}}``. An exception raised inside
of a call may quote what the caller sent, so its own message is left out unless the level is debug.
"""

import json
import logging
import sys
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

from service.log_writer import LogWriter

request_id: ContextVar[str] = ContextVar("request_id", default="")
MAX_EXCEPTIONS = 8
_GRPC = "grpc._cython.cygrpc"
trace_id: ContextVar[str] = ContextVar("trace_id", default="")

_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode  # json.dumps would make one for every line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, request_id, then the facts."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update(ids())
        line.update(getattr(record, "facts", {}))
        if record.exc_info:
            line["exception"] = _exception(record)
        return _encode(line)


class TextFormatter(logging.Formatter):
    """The same for eyes."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        facts = getattr(record, "facts", {}) | ids()
        words = [time, record.levelname, record.getMessage(), *(f"{key}={value}" for key, value in facts.items())]
        text = " ".join(words)
        return f"{text}\n{_exception(record)}" if record.exc_info else text


def ids() -> dict[str, str]:
    """Those of the call that is being answered, as a line names them."""
    found = {"request_id": request_id.get(), "trace_id": trace_id.get()}
    return {key: value for key, value in found.items() if value}


def _exception(record: logging.LogRecord) -> str:
    """The traceback; inside of a call without what the exceptions say, but for those of level debug."""
    exc_info = record.exc_info
    if not exc_info or exc_info[1] is None:
        return ""
    if not request_id.get() or logging.getLogger().isEnabledFor(logging.DEBUG):
        return "".join(traceback.format_exception(exc_info[1])).rstrip()
    lines: list[str] = []
    error: BaseException | None = exc_info[1]
    while error is not None and len(lines) < MAX_EXCEPTIONS:
        lines.append("".join(traceback.format_tb(error.__traceback__)) + type(error).__qualname__)
        error = error.__cause__ or error.__context__
    return "\nwhile handling\n".join(lines)


def configure(level: str, form: str, stream: TextIO | None = None) -> None:
    """Sends all log lines to ``stream`` (standard error), replacing what was set up before."""
    handler = _handler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    _leave_out_origins()
    logging.getLogger(_GRPC).addFilter(_is_news)  # once, however often


def _leave_out_origins() -> None:
    """A line says neither which process, thread or line of source wrote it; to find that out takes longer than all the
    rest of it (the library's documentation, "Optimization")."""
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None


def _is_news(record: logging.LogRecord) -> bool:
    """gRPC calls it an error, with a traceback, where a client leaves while its answer is on its way to it."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or kind.__name__ != "ExecuteBatchError"


def _handler(stream: TextIO) -> logging.Handler:
    try:
        return LogWriter(stream.fileno())
    except OSError:  # no file of the system's: it cannot stop taking lines either
        return logging.StreamHandler(stream)
