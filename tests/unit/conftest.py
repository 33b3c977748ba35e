"""Property tests take their time on a busy machine, and the same examples every time in CI; log lines as they come."""

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.unit.served_application import Facts

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
