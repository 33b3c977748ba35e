"""Replicas replaced under load: a client that knows all places loses no call, however long an old replica drains."""

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from benchmarks.replicas import free_places
from service.client import Client
from service.engine.request import TextResult
from tests.faults.conftest import TEXTS
from tests.faults.server_process import ServerProcess

NUM_CALLERS = 24
NUM_REPLACEMENTS = 3


def started(stack: ExitStack, port: int) -> ServerProcess:
    """A replica that serves. While it loads it is there already, and refuses."""
    flags = ("--listen", f"127.0.0.1:{port}", "--admit-grace-s", "0.3", "--num-workers", "1", "--max-delay-s", "0")
    return stack.enter_context(ServerProcess(*flags))


@pytest.mark.faults
@pytest.mark.timeout(400)
def test_no_call_fails_while_replicas_are_replaced():
    """An old one gets slow before it goes: it refuses for seconds, until its last call is answered."""
    places = free_places(3)
    end = threading.Event()

    def hammer(client: Client) -> int:
        count = 0
        while not end.is_set():
            [result] = client.translate([TEXTS[count % len(TEXTS)]], source="en", target="fr")
            assert isinstance(result, TextResult)
            count += 1
        return count

    with ExitStack() as stack, ThreadPoolExecutor(NUM_CALLERS) as pool:
        stack.callback(end.set)
        running = {port: started(stack, port) for port in places[:2]}
        client = stack.enter_context(Client("ipv4:" + ",".join(f"127.0.0.1:{port}" for port in places)))
        callers = [pool.submit(hammer, client) for _ in range(NUM_CALLERS)]
        for _ in range(NUM_REPLACEMENTS):
            [free] = set(places) - running.keys()
            running[free] = started(stack, free)
            oldest = running.pop(next(iter(running)))
            oldest.tell("slow 200")
            oldest.signal(signal.SIGTERM)
            assert oldest.wait() == 0
        end.set()
        assert sum(caller.result() for caller in callers) > NUM_REPLACEMENTS * NUM_CALLERS
