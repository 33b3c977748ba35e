"""Numbers in the README are those of the results."""

import json
from pathlib import Path

import pytest

from benchmarks.report import RESULTS, command_line, markdown
from benchmarks.tables import PAGES, updated

RESULT = {
    "benchmark": "load",
    "command": "python -m benchmarks.load",
    "date": "2026-01-02",
    "machine": {"cores": 2, "cpu": "a CPU", "flags": ["avx2"]},
    "objective_ms": 500.0,
    "summary": [
        {"system": "dragoman", "best_rate": 40.0, "ratio": 1.0, "peak_goodput": 44.0, "overload_share": 0.93},
        {"system": "other", "best_rate": 20.0, "ratio": 2.0, "peak_goodput": 21.0, "overload_share": 0.1},
    ],
}
PAGE = "before\n\n<!-- table: load -->\nold numbers\n<!-- end -->\n\nafter\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_has_the_numbers_of_the_results(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert updated(text, RESULTS) == text, "run `python -m benchmarks.tables`"


def test_a_table_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "load.json").write_text(json.dumps(RESULT))
    page = updated(PAGE, tmp_path)
    assert page.startswith("before\n\n<!-- table: load -->\n")
    assert page.endswith("<!-- end -->\n\nafter\n")
    assert "old numbers" not in page
    assert "| other " in page
    assert "2.00" in page
    assert "`python -m benchmarks.load`, 2026-01-02, 2 cores of a CPU (avx2)." in page
    assert updated(page, tmp_path) == page


def test_a_table_without_its_result_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no load.json"):
        updated(PAGE, tmp_path)


def test_columns_line_up() -> None:
    lines = markdown([{"name": "a", "ms": 1234.5}, {"name": "long", "ms": 0.0123}], {"name": "who", "ms": "ms"})
    assert lines.splitlines() == [
        "| who  |     ms |",
        "| ---- | -----: |",
        "| a    |  1,234 |",
        "| long | 0.0123 |",
    ]


def test_a_command_names_no_folder_of_this_machine() -> None:
    words = ["/somewhere/benchmarks/peers.py", "/home/me/runs/best", "--work=/tmp/x", "--rounds", "7"]
    assert command_line(words) == "python -m benchmarks.peers best --work=x --rounds 7"
