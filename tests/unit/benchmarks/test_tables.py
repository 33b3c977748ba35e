"""Numbers in the README are those of the results."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import tables
from benchmarks.report import QUICK_RESULTS, RESULTS, command_line, keep, load, markdown, parser, save, spread
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


def test_a_load_test_shows_shorter_objectives_too(tmp_path: Path) -> None:
    objectives = [{"objective_ms": 250, "dragoman": 20.0, "other": None}]
    rows = [{"system": "dragoman", "rate": 10.0}, {"system": "dragoman", "rate": 20.0}]
    (tmp_path / "load.json").write_text(json.dumps(RESULT | {"rows": rows, "by_objective": objectives}))
    assert [line.split() for line in updated(PAGE, tmp_path).splitlines() if "below" in line] == [
        ["|", "250", "|", "20.0", "|", "below", "10", "|"]
    ]


def test_a_table_without_its_result_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no load.json"):
        updated(PAGE, tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "JSONDecodeError"),
        ("[]", "TypeError"),
        (json.dumps(RESULT | {"benchmark": "another"}), "KeyError: 'another'"),
        (json.dumps({key: value for key, value in RESULT.items() if key != "summary"}), "KeyError: 'summary'"),
        (json.dumps(RESULT | {"command": "python -m benchmarks.load --quick"}), "measured with --quick"),
        (json.dumps(RESULT | {"complete": False}), "not to its end"),
    ],
)
def test_a_damaged_result_is_named(
    tmp_path: Path, content: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    (tmp_path / "load.json").write_text(content)
    monkeypatch.setattr(tables, "PAGES", (page,))
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["tables"])
    with pytest.raises(SystemExit, match=f"page.md: no table can be made of load.json.*{said}"):
        tables.main()
    assert page.read_text() == PAGE


def test_a_table_without_an_end_takes_no_other_with_it(tmp_path: Path) -> None:
    (tmp_path / "load.json").write_text(json.dumps(RESULT))
    with pytest.raises(ValueError, match="2 tables begin and 1 end"):
        updated("<!-- table: load -->\ntext\n" + PAGE, tmp_path)


def test_a_check_names_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    (tmp_path / "load.json").write_text(json.dumps(RESULT))
    monkeypatch.setattr(tables, "PAGES", (page,))
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["tables", "--check"])
    assert tables.main() == 1
    assert "out of date: page.md" in capsys.readouterr().out
    assert page.read_text() == PAGE


def test_a_quick_measurement_does_not_replace_a_recorded_one() -> None:
    options = parser("a benchmark", "load")
    assert options.parse_args([]).out == RESULTS / "load.json"
    assert options.parse_args(["--quick"]).out == QUICK_RESULTS / "load.json"
    for words in (["--quick", "--out", "x.json"], ["--out", "x.json", "--quick"]):
        assert (options.parse_args(words).out, options.parse_args(words).quick) == (Path("x.json"), True)


def test_a_run_that_is_stopped_leaves_its_rows(tmp_path: Path) -> None:
    out = tmp_path / "load.json"
    out.write_text("the run before")
    keep(out, "load", [{"rate": 1.0}])
    assert out.read_text() == "the run before"
    assert load(tmp_path / "load.partial.json")["rows"] == [{"rate": 1.0}]
    save(out, "load", [{"rate": 1.0}, {"rate": 2.0}])
    assert [path.name for path in tmp_path.iterdir()] == ["load.json"]
    values = load(out)
    assert len(values["rows"]) == 2
    assert {"command", "commit", "date", "machine", "versions"} <= values.keys()


def test_the_spread_of_two_values_stays_between_them() -> None:
    assert spread([1.0]) == (1.0, 1.0, 1.0)
    assert spread([1.0, 2.0]) == (1.5, 1.0, 2.0)
    assert spread([1.0, 2.0, 4.0]) == (2.0, 1.0, 4.0)


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
