"""The image, run as Kubernetes would: not root, nothing writable, no capability, no shell. `make image image-test`."""

import re
import threading
import time
import urllib.request
from collections.abc import Iterator

import pytest

from service.client import Client, ServiceError
from tests.deploy.containers import IMAGE, Container, podman, require_image

pytestmark = [pytest.mark.image, pytest.mark.timeout(300)]

PUBLISHED = ("--publish=127.0.0.1::50051", "--publish=127.0.0.1::9464", "--memory=1g", "--cpus=1")
# An empty file in place of each shell: whoever needs one fails.
NO_SHELL = tuple(f"--volume=/dev/null:/usr/bin/{name}:ro" for name in ("sh", "dash", "bash"))


@pytest.fixture(autouse=True)
def _image() -> None:
    require_image()


@pytest.fixture
def container() -> Iterator[Container]:
    with Container("service", *PUBLISHED, *NO_SHELL) as found:
        found.wait_for("serving")
        yield found


def test_it_translates_and_is_well(container: Container):
    with Client(container.port(50051)) as client:
        [result] = client.translate(["Where is the station?"], source="en", target="fr")
    assert not isinstance(result, ServiceError)
    assert result.text == "Où est la gare ?"
    assert container.health() == container.health("--alive") == 0
    assert podman("healthcheck", "run", container.name, check=False).returncode == 0
    with urllib.request.urlopen(f"http://{container.port(9464)}/metrics", timeout=10) as response:
        assert re.search(rb'requests_total\{code="OK",method="\S*Translate"\} 1.0', response.read())


def test_it_is_restricted_and_one_worker_serves_one_cpu(container: Container):
    assert container.inspect("{{.Config.User}} {{.HostConfig.ReadonlyRootfs}}") == "65532:65532 true"
    assert container.inspect("{{.EffectiveCaps}}") == "[]"
    assert podman("exec", container.name, "/bin/sh", "-c", "true", check=False).returncode != 0
    writes = "open('/opt/dragoman/x', 'w')"
    assert "Read-only" in podman("exec", container.name, "python3", "-c", writes, check=False).stderr
    with urllib.request.urlopen(f"http://{container.port(9464)}/metrics", timeout=10) as response:
        assert b"dragoman_workers 1.0" in response.read()


def test_sigterm_under_load_loses_nothing(container: Container):
    """Every call that the service took is answered; what it no longer takes is UNAVAILABLE; exit 0 within the grace."""
    outcomes: list[str] = []
    stopping = threading.Event()
    first = threading.Semaphore(0)

    def call() -> None:
        with Client(container.port(50051)) as client:
            while not (stopping.is_set() and outcomes[-1:] == ["UNAVAILABLE"]):
                try:
                    client.translate(["The committee has approved the proposal."] * 4, source="en", target="fr")
                    outcomes.append("OK")
                except ServiceError as error:
                    outcomes.append(error.code)
                    return
                first.release()

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        assert first.acquire(timeout=60)
    stopping.set()
    started = time.monotonic()
    podman("stop", "--time", "60", container.name)
    for thread in threads:
        thread.join(60)
    assert container.inspect("{{.State.ExitCode}}") == "0"
    assert time.monotonic() - started < 60
    assert set(outcomes) == {"OK", "UNAVAILABLE"}
    calls = [line for line in container.log() if line["message"] == "call" and line["method"].endswith("/Translate")]
    codes = {line["code"] for line in calls}
    assert codes <= {"OK", "UNAVAILABLE"}
    assert sum(line["code"] == "OK" for line in calls) == outcomes.count("OK")


def test_sigterm_at_the_start_is_an_orderly_end():
    with Container("early") as container:
        container.wait_for("starting")
        podman("stop", "--time", "30", container.name)
        assert container.inspect("{{.State.ExitCode}}") == "0"


def test_a_wrong_setting_ends_with_78_and_says_which():
    with Container("wrong", "--env=DRAGOMAN_MAX_ROW=1") as container:
        assert podman("wait", container.name).stdout.strip() == "78"
        assert "did you mean DRAGOMAN_MAX_ROWS?" in podman("logs", container.name).stderr


def test_there_is_no_torch_and_no_pip_in_it():
    words = ("run", "--rm", "--entrypoint", "python3", IMAGE, "-c")
    for module in ("torch", "pip", "onnxruntime.tensorrt"):
        assert podman(*words, f"import {module}", check=False).returncode == 1, module


def test_its_labels_and_size():
    labels = podman("image", "inspect", IMAGE, "--format", "{{json .Labels}}").stdout
    assert '"org.opencontainers.image.title":"dragoman"' in labels
    print(IMAGE, "is", int(podman("image", "inspect", IMAGE, "--format", "{{.Size}}").stdout) // 1_000_000, "MB")
