"""Work that nobody waits for: threads that the process can end without, and tasks whose failure is heard of.

Knows: threads, asyncio. Does not know: what is done.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

log = logging.getLogger("dragoman.app")
Work = TypeVar("Work", bound="asyncio.Task[Any]")


def heard(task: Work, on_failure: Callable[[], object] = lambda: None) -> Work:
    """The task; should it fail, that is logged, and ``on_failure`` called. Its end, or to cancel it, is no failure."""

    def look(ended: "asyncio.Task[Any]") -> None:
        if not ended.cancelled() and (error := ended.exception()) is not None:
            log.error("work in the background failed", exc_info=error)
            on_failure()

    task.add_done_callback(look)
    return task


def on_daemon_thread(work: Callable[[], Any]) -> "asyncio.Future[Any]":
    """Like asyncio.to_thread, but the process does not wait for it at its end: loading cannot be interrupted."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def finish(result: Any, error: Exception | None) -> None:
        if done.done():
            return
        if error:
            done.set_exception(error)
        else:
            done.set_result(result)

    def run() -> None:
        nonlocal work
        result, failure = None, None
        try:
            result = work()
        except Exception as error:
            failure = error
        del work  # whoever waits may have to be the last that holds what it held: a replaced model
        try:
            loop.call_soon_threadsafe(finish, result, failure)
        except RuntimeError:  # The loop is closed: the process ends.
            return

    threading.Thread(target=run, name="load", daemon=True).start()
    return done
