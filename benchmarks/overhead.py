"""What a request costs beside its graphs: CPU time of gRPC, tokenizer, scheduler and search, for one sentence a call.

The real service runs in this process, its client in another. CPU time is taken by the system's clocks of the process
and of the engine's threads; runs of the graphs are timed by the clock of the thread that runs them, so with one thread
a run nothing is missed. CPU time does not depend on who else uses the machine, but for caches.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import onnxruntime as ort
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks import texts
from benchmarks.report import keep, markdown, numbers, parser, save
from service.app import Application
from service.client import Client, ServiceError
from service.config import ServiceConfig
from service.decoding.options import DecodeOptions
from service.demo import free_port
from service.event_loop import new_event_loop
from service.model_store import SHIPPED_BUNDLE

COLUMNS = {
    "num_clients": "clients",
    "num_beams": "beams",
    "graphs_ms": "graphs",
    "search_ms": "search and scheduler",
    "front_ms": "gRPC, tokenizer and the rest",
    "beside_ms": "all beside the graphs",
}
ENGINE_THREADS = "engine-"
MAX_START_S = 60.0


class CountedSession(ort.InferenceSession):  # type: ignore[misc]
    """Adds up the CPU seconds of its runs, of all sessions together."""

    cpu_s = 0.0
    lock = threading.Lock()

    def run_with_iobinding(self, *args: Any) -> None:
        with counted():
            super().run_with_iobinding(*args)

    def run(self, *args: Any) -> Any:
        with counted():
            return super().run(*args)


@contextlib.contextmanager
def counted() -> Iterator[None]:
    """Adds the CPU time of this thread inside the block."""
    began_s = time.thread_time()
    yield
    with CountedSession.lock:
        CountedSession.cpu_s += time.thread_time() - began_s


def engine_threads_s() -> float:
    """CPU seconds of the engine's threads so far."""
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(ENGINE_THREADS)]
    idents = [thread.ident for thread in threads if thread.ident is not None]
    return sum(time.clock_gettime(time.pthread_getcpuclockid(ident)) for ident in idents)


def used_s() -> tuple[float, float, float]:
    """CPU seconds so far: of the process, of the engine's threads, of the graphs."""
    return time.process_time(), engine_threads_s(), CountedSession.cpu_s


async def client(address: str, given: argparse.Namespace, num_clients: int, num_beams: int, count: int) -> None:
    """Another process that sends ``count`` calls of one sentence; returns when all are answered."""
    command = [sys.executable, "-m", "benchmarks.overhead", "--ask", address, "--texts", given.texts]
    command += ["--clients", str(num_clients), "--beams", str(num_beams), "--count", str(count)]
    process = await asyncio.create_subprocess_exec(*command)
    if await process.wait():
        sys.exit("the client failed")


def ask(given: argparse.Namespace) -> int:
    """What that process does. Raises ServiceError where a call or its text fails: what is not done takes no time."""
    sentences = texts.choose(given.texts, given.count, 1).sources
    left: Iterator[str] = iter(sentences)
    lock = threading.Lock()
    options = DecodeOptions(num_beams=given.beams[0])

    def work() -> None:
        with Client(given.ask) as caller:
            while True:
                with lock:
                    sentence = next(left, None)
                if sentence is None:
                    return
                [result] = caller.translate([sentence], source="en", target="fr", options=options)
                if isinstance(result, ServiceError):
                    raise result

    num_clients = given.clients[0]
    with ThreadPoolExecutor(num_clients) as threads:
        for done in [threads.submit(work) for _ in range(num_clients)]:
            done.result()
    return 0


async def measure(address: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for num_beams in given.beams:
        for num_clients in given.clients:
            await client(address, given, num_clients, num_beams, count=20)
            before = used_s()
            await client(address, given, num_clients, num_beams, given.count)
            process_s, engine_s, graphs_s = (after - b for after, b in zip(used_s(), before, strict=True))
            each = 1000 / given.count
            row = {
                "num_clients": num_clients,
                "num_beams": num_beams,
                "graphs_ms": graphs_s * each,
                "search_ms": (engine_s - graphs_s) * each,
                "front_ms": (process_s - engine_s) * each,
                "beside_ms": (process_s - graphs_s) * each,
            }
            print(markdown([row], COLUMNS).splitlines()[-1], flush=True)
            rows.append(row)
            keep(given.out, "overhead", rows)
    return rows


async def wait_until_ready(address: str) -> None:
    """Raises grpc.aio.AioRpcError where the service is not there in time."""
    request = health_pb2.HealthCheckRequest(service="dragoman.v1.TranslationService")
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # the published types lack Watch
        async for response in stub.Watch(request, timeout=MAX_START_S, wait_for_ready=True):
            if response.status == health_pb2.HealthCheckResponse.SERVING:
                return


async def serve_and_measure(given: argparse.Namespace) -> list[dict[str, Any]]:
    """The service in this process, from its start to its end."""
    address = f"127.0.0.1:{free_port()}"
    config = ServiceConfig(
        bundle=(str(given.bundle),), listen=address, metrics_listen="", threads_per_worker=1, admit_grace_s=0.0
    )
    app = asyncio.create_task(Application(config).run())
    try:
        ready = asyncio.create_task(wait_until_ready(address))
        await asyncio.wait({app, ready}, return_when=asyncio.FIRST_COMPLETED)
        if app.done():
            ready.cancel()
            sys.exit(f"the service ended before it served, exit code {app.result()}")
        await ready
        return await measure(address, given)
    finally:
        if not app.done():
            os.kill(os.getpid(), signal.SIGTERM)
        if code := await app:
            sys.exit(f"the service ended with exit code {code}")


def main() -> int:
    arguments = parser(__doc__ or "", "overhead")
    arguments.add_argument("--bundle", type=Path, default=SHIPPED_BUNDLE)
    arguments.add_argument("--clients", type=numbers, default=[1, 8, 64], help="that ask one after another")
    arguments.add_argument("--beams", type=numbers, default=[1, 4])
    arguments.add_argument("--count", type=int, default=500, help="calls")
    arguments.add_argument("--texts", choices=texts.KINDS, default="mixed")
    arguments.add_argument("--ask", default="", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.ask:
        return ask(given)
    if given.quick:
        given.clients, given.beams, given.count = [1], [1], 20
    ort.InferenceSession = CountedSession  # what service/runtime/session.py makes from now on
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        rows = runner.run(serve_and_measure(given))
    print(markdown(rows, COLUMNS))
    save(given.out, "overhead", rows, unit="ms of CPU a call", count=given.count, texts=given.texts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
