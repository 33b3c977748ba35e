"""Which code a cancelled call is counted under."""

from types import SimpleNamespace

import pytest

from service.transport.open_call import is_late


@pytest.mark.parametrize(
    ("duration_s", "left_s", "expected"),
    [
        (1.5, 0.0, True),
        (1.487, 0.013, True),  # the client's clock came first
        (60.0, 0.5, True),  # gRPC rounds long deadlines up
        (1.0, 0.5, False),
        (0.001, 0.019, False),
        (9.0, None, False),
    ],
)
def test_a_call_given_up_at_its_deadline_is_late(duration_s: float, left_s: float | None, expected: bool):
    context = SimpleNamespace(time_remaining=lambda: left_s)
    assert is_late(context, duration_s) is expected
