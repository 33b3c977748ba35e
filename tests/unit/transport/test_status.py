"""When a refused call is told to come again."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from service.errors import DeadlineExceeded, Draining, EngineFailure, NotServing, Overloaded, RequestError
from service.transport.status import DRAINING_RETRY_S, PUSHBACK_KEY, abort, retry_after_s

LATE = DeadlineExceeded("too late")


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (Overloaded("full", 0.25), 0.25),
        (Draining("leaving"), DRAINING_RETRY_S),
        (NotServing("loading"), DRAINING_RETRY_S),
        (LATE, None),
        (EngineFailure(), None),
    ],
)
def test_trying_again_helps_where_the_server_was_the_reason(error: RequestError, seconds: float | None):
    assert retry_after_s(error) == seconds


@pytest.mark.parametrize(("seconds", "told"), [(0.25, "250"), (1.0, "1000"), (0.0004, "1"), (0.0101, "11")])
def test_a_pause_is_told_in_whole_milliseconds_and_never_as_none(seconds: float, told: str):
    """A client that reads 0 comes back at once."""
    found: dict[str, Any] = {}

    async def end(code: object, details: str, metadata: tuple[tuple[str, Any], ...]) -> None:
        found.update(metadata)
        raise ConnectionError

    context: Any = SimpleNamespace(abort=end)
    with pytest.raises(ConnectionError):
        asyncio.run(abort(context, Overloaded("full", seconds)))
    assert found[PUSHBACK_KEY] == told
