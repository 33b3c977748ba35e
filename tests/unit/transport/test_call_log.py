"""A flood of refused calls does not become a flood of lines, and none of it goes unsaid."""

import asyncio
import json
import logging
import time
from datetime import datetime

import pytest

from service.logs import JsonFormatter, request_id
from service.transport.call_log import MAX_REFUSED_LINES_PER_S, PAUSE_S, CallLog
from service.transport.callers import Caller

METHOD = "/dragoman.v1.TranslationService/Translate"


def facts(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    return [record.facts for record in caplog.records]  # type: ignore[attr-defined]


def test_of_a_flood_some_have_a_line_and_the_rest_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dragoman.calls")
    now = 100.0

    async def flood() -> None:
        nonlocal now
        calls = CallLog("/dragoman", lambda: now)
        for _ in range(MAX_REFUSED_LINES_PER_S + 7):
            calls.write(METHOD, "RESOURCE_EXHAUSTED", 0.001, None)
        calls.write(METHOD, "OK", 0.25, Caller("billing"))
        calls.flush()
        codes = [line.get("code") for line in facts(caplog)]
        assert codes == ["RESOURCE_EXHAUSTED"] * MAX_REFUSED_LINES_PER_S + ["OK"]
        assert facts(caplog)[-1] == {"method": METHOD, "code": "OK", "duration_ms": 250.0, "client": "billing"}
        now = 101.0
        caplog.clear()
        calls.write(METHOD, "RESOURCE_EXHAUSTED", 0.001, None)
        calls.flush()

    asyncio.run(flood())
    assert facts(caplog)[0] == {"calls": 7}
    assert facts(caplog)[1]["code"] == "RESOURCE_EXHAUSTED"


def test_lines_that_follow_at_once_wait_for_each_other_and_keep_their_times_and_names(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "dragoman.calls")

    async def calls() -> tuple[int, float]:
        log = CallLog("/dragoman")
        for number in range(3):
            request_id.set(f"call {number}")
            log.write(METHOD, "OK", 0.25, None)
        num_at_once, ended_at = len(caplog.records), time.time()
        request_id.set("another")
        await asyncio.sleep(2 * PAUSE_S)
        return num_at_once, ended_at

    num_at_once, ended_at = asyncio.run(calls())
    assert num_at_once == 1
    assert [line["request_id"] for line in facts(caplog)] == ["call 0", "call 1", "call 2"]
    assert all(record.created <= ended_at for record in caplog.records)
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    assert [line["request_id"] for line in lines] == ["call 0", "call 1", "call 2"]
    assert all(datetime.fromisoformat(line["time"]).timestamp() <= ended_at for line in lines)


def test_calls_of_other_services_are_for_debugging(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dragoman.calls")
    CallLog("/dragoman").write("/grpc.health.v1.Health/Check", "OK", 0.001, None)
    assert not caplog.records


def test_a_client_without_a_name_of_its_own_is_not_named(caplog: pytest.LogCaptureFixture) -> None:
    """What it goes by is an address."""
    caplog.set_level(logging.INFO, "dragoman.calls")
    CallLog("/dragoman").write(METHOD, "OK", 0.25, Caller("ipv4:10.0.0.1", is_known=False))
    assert facts(caplog) == [{"method": METHOD, "code": "OK", "duration_ms": 250.0}]
