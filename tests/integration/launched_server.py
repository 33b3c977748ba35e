"""A service in a process of its own, ready when it is entered, gone with exit code 0 when it is left."""

import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from service.demo import free_port, wait_until_serving

ROOT = Path(__file__).parents[2]
DRAGOMAN = [sys.executable, "-m", "service.cli"]


class LaunchedServer:
    """``with LaunchedServer("--bundle", "DIR") as server``: ``server.address`` is HOST:PORT."""

    def __init__(self, *flags: str) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        quiet = ["--metrics-listen", "", "--admit-grace-s", "0.1", "--log-level", "error"]
        self.command = [*DRAGOMAN, "serve", "--listen", self.address, *quiet, *flags]

    def __enter__(self) -> "LaunchedServer":
        self.process = subprocess.Popen(self.command, cwd=ROOT)
        assert wait_until_serving(self.address, self.process)
        return self

    def resident_bytes(self) -> int:
        """Memory the server has in use now."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("no VmRSS in /proc")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0
