"""Property tests take their time on a busy machine, and the same examples every time in CI; log lines as they come; a
server and its client.
"""

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from service.client import Client
from tests.unit.served_application import Facts
from tests.unit.transport.running_server import CLIENT_TIMEOUT_S, Running, running_on_thread

settings.register_profile("here", deadline=None, derandomize="CI" in os.environ, print_blob=True)
settings.load_profile("here")


@pytest.fixture
def facts() -> Iterator[Facts]:
    handler = Facts()
    logger = logging.getLogger("dragoman")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)


@pytest.fixture
def server() -> Iterator[Running]:
    with running_on_thread() as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[Client]:
    with Client(server.address, timeout_s=CLIENT_TIMEOUT_S) as found:
        yield found
