"""The real commands in processes of their own, with a small bundle of random weights."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from service.demo import free_port, wait_until_serving
from service.pb import translation_pb2_grpc as pb_grpc
from tests.conftest import sentences
from tests.faults.calls import request

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
DRAGOMAN = [sys.executable, "-m", "service.cli"]
LINES = "".join(f"{line}\n" for line in [*sentences(60), "", "   ", *sentences(40, seed=5)])


@pytest.fixture(scope="module")
def address(nonsense_bundle: Path) -> Iterator[str]:
    found = f"127.0.0.1:{free_port()}"
    flags = ["--bundle", str(nonsense_bundle), "--listen", found, "--metrics-listen", "", "--admit-grace-s", "0.1"]
    with subprocess.Popen([*DRAGOMAN, "serve", *flags, "--log-level", "error"], cwd=ROOT) as server:
        assert wait_until_serving(found, server)
        yield found
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0


def translate(*flags: str) -> str:
    command = [*DRAGOMAN, "translate", "--to", "fr", *flags]
    return subprocess.run(command, input=LINES, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("beam", ["1", "4"])
def test_a_service_and_an_embedded_engine_answer_the_same(nonsense_bundle: Path, address: str, beam: str):
    embedded = translate("--bundle", str(nonsense_bundle), "--json", "--beam", beam)
    assert embedded.count("\n") == LINES.count("\n")
    assert translate("--target", address, "--json", "--beam", beam) == embedded


def test_what_leaves_while_it_drains_was_answered(nonsense_bundle: Path):
    """A caller who does not watch health, and whose call comes after SIGTERM, within the grace."""
    found = f"127.0.0.1:{free_port()}"
    flags = ["--bundle", str(nonsense_bundle), "--listen", found, "--metrics-listen", "", "--admit-grace-s", "2"]
    with subprocess.Popen([*DRAGOMAN, "serve", *flags, "--log-level", "error"], cwd=ROOT) as server:
        assert wait_until_serving(found, server)
        with grpc.insecure_channel(found) as channel:
            server.send_signal(signal.SIGTERM)
            answer = pb_grpc.TranslationServiceStub(channel).Translate(request(*sentences(20), num_beams=2), timeout=20)
        assert [result.HasField("translation") for result in answer.results] == [True] * 20
        assert server.wait(30) == 0


def test_a_closed_pipe_and_an_interrupt_end_it_quietly(nonsense_bundle: Path):
    command = [*DRAGOMAN, "translate", "--to", "fr", "--bundle", str(nonsense_bundle)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as closed:
        closed.stdout.close()
        closed.stdin.write(LINES.encode())  # fits into the pipe: nobody has to read it
        closed.stdin.flush()
        assert closed.wait(30) == 1
        assert closed.stderr.read() == b""
    # A shell's background jobs ignore Ctrl-C, and so would what they start: this test may be in one.
    heeds = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen(command, cwd=ROOT, **pipes, **heeds) as interrupted:
        interrupted.stdin.write(b"the red house\n")
        interrupted.stdin.flush()
        assert interrupted.stdout.readline()
        interrupted.send_signal(signal.SIGINT)
        assert interrupted.wait(30) == 130
        assert interrupted.stderr.read() == b""


def test_text_is_utf8_whatever_the_locale_is(nonsense_bundle: Path):
    command = [*DRAGOMAN, "translate", "--to", "fr", "--bundle", str(nonsense_bundle), "the red house \u00e9"]
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, "\U0001f600"], cwd=ROOT, env=plain, capture_output=True, timeout=60)
    assert done.stderr == b""
    assert done.stdout.decode().endswith("\n\U0001f600\n")


def test_a_damaged_bundle_is_refused(nonsense_bundle: Path, tmp_path: Path):
    manifest = (nonsense_bundle / "manifest.json").read_bytes()
    (tmp_path / "manifest.json").write_bytes(manifest[: len(manifest) // 2])
    flags = ["--bundle", str(tmp_path), "--listen", "127.0.0.1:0", "--metrics-listen", ""]
    done = subprocess.run([*DRAGOMAN, "serve", *flags], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 78
    assert "manifest.json" in done.stderr
    assert "Traceback" not in done.stderr
