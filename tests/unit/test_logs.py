"""The form of log lines."""

import io
import json
import logging
from pathlib import Path

import pytest
from grpc._cython import cygrpc

from service.logs import MAX_EXCEPTIONS, configure, request_id, trace_id


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


@pytest.mark.parametrize("form", ["json", "text"])
def test_times_are_utc_and_say_so(stream: io.StringIO, form: str):
    configure("info", form, stream)
    logging.getLogger("dragoman.test").info("x")
    assert "+00:00" in stream.getvalue()


def test_facts_stand_as_they_are_whatever_they_are(stream: io.StringIO):
    configure("info", "json", stream)
    logging.getLogger("dragoman.test").info("x", extra={"facts": {"bundle": Path("models/été")}})
    assert '"bundle": "models/été"' in stream.getvalue()


def test_configured_again_it_writes_each_line_once(stream: io.StringIO):
    configure("info", "text", stream)
    configure("info", "json", stream)
    logging.getLogger("dragoman.test").info("x")
    assert len(stream.getvalue().splitlines()) == 1


def test_inside_of_a_call_each_exception_of_a_chain_is_named_but_not_without_end(stream: io.StringIO):
    """The one that was being handled, where no other is given as the cause; of a long chain the last ones."""
    configure("info", "json", stream)
    token = request_id.set("abc")
    error: Exception = TypeError("the first")
    for number in range(MAX_EXCEPTIONS + 1):
        following = ValueError(str(number))
        following.__context__, error = error, following
    for cause in (None, KeyError("the cause")):
        error.__cause__ = cause
        logging.getLogger("dragoman.test").error("x", exc_info=error)
    request_id.reset(token)
    handled, caused = (json.loads(line)["exception"] for line in stream.getvalue().splitlines())
    assert (handled.count("ValueError"), handled.count("TypeError")) == (MAX_EXCEPTIONS, 0)
    assert caused.split("\nwhile handling\n") == ["ValueError", "KeyError"]


def test_a_client_that_leaves_while_its_answer_is_on_its_way_is_no_error(stream: io.StringIO):
    configure("info", "json", stream)
    for error in (cygrpc.ExecuteBatchError("send"), RuntimeError("something else")):
        try:
            raise error
        except Exception:
            logging.getLogger(cygrpc.__name__).exception("raised in core")
    [line] = stream.getvalue().splitlines()
    assert "something else" in json.loads(line)["exception"]
