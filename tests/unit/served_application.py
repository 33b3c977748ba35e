"""The whole service on a test's own event loop, with scripted translators, and the log lines that tell of it."""

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from service.app import Application
from service.config import ServiceConfig


class Facts(logging.Handler):
    """Log records as they come, so that a test can wait for one."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, dict[str, object]] = {}
        self.arrived = asyncio.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        self.found[record.getMessage()] = getattr(record, "facts", {})

    async def wait(self, message: str) -> dict[str, object]:
        while message not in self.found:
            await asyncio.sleep(0.005)
        return self.found[message]

    async def reload(self, bundle: Path, message: str) -> None:
        """Changes a bundle, asks for a look at it, and waits for what is said of that."""
        self.found.pop(message, None)
        (bundle / str(len(list(bundle.iterdir())))).touch()
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.wait_for(self.wait(message), 10)


def config(tmp_path: Path, **fields: object) -> ServiceConfig:
    """The bundle of it is one by its name only."""
    for folder in (tmp_path, *(path for path in tmp_path.iterdir() if path.is_dir())):
        (folder / "manifest.json").touch()
    values = {
        "listen": "127.0.0.1:0",
        "metrics_listen": "127.0.0.1:0",
        "bundle": (str(tmp_path),),
        "admit_grace_s": 0.0,
    }
    return ServiceConfig(**(values | fields))


def serve(
    app: Application, facts: Facts, meanwhile: Callable[[dict[str, object]], Awaitable[None]] | None = None
) -> int:
    """Runs the application, does something once it serves, sends SIGTERM, and returns the exit code."""

    async def run() -> int:
        running = asyncio.create_task(app.run())
        serving = asyncio.create_task(facts.wait("serving"))
        await asyncio.wait([running, serving], return_when=asyncio.FIRST_COMPLETED)
        if running.done():  # it could not serve
            serving.cancel()
            return running.result()
        found = await serving
        if meanwhile:
            await meanwhile(found)
        os.kill(os.getpid(), signal.SIGTERM)
        return await asyncio.wait_for(running, 10)

    return asyncio.run(run())
