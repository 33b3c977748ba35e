"""The form of log lines."""

import io
import json
import logging

import pytest

from service.logs import configure, request_id, trace_id


@pytest.fixture
def stream():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    found = io.StringIO()
    yield found
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_line_is_one_object_with_the_request_id(stream: io.StringIO):
    configure("info", "json", stream)
    token = request_id.set("abc")
    logging.getLogger("dragoman.test").info("a call\nof two lines", extra={"facts": {"code": "OK"}})
    logging.getLogger("dragoman.test").debug("not this")
    request_id.reset(token)
    [line] = stream.getvalue().splitlines()
    found = json.loads(line)
    assert (found["message"], found["request_id"], found["code"], found["level"]) == (
        "a call\nof two lines",
        "abc",
        "OK",
        "info",
    )


@pytest.mark.parametrize("form", ["json", "text"])
def test_an_exception_is_logged(stream: io.StringIO, form: str):
    configure("info", form, stream)
    try:
        raise ValueError("the reason")
    except ValueError:
        logging.getLogger("dragoman.test").exception("failed", extra={"facts": {"n": 1}})
    assert "the reason" in stream.getvalue()


def fail(message: str) -> None:
    try:
        try:
            raise KeyError(message)
        except KeyError as inner:
            raise ValueError(message) from inner
    except ValueError:
        logging.getLogger("dragoman.test").exception("a call failed")


@pytest.mark.parametrize("form", ["json", "text"])
def test_inside_of_a_call_an_exception_does_not_quote(stream: io.StringIO, form: str):
    configure("info", form, stream)
    token = request_id.set("abc")
    fail("a text of a user")
    configure("debug", form, stream)
    told = stream.getvalue()
    assert "a text of a user" not in told
    for expected in ("KeyError", "ValueError", "test_logs.py", "in fail"):
        assert expected in told
    fail("a text of a user")
    assert "a text of a user" in stream.getvalue()  # at level debug
    request_id.reset(token)


def test_ids_of_the_trace_stand_beside_the_request(stream: io.StringIO):
    configure("info", "json", stream)
    token = trace_id.set("4bf92f3577b34da6a3ce929d0e0e4736")
    logging.getLogger("dragoman.test").info("x")
    trace_id.reset(token)
    assert json.loads(stream.getvalue())["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
