"""What a process does on signals; the service with a scripted translator, in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from service.pb import translation_pb2_grpc as pb_grpc
from tests.unit.transport.running_server import request

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.integration

# Answers nothing, ever: its gate stays closed.
PROGRAM = """
import asyncio, logging, sys, threading
from service.app import Application
from service.config import ServiceConfig
from service.logs import configure
from tests.unit.transport.scripted_translator import ScriptedTranslator

translator = ScriptedTranslator()
translator.gate.clear()
configure("info", "json", sys.stdout)

def tell():
    translator.submitted.wait()
    logging.info("submitted")

threading.Thread(target=tell, daemon=True).start()
graces = {"admit_grace_s": 0.0, "drain_grace_s": 60.0}
config = ServiceConfig(bundle=("README.md",), listen="127.0.0.1:0", metrics_listen="", **graces)
sys.exit(asyncio.run(Application(config, lambda *_: translator).run()))
"""


@pytest.fixture
def process() -> "Iterator[subprocess.Popen[str]]":
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, cwd=root) as started:
        yield started
        started.kill()


def wait_for(process: "subprocess.Popen[str]", message: str) -> dict[str, object]:
    assert process.stdout is not None
    for line in process.stdout:
        found: dict[str, object] = json.loads(line)
        if found["message"] == message:
            return found
    raise AssertionError(f"the process ended before it said {message!r}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(process: "subprocess.Popen[str]", number: int):
    port = wait_for(process, "serving")["port"]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = pb_grpc.TranslationServiceStub(channel)
        call = stub.Translate.future(request("a"))
        wait_for(process, "submitted")
        process.send_signal(number)
        wait_for(process, "draining")
        process.send_signal(number)
        assert process.wait(10) == 128 + number
        assert call.exception(10).code() is grpc.StatusCode.UNAVAILABLE


def test_one_signal_is_enough_when_nothing_is_open(process: "subprocess.Popen[str]"):
    wait_for(process, "serving")
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


def test_before_anything_is_loaded_sighup_ends_nothing_and_sigterm_is_an_orderly_end(tmp_path: Path):
    (tmp_path / "onnxruntime.py").write_text(
        "import threading\nprint('importing', flush=True)\nthreading.Event().wait()\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    command = [sys.executable, "-m", "service.cli", "serve", "--listen", "127.0.0.1:0", "--metrics-listen", ""]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=environment, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGHUP)  # a script that has just put a bundle there
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
