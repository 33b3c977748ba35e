"""The loop asks for news less often while it works, and misses none."""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from service.event_loop import ASK_EVERY_S, PatientSelector, new_event_loop


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def run(main: Callable[[], object]) -> object:
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main())  # type: ignore[arg-type]


def test_it_does_not_ask_again_within_a_millisecond_unless_it_may_wait(pair: tuple[socket.socket, socket.socket]):
    ours, theirs = pair
    with PatientSelector() as selector:
        selector.register(ours, 1)
        began_at = time.monotonic()
        selector.select(0)
        theirs.send(b"x")
        found = selector.select(0)
        assert not found or time.monotonic() - began_at >= ASK_EVERY_S  # the second: this test was held up
        assert selector.select(1)  # whoever may wait asks at once
        time.sleep(2 * ASK_EVERY_S)
        assert selector.select(0)


def test_a_busy_loop_hears_of_the_network_and_of_timers(pair: tuple[socket.socket, socket.socket]):
    ours, theirs = pair

    async def main() -> tuple[bytes, int]:
        loop = asyncio.get_running_loop()
        rounds, is_done = 0, False

        def again() -> None:
            nonlocal rounds
            rounds += 1
            if not is_done:
                loop.call_soon(again)

        again()
        loop.call_later(0.02, theirs.send, b"late")
        received = await asyncio.wait_for(loop.sock_recv(ours, 4), 5)
        is_done = True
        return received, rounds

    received, rounds = run(main)  # type: ignore[misc]
    assert received == b"late"
    assert rounds > 20


def test_a_loop_without_work_waits_instead_of_turning():
    async def main() -> float:
        before = time.process_time()
        await asyncio.sleep(0.3)
        return time.process_time() - before

    assert run(main) < 0.1  # type: ignore[operator]


def test_another_thread_wakes_it():
    async def main() -> str:
        return await asyncio.wait_for(asyncio.to_thread(os.fsdecode, b"done"), 5)

    assert run(main) == "done"
