"""A launched service: told what to do wrong, asked what it holds, waited for."""

import json
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

ROOT = Path(__file__).parents[2]
PLAIN, FAULTY = "service.cli", "tests.faults.faulty_server"
# A busy machine may take long; nothing here is a condition on speed.
PATIENCE_S = 60.0
# Connections that come and go open files and threads that leave a moment later than what they served.
SLACK = 4


@dataclass(frozen=True)
class Census:
    """What a server holds. At rest the first three are 0; threads and files are as many as there were before."""

    open_requests: int
    queue_sentences: int
    active_rows: int
    threads: int
    files: int

    def is_back_at(self, base: "Census") -> bool:
        mine, theirs = (self.open_requests, self.queue_sentences, self.active_rows), (0, 0, 0)
        return mine == theirs and self.threads <= base.threads + SLACK and self.files <= base.files + SLACK


class ServerProcess:
    """``with ServerProcess("--max-rows", "8") as server``: a service on free ports; killed at the end if still there.

    Args:
        flags: of `dragoman serve`. program: the module to run. environment: of the process; the present one if None.
        is_awaited: whether to wait until it serves.
    """

    def __init__(
        self,
        *flags: str,
        program: str = FAULTY,
        is_awaited: bool = True,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        arguments = [] if program == FAULTY else ["serve"]
        defaults = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--admit-grace-s", "0.1"]
        self.command = [sys.executable, "-m", program, *arguments, *defaults, *flags]
        self.is_awaited, self.prepare = is_awaited, prepare
        self.lines: list[dict[str, Any]] = []
        self.noise: list[str] = []  # what was written to standard error and is no log line
        self.is_read = threading.Event()  # while it is clear, nobody reads what the server writes
        self.is_read.set()
        self._changed = threading.Condition()
        self._words: queue.SimpleQueue[str] = queue.SimpleQueue()

    def __enter__(self) -> "ServerProcess":
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            self.command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True, preexec_fn=self.prepare
        )
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stderr, self._note), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stdout, self._words.put), daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        if self.is_awaited:
            try:
                facts = self.wait_for_log("serving")
            except BaseException:
                self.__exit__(None, None, None)
                raise
            self.address = f"127.0.0.1:{facts['port']}"
            self.metrics_port = facts["metrics_port"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.is_read.set()
        for reader in self._readers:
            reader.join()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def _read(self, stream: IO[str], take: Callable[[str], None]) -> None:
        for line in stream:
            self.is_read.wait()
            take(line.strip())
        with self._changed:
            self._changed.notify_all()

    def _note(self, line: str) -> None:
        with self._changed:
            try:
                self.lines.append(json.loads(line))
            except ValueError:
                self.noise.append(line)
            self._changed.notify_all()

    def wait_for_log(self, message: str) -> dict[str, Any]:
        """The first log line with this message, once it is there."""
        until = time.monotonic() + PATIENCE_S
        with self._changed:
            while True:
                for line in self.lines:
                    if line["message"] == message:
                        return line
                has_ended = self.process.poll() is not None and not self._readers[0].is_alive()
                assert not has_ended, f"the server ended ({self.process.returncode}) without {message!r}: {self.noise}"
                assert time.monotonic() < until, f"no {message!r} in {self.lines[-5:]}"
                self._changed.wait(0.2)

    def tell(self, line: str) -> None:
        """Says a line to a faulty server and waits until it holds."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        self.wait_for_word(line)

    def wait_for_word(self, word: str) -> None:
        """Waits until a faulty server has said ``word``; what it said before is forgotten."""
        while (found := self._words.get(timeout=PATIENCE_S)) != word:
            pass
        assert found == word

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        return self.process.wait(PATIENCE_S)

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def page(self, name: str) -> tuple[int, str]:
        """Status and body of an HTTP page."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/{name}", timeout=PATIENCE_S) as page:
                return page.status, page.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def samples(self) -> dict[str, float]:
        """Every sample of /metrics by its name and labels, as they are written there."""
        lines = self.page("metrics")[1].splitlines()
        pairs = (line.rpartition(" ")[::2] for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def wait_for_sample(self, name: str, wanted: float) -> None:
        """Waits until a metric has this value."""
        until = time.monotonic() + PATIENCE_S
        while (found := self.samples().get(name, 0.0)) != wanted:
            assert time.monotonic() < until, f"{name} is {found}, not {wanted}"
            time.sleep(0.02)

    def census(self) -> Census:
        samples = self.samples()
        own = Path(f"/proc/{self.process.pid}")
        return Census(
            open_requests=int(samples["dragoman_open_requests"]),
            queue_sentences=int(samples["dragoman_queue_sentences"]),
            active_rows=int(samples["dragoman_active_rows"]),
            threads=len(list((own / "task").iterdir())),
            files=len(list((own / "fd").iterdir())),
        )

    def wait_for_rest(self, base: Census) -> None:
        """Waits until the census is back at ``base``."""
        until = time.monotonic() + PATIENCE_S
        while not (found := self.census()).is_back_at(base):
            assert time.monotonic() < until, f"{found} is not back at {base}"
            time.sleep(0.02)

    def resident_bytes(self) -> int:
        """Memory the server has in use now."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("no VmRSS in /proc")
