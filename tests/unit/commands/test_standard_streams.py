"""Standard streams that are closed or full: one line says so, and no file takes a closed one's number."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

MAIN = "import sys; from service.cli import main; sys.exit(main(sys.argv[1:]))"
IN_PLACE = """
import os, sys
from service.commands.standard_streams import hold_closed
hold_closed()
print("nobody reads this", file=sys.stderr)
with open(os.devnull) as file:
    print(file.fileno() > 2)
"""


def run(redirection: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = f'exec "$@" {redirection}'
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = ["sh", "-c", line, "sh", sys.executable, "-c", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=buffered)


@pytest.mark.parametrize("redirection", ["", "<&-", "2>&-", "<&- 2>&-"])
def test_a_closed_number_is_taken_by_no_file_and_no_message(redirection: str):
    done = run(redirection, IN_PLACE)
    assert (done.returncode, done.stdout) == (0, "True\n")


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
@pytest.mark.parametrize("command", ["verify", "translate"])
def test_output_that_cannot_be_written_is_told_in_a_line(redirection: str, command: str):
    arguments = ["verify", "service/models/en-fr"] if command == "verify" else ["translate", "--to", "fr", "Hello."]
    done = run(redirection, MAIN, *arguments)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "output cannot be written: " in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
def test_messages_that_nobody_can_take_fail_nothing(redirection: str, tmp_path: Path):
    (tmp_path / "in.txt").write_text("Hello.\n")
    done = run(redirection, MAIN, "batch", str(tmp_path / "in.txt"), str(tmp_path / "out.txt"), "--to", "fr")
    assert done.returncode == 0
    assert (tmp_path / "out.txt").read_text().count("\n") == 1
    wrong = run(redirection, MAIN, "batch", str(tmp_path / "nothing.txt"), str(tmp_path / "other.txt"), "--to", "fr")
    assert (wrong.returncode, wrong.stdout) == (1, "")


def test_input_that_is_closed_is_told_in_a_line():
    done = run("<&-", MAIN, "translate", "--to", "fr")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "dragoman translate: standard input cannot be read: Bad file descriptor"


@pytest.mark.parametrize("imported", ["from None", "swallowed"])
def test_an_interrupt_ends_even_imports_that_swallow_it(imported: str):
    after = "raise ImportError('initialization failed') from None" if imported == "from None" else "pass"
    code = f"""
import os, signal, sys
from service import cli
def build_parser(command):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        {after}
    sys.exit(99)
cli.build_parser = build_parser
sys.exit(cli.main(["health"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, "")
