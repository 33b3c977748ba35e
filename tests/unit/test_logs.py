"""The form of log lines."""

import io
import json
import logging

import pytest

from service.logs import configure, request_id


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
