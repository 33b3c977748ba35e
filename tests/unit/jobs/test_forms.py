"""Every form of rows: as many out as in, in order, with everything else carried through."""

import csv
import gzip
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from service.engine.request import TextResult
from service.errors import EngineFailure
from tests.unit.jobs.conftest import Batch
from tests.unit.transport.scripted_translator import ScriptedTranslator, result_of


def errors_of(output: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in Path(output + ".errors.jsonl").read_text().splitlines()]


def test_text_lines(batch: Batch):
    Path("in.txt").write_bytes(b"one\n\n  two\r\nthree")
    assert batch("in.txt", "out.txt") == 0
    assert Path("out.txt").read_bytes() == b"ONE\n\n  TWO\r\nTHREE\n"
    assert not Path("out.txt.job").exists()
    assert not Path("out.txt.errors.jsonl").exists()


def test_json_objects_keep_their_bytes(batch: Batch):
    Path("in.jsonl").write_text(
        '{"x": 1.50, "text":"a\\u0062",  "y":[1e5] }\n\n{"text": null}\n{"id":"q", "text":""}\n'
    )
    assert batch("in.jsonl", "out.jsonl") == 0
    assert Path("out.jsonl").read_text().splitlines() == [
        '{"x": 1.50, "text":"a\\u0062",  "y":[1e5], "id": 1, "translation": "AB", "score": -0.5, "flags": []}',
        '{"text": null, "id": 2, "translation": null, "score": null, "flags": ["no_text"]}',
        '{"id":"q", "text":"", "translation": "", "score": -0.5, "flags": []}',
    ]


def test_csv_records_keep_their_bytes(batch: Batch):
    Path("in.csv").write_bytes(b'a,"text"\r\n1,one\r\n"2","tw""o,\nlines"\r\n')
    assert batch("in.csv", "out.csv") == 0
    assert Path("out.csv").read_bytes() == (
        b'a,"text",id,translation,score,flags\r\n1,one,1,ONE,-0.5,\r\n"2","tw""o,\nlines",2,"TW""O,\nLINES",-0.5,\r\n'
    )


def test_parquet_keeps_what_its_file_says_of_itself(batch: Batch):
    """Without it pandas has lost its index, and a GeoParquet file is none any more."""
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    field = pa.field("text", pa.string(), metadata={"unit": "sentence"})
    for name, own in (("a", "first"), ("b", "second")):
        schema = pa.schema([field], metadata={"geo": "{}", "of": own})
        pq.write_table(pa.table([["one", "two"]], schema=schema), f"in-{name}.parquet")
    assert batch("in-*.parquet", "out.parquet") == 0
    schema = pq.read_table("out.parquet").schema
    assert schema.metadata == {b"geo": b"{}", b"of": b"first"}
    assert schema.field("text").metadata[b"unit"] == b"sentence"
    assert schema.names == ["text", "id", "translation", "score", "flags"]


@pytest.mark.parametrize("line_break", ["\n", "\r", "\r\n"])
def test_a_translation_with_a_line_break_is_one_field(batch: Batch, line_break: str):
    Path("in.csv").write_bytes(f'text,b\n"one{line_break}two",x\nthree,y\n'.encode())
    assert batch("in.csv", "out.csv") == 0
    with Path("out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["translation"] for row in rows] == [f"ONE{line_break}TWO", "THREE"]


def test_tsv_without_names(batch: Batch):
    Path("in.tsv").write_text('a "quote"\tb\nc\td\n')
    assert batch("in.tsv", "out.tsv", "--no-header", "--column", "2") == 0
    assert Path("out.tsv").read_text() == 'a "quote"\tb\t1\tB\t-0.5\t\nc\td\t2\tD\t-0.5\t\n'


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("in.txt", "out.jsonl", '{"text": "one", "id": 1, "translation": "ONE", "score": -0.5, "flags": []}\n'),
        ("in.txt", "out.csv", "text,id,translation,score,flags\none,1,ONE,-0.5,\n"),
        ("in.csv", "out.tsv", "id\ttext\ttranslation\tscore\tflags\n7\tone\tONE\t-0.5\t\n"),
        ("in.csv", "out.jsonl", '{"id": "7", "text": "one", "translation": "ONE", "score": -0.5, "flags": []}\n'),
        ("in.csv", "out.txt", "ONE\n"),
    ],
)
def test_one_form_into_another(batch: Batch, source: str, target: str, expected: str):
    Path("in.txt").write_text("one\n")
    Path("in.csv").write_text("id,text\n7,one\n")
    assert batch(source, target) == 0
    assert Path(target).read_text() == expected


def test_what_a_form_cannot_hold_is_an_error_of_its_row(batch: Batch):
    Path("in.jsonl").write_text('{"text": "a\\nb"}\n{"text": "c"}\n')
    assert batch("in.jsonl", "out.txt") == 1
    assert Path("out.txt").read_text() == "\nC\n"
    assert "line break" in str(errors_of("out.txt")[0]["reason"])


def test_what_json_has_not_becomes_what_it_has(batch: Batch):
    pa = pytest.importorskip("pyarrow", reason="Parquet needs the extra `batch`")
    values = {
        "text": ["a"],
        "n": [float("nan")],
        "list": [[1.0, float("inf")]],
        "time": pa.array([1_500], pa.duration("ms")),
        "unique": pa.array([bytes(16)], pa.uuid()),
    }
    pytest.importorskip("pyarrow.parquet").write_table(pa.table(values), "in.parquet")
    assert batch("in.parquet", "out.jsonl") == 0
    found = json.loads(Path("out.jsonl").read_text(), parse_constant=pytest.fail)
    assert (found["n"], found["list"], found["time"]) == (None, [1.0, None], "PT1.500000S")
    assert found["unique"] == "00000000-0000-0000-0000-000000000000"


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_compressed_in_and_out(batch: Batch, ending: str):
    if ending == "zst":
        pytest.importorskip("pyarrow", reason="zstd needs the extra `batch`")
    Path("in.txt").write_text("one\ntwo\n")
    assert batch("in.txt", f"middle.txt.{ending}") == 0
    assert batch(f"middle.txt.{ending}", "out.txt") == 0
    assert Path("out.txt").read_text() == "ONE\nTWO\n"


def test_parquet_keeps_its_types(batch: Batch):
    pa = pytest.importorskip("pyarrow", reason="Parquet needs the extra `batch`")
    pq = pytest.importorskip("pyarrow.parquet")
    table = pa.table(
        {"n": pa.array([1, None, 3], pa.int8()), "text": ["a", None, "c"], "when": pa.array([1, 2, 3], pa.date32())}
    )
    pq.write_table(table, "in.parquet")
    assert batch("in.parquet", "out.parquet") == 0
    found = pq.read_table("out.parquet")
    assert found.select(["n", "text", "when"]).equals(table)
    assert found.select(["id", "translation", "flags"]).to_pydict() == {
        "id": [1, 2, 3], "translation": ["A", None, "C"], "flags": [[], ["no_text"], []],
    }  # fmt: skip
    assert batch("in.parquet", "out.jsonl") == 0
    assert json.loads(Path("out.jsonl").read_text().splitlines()[0])["when"] == "1970-01-02"
    assert batch("in.parquet", "out.csv") == 2


def test_a_glob_of_files_is_read_by_name(batch: Batch):
    for number in (2, 1, 3):
        Path(f"part-{number}.txt").write_text(f"from {number}\n")
    assert batch("part-*.txt", "out.txt") == 0
    assert Path("out.txt").read_text() == "FROM 1\nFROM 2\nFROM 3\n"


def test_standard_input_and_output(
    batch: Batch, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"text": "one"}\nno\n')))
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.FileIO(1, "wb", closefd=False), write_through=True))
    assert batch("-", "-", "--input-format", "jsonl") == 1
    printed = capfdbinary.readouterr()
    assert [json.loads(line)["translation"] for line in printed.out.splitlines()] == ["ONE", None]
    assert b'{"row": 2, "reason": "the row is not JSON' in printed.err
    assert sys.stdout is not None


def test_shards_one_after_the_other_are_the_whole(batch: Batch):
    Path("in.txt").write_text("".join(f"{number}\n" for number in range(10)))
    for shard in range(4):
        assert batch("in.txt", f"out-{shard}.jsonl", "--shard", f"{shard}/4") == 0
    assert batch("in.txt", "whole.jsonl") == 0
    parts = "".join(Path(f"out-{shard}.jsonl").read_text() for shard in range(4))
    assert parts == Path("whole.jsonl").read_text()


@pytest.mark.parametrize("form", ["csv", "csv.gz", "tsv"])
def test_only_the_first_shard_has_the_header(batch: Batch, form: str):
    separator = "\t" if form == "tsv" else ","
    lines = [f"{number}{separator}text {number}\n" for number in range(7)]
    content = f"n{separator}text\n{''.join(lines)}".encode()
    Path(f"in.{form}").write_bytes(gzip.compress(content) if form.endswith("gz") else content)
    for shard in range(3):
        assert batch(f"in.{form}", f"out-{shard}.{form}", "--shard", f"{shard}/3") == 0
    assert batch(f"in.{form}", f"whole.{form}") == 0
    parts = b"".join(Path(f"out-{shard}.{form}").read_bytes() for shard in range(3))
    read = gzip.decompress if form.endswith("gz") else bytes
    assert read(parts) == read(Path(f"whole.{form}").read_bytes())


def test_a_blank_line_of_one_column_is_an_empty_text(batch: Batch):
    Path("in.csv").write_text("text\none\n\ntwo\n")
    assert batch("in.csv", "out.jsonl") == 0
    assert [json.loads(line)["translation"] for line in Path("out.jsonl").read_text().splitlines()] == [
        "ONE",
        "",
        "TWO",
    ]


def test_rows_of_jsonl_that_do_not_fit_fail_alone(batch: Batch):
    rows = ['{"n": 1}', *['{"text": "a"}'] * 200, '{"text": "b", "score": 7}', '{"text": "c"}']
    Path("in.jsonl").write_text("\n".join(rows))
    assert batch("in.jsonl", "out.jsonl") == 1
    found = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [row["translation"] for row in found] == [None, *["A"] * 200, None, "C"]
    assert found[201] == {"id": 202, "translation": None, "score": None, "flags": ["error"]}, (
        "no name stands there twice"
    )
    assert [error["row"] for error in errors_of("out.jsonl")] == [1, 202]
    assert "has 'score', a name that this job adds" in str(errors_of("out.jsonl")[1]["reason"])


def test_an_output_that_is_a_link_is_written_where_it_points(batch: Batch):
    Path("in.txt").write_text("one\n")
    Path("there").mkdir()
    Path("out.txt").symlink_to("there/real.txt")
    assert batch("in.txt", "out.txt") == 0
    assert Path("out.txt").is_symlink()
    assert Path("there/real.txt").read_text() == "ONE\n"


def test_repeated_texts_are_translated_once(batch: Batch, translator: ScriptedTranslator):
    Path("in.txt").write_text("".join(f"{number % 7}\n" for number in range(5000)))
    assert batch("in.txt", "out.txt") == 0
    assert Path("out.txt").read_text() == "".join(f"{number % 7}\n" for number in range(5000))
    assert sorted(texts[0] for texts, *_ in translator.submissions) == [str(number) for number in range(7)]


def test_flags_scores_and_alternatives(batch: Batch, translator: ScriptedTranslator):
    answer = result_of("long", 2)
    translator.answers["long"] = TextResult(
        answer.alternatives, answer.finish_reason, 3, 2, 2, split=True, timings=answer.timings
    )
    translator.answers["single"] = result_of("single")
    Path("in.txt").write_text("long\nsingle\n")
    assert batch("in.txt", "out.jsonl", "--alternatives", "2", "--beam", "2") == 0
    found, single = map(json.loads, Path("out.jsonl").read_text().splitlines())
    assert single["alternatives"] == [{"text": "SINGLE", "score": -0.5}]
    assert found["flags"] == ["split"]
    assert found["alternatives"] == [{"text": "LONG", "score": -0.5}, {"text": "LONG'", "score": -1.5}]
    assert batch("in.txt", "out.txt", "--alternatives", "2") == 2


@pytest.fixture
def bad_rows(translator: ScriptedTranslator) -> Callable[[], None]:
    def write() -> None:
        translator.answers["engine"] = EngineFailure()
        rows = [
            b'{"text": "a"}',
            b'{"text": "\xff"}',
            b"[1]",
            b'{"id": 4}',
            b'{"text": 5}',
            b'{"text": "%s"}' % (b"x" * 99),
        ]
        Path("in.jsonl").write_bytes(b"\n".join([*rows, b'{"text": "engine"}', b'{"text": "z"}']))

    return write


def test_each_bad_row_keeps_its_place_and_is_told_of(batch: Batch, bad_rows: Callable[[], None]):
    bad_rows()
    assert batch("in.jsonl", "out.jsonl", "--max-row-bytes", "50") == 1
    found = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [(row["id"], row["translation"]) for row in found] == [
        (1, "A"), *((number, None) for number in range(2, 8)), (8, "Z"),
    ]  # fmt: skip
    assert {tuple(row["flags"]) for row in found[1:7]} == {("error",)}
    assert [(error["row"], str(error["reason"])[:23]) for error in errors_of("out.jsonl")] == [
        (2, "byte 11 of the row is n"),
        (3, "the row is not a JSON o"),
        (4, "the row has no field 't"),
        (5, "the text is not a strin"),
        (6, "the row has 112 bytes, "),
        (7, "internal error; see the"),
    ]


def test_bad_rows_of_text_and_csv(batch: Batch):
    Path("in.txt").write_bytes(b"a\n\xff\nb\n")
    assert batch("in.txt", "out.txt") == 1
    assert Path("out.txt").read_bytes() == b"A\n\nB\n"
    Path("in.csv").write_bytes(b'id,text\n1,a\n2\n3,"b"c\n4,d\n')
    assert batch("in.csv", "out.csv") == 1
    assert Path("out.csv").read_bytes() == (
        b"id,text,translation,score,flags\n1,a,A,-0.5,\n2,,,,error\n3,,,,error\n4,d,D,-0.5,\n"
    )
    assert [error["row"] for error in errors_of("out.csv")] == [2, 3]


def test_a_byte_order_mark_is_no_text(batch: Batch):
    Path("in.csv").write_bytes(b"\xef\xbb\xbftext\none\n")
    assert batch("in.csv", "out.csv") == 0
    assert Path("out.csv").read_text() == "text,id,translation,score,flags\none,1,ONE,-0.5,\n"


def test_an_empty_input_gives_an_empty_output(batch: Batch):
    Path("in.txt").write_bytes(b"")
    assert batch("in.txt", "out.txt") == 0
    assert Path("out.txt").read_bytes() == b""
    Path("in.csv").write_bytes(b"text\n")
    assert batch("in.csv", "out.csv.gz") == 0
    assert gzip.decompress(Path("out.csv.gz").read_bytes()) == b"text,id,translation,score,flags\n"
    assert batch("in.txt", "out.txt.gz") == 0
    assert Path("out.txt.gz").stat().st_size > 0  # no bytes at all would be no gzip file
    assert gzip.decompress(Path("out.txt.gz").read_bytes()) == b""


def test_a_file_that_two_parts_of_a_pattern_name_is_read_once(batch: Batch):
    Path("a/b").mkdir(parents=True)
    Path("a/b/in.txt").write_text("one\n")
    assert batch("**/**/in.txt", "out.txt") == 0
    assert Path("out.txt").read_text() == "ONE\n"


def test_parquet_with_row_groups_of_all_sizes(batch: Batch):
    pa = pytest.importorskip("pyarrow", reason="Parquet needs the extra `batch`")
    pq = pytest.importorskip("pyarrow.parquet")
    texts = [f"text {number}" for number in range(3000)]
    table = pa.table({"text": texts, "n": range(3000)})
    with pq.ParquetWriter("in.parquet", table.schema) as writer:
        first = 0
        for size in (1, 1500, 0, 1023, 476):
            writer.write_table(table.slice(first, size))
            first += size
    assert batch("in.parquet", "out.parquet") == 0
    found = pq.read_table("out.parquet").to_pydict()
    assert found["translation"] == [text.upper() for text in texts]
    assert found["n"] == list(range(3000))
    pq.write_table(table.slice(0, 0), "none.parquet")
    assert batch("none.parquet", "none-out.parquet") == 0
    assert pq.read_table("none-out.parquet").num_rows == 0


def test_all_files_get_the_line_breaks_and_names_of_the_first(batch: Batch):
    """However far the reader is ahead of the writer."""
    Path("in-1.csv").write_bytes(b'"text",n\r\n' + b"one,1\r\n" * 2_500)
    Path("in-2.csv").write_bytes(b"text,n\n" + b"two,2\n" * 10)
    assert batch("in-*.csv", "out.csv") == 0
    found = Path("out.csv").read_bytes().split(b"\r\n")
    assert found[0] == b'"text",n,id,translation,score,flags'
    expected = [b"one,1,%d,ONE,-0.5," % number for number in range(1, 2_501)]
    assert found[1:] == [*expected, *(b"two,2,%d,TWO,-0.5," % number for number in range(2_501, 2_511)), b""]


def test_values_that_python_does_not_have_fail_their_rows_alone(batch: Batch):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    offsets = pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, 1, 3, 4)))
    notes = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"a\xff\xfec")])
    times = pa.array([0, 0, 2**60], pa.timestamp("ms"))
    pq.write_table(pa.table({"text": ["one", "two", "three"], "note": notes, "time": times}), "in.parquet")
    assert batch("in.parquet", "out.jsonl") == 1
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [row["translation"] for row in rows] == ["ONE", None, None]
    errors = [json.loads(line) for line in Path("out.jsonl.errors.jsonl").read_text().splitlines()]
    assert ["cannot be read" in str(error) for error in errors] == [True, True]


def test_flagged_rows_are_counted_also_where_lines_cannot_say_so(
    batch: Batch, translator: ScriptedTranslator, capsys: pytest.CaptureFixture[str]
):
    translator.answers["cut"] = result_of("cut")._replace(length_limited=True)
    Path("in.txt").write_text("one\ncut\n\ncut\n")
    assert batch("in.txt", "out.txt") == 0
    assert "2 of 4 rows: the text was split, or the translation ends at a length limit" in capsys.readouterr().err


def test_what_could_not_be_read_is_told_of_with_its_own_words(batch: Batch):
    """Its columns are not in the output, since nobody knows them."""
    Path("in.csv").write_text('k,text\n1,one\n2,two,three\n3,"four\n4,five\n')
    assert batch("in.csv", "out.csv") == 1
    errors = errors_of("out.csv")
    assert [error["record"] for error in errors] == ["2,two,three", '3,"four\n4,five']
    assert "in 2 lines that a quote holds together" in str(errors[1]["reason"])
