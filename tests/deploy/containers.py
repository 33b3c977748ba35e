"""Containers by podman, as the tests need them: run, asked, stopped, gone."""

import functools
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

IMAGE = os.environ.get("DRAGOMAN_IMAGE", "localhost/dragoman:0.1.0")
# Kubernetes' restricted profile, by podman's flags.
RESTRICTED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--pids-limit=200")
# A namespace without systemd, as in a container or a CI job.
CONFIGURATION = """
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=9000:9000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


@functools.cache
def environment() -> dict[str, str]:
    """podman's, which where systemd is not running needs another configuration."""
    if Path("/run/systemd/system").exists() or "CONTAINERS_CONF" in os.environ:
        return dict(os.environ)
    file = Path(os.environ.get("TMPDIR", "/tmp")) / "dragoman-containers.conf"
    file.write_text(CONFIGURATION)
    return os.environ | {"CONTAINERS_CONF": str(file)}


def podman(*words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["podman", *words], capture_output=True, text=True, env=environment(), check=False)
    assert not check or done.returncode == 0, f"podman {words}: {done.stderr}"
    return done


def require_image(image: str = IMAGE) -> None:
    if not shutil.which("podman"):
        pytest.skip("podman is not installed")
    if podman("image", "exists", image, check=False).returncode:
        pytest.skip(f"there is no image {image}: make image")


def log(name: str) -> list[dict[str, Any]]:
    """A container's log lines; podman gives both of its streams."""
    done = podman("logs", name)
    return [json.loads(line) for line in (done.stdout + done.stderr).splitlines() if line.startswith("{")]


def wait_for(name: str, message: str, timeout_s: float = 60.0) -> dict[str, Any]:
    """The first log line with this message."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        for line in log(name):
            if line["message"] == message:
                return line
        time.sleep(0.05)
    raise AssertionError(f"no {message!r} in {log(name)}")


class Container:
    """A container that is gone when it is left."""

    def __init__(self, name: str, *flags: str, arguments: tuple[str, ...] = ()) -> None:
        self.name = f"dragoman-test-{name}"
        podman("rm", "--force", self.name, check=False)
        podman("run", "--detach", "--name", self.name, *RESTRICTED, *flags, IMAGE, *arguments)

    def __enter__(self) -> "Container":
        return self

    def __exit__(self, *error: object) -> None:
        podman("rm", "--force", "--time", "0", self.name, check=False)

    def port(self, inside: int) -> str:
        """HOST:PORT of a published port."""
        return podman("port", self.name, str(inside)).stdout.strip().replace("0.0.0.0", "127.0.0.1")

    def inspect(self, template: str) -> Any:
        return podman("inspect", self.name, "--format", template).stdout.strip()

    def log(self) -> list[dict[str, Any]]:
        return log(self.name)

    def wait_for(self, message: str) -> dict[str, Any]:
        return wait_for(self.name, message)

    def health(self, *flags: str) -> int:
        """Exit code of `dragoman health` inside."""
        return podman("exec", self.name, "dragoman", "health", "127.0.0.1:50051", *flags, check=False).returncode
