"""What README.md shows is what happens: its Python blocks run, its table of codes is the code's."""

import json
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from service.client import SERVICE_CONFIG
from service.errors import STATUS
from tests.integration.launched_server import LaunchedServer

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server() -> Iterator[LaunchedServer]:
    with LaunchedServer() as launched:
        yield launched


def test_there_are_blocks_to_run() -> None:
    assert len(BLOCKS) == 2


@pytest.mark.parametrize("block", BLOCKS)
def test_a_python_block_runs_and_prints_french(block: str, server: LaunchedServer) -> None:
    output = StringIO()
    with redirect_stdout(output):
        exec(compile(block.replace("localhost:50051", server.address), "README.md", "exec"), {})
    assert "Merci" in output.getvalue()


def test_the_retry_policy_for_other_languages_is_that_of_the_python_client() -> None:
    shown = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", README, re.DOTALL)]
    assert SERVICE_CONFIG in shown


def test_the_table_of_codes_is_the_codes() -> None:
    rows = re.findall(r"^\| [^|]+ \| ([A-Z_]+) \| ([A-Z_]+) \|$", README, re.MULTILINE)
    assert sorted(rows) == sorted(STATUS.values())


@pytest.mark.parametrize("command", sorted(set(re.findall(r"^\| `dragoman (\w[\w-]*)", README, re.MULTILINE))))
def test_every_command_in_the_table_exists(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    from service.cli import main

    with pytest.raises(SystemExit) as exit_code:
        main([command, "--help"])
    assert exit_code.value.code == 0
    assert command in capsys.readouterr().out
