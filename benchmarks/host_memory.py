"""A rehearsal of what needs a GPU: the same code and graphs, with the host's memory in the place of the device's.

Knows: where the engine asks for a device. Does not know: what is measured. Numbers of a rehearsal say nothing.
"""

import contextlib
from collections.abc import Iterator
from unittest import mock

from service.engine import engine, placement
from service.runtime.device_memory import Device


@contextlib.contextmanager
def device_or_rehearsal(rehearse: bool) -> Iterator[str]:
    """What arrays are kept on: ``cuda``, or ``cpu`` while engines for a GPU run without one."""
    if not rehearse:
        yield "cuda"
        return
    with (
        mock.patch.object(placement, "require_gpu", return_value=None),
        mock.patch.object(engine, "Device", lambda kind, records: Device("cpu", records=records)),
    ):
        yield "cpu"
