"""What a job refuses, with what words and which exit code."""

import fcntl
import gzip
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.engine.translator import Translator
from service.jobs import input_files, job_folder, windows
from service.jobs.job_folder import JobFolder
from service.jobs.journal import Checkpoint, Journal
from tests.unit.jobs.conftest import Batch
from tests.unit.transport.scripted_translator import ScriptedTranslator, model_info

CONTENT = b"".join(b"text %d\n" % number for number in range(20))


@pytest.fixture
def give(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Sets standard input."""
    return lambda content: monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


@pytest.fixture
def stopped(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a job on 20 rows, in windows of 4, that ends without warning after two checkpoints."""
    monkeypatch.setattr(windows, "MAX_WINDOW_ROWS", 4)
    original = Journal.append

    def append(journal: Journal, checkpoint: Checkpoint) -> None:
        if checkpoint.rows == 12:
            raise RuntimeError("stopped here")
        original(journal, checkpoint)

    def run(source: str = "in.txt") -> None:
        Path("in.txt").write_bytes(CONTENT)
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "append", append)
            with pytest.raises(RuntimeError, match="stopped here"):
                batch(source, "out.txt")
        assert not Path("out.txt").exists()

    return run


def test_a_stopped_job_goes_on(batch: Batch, stopped: Callable[..., None], translator: ScriptedTranslator):
    stopped()
    translator.submissions.clear()
    assert batch("in.txt", "out.txt") == 0
    assert Path("out.txt").read_bytes() == CONTENT.upper()
    assert min(texts[0] for texts, *_ in translator.submissions if len(texts[0]) == 6) == "text 8"


def test_names_that_are_no_utf8_are_names(batch: Batch, stopped: Callable[..., None]):
    name = os.fsdecode(b"caf\xe9")
    stopped()
    Path("in.txt").rename(f"{name}.txt")
    assert batch(f"{name}.txt", f"{name}.out.txt") == 0
    assert Path(f"{name}.out.txt").read_bytes() == CONTENT.upper()
    assert batch(f"{name}.txt", "out.jsonl", "--prefix", name) == 2


def test_a_changed_input_is_refused(batch: Batch, stopped: Callable[..., None], capsys: pytest.CaptureFixture[str]):
    stopped()
    Path("in.txt").write_text("text 0\n")
    assert batch("in.txt", "out.txt") == 78
    assert "input in.txt was 150 bytes with sha256" in capsys.readouterr().err
    assert batch("in.txt", "out.txt", "--restart") == 0
    assert Path("out.txt").read_text() == "TEXT 0\n"


def test_a_changed_option_is_refused(batch: Batch, stopped: Callable[..., None], capsys: pytest.CaptureFixture[str]):
    stopped()
    assert batch("in.txt", "out.txt", "--beam", "2") == 78
    assert "option num_beams was 4, is 2" in capsys.readouterr().err
    assert batch("in.txt", "out.txt") == 0


def test_a_changed_source_language_is_refused(
    batch: Batch, stopped: Callable[..., None], capsys: pytest.CaptureFixture[str]
):
    stopped()
    assert batch("in.txt", "out.txt", "--from", "en") == 78
    assert "option --from was , is en" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [(("--to", "fr-CA"), "option --to was fr, is fr-CA"), (("--shard", "0/2"), "option --shard was 0/1, is 0/2")],
)
def test_another_part_and_another_target_are_another_job(
    batch: Batch,
    stopped: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    flags: tuple[str, str],
    message: str,
):
    stopped()
    assert batch("in.txt", "out.txt", *flags) == 78
    assert message in capsys.readouterr().err


def test_what_somebody_made_meanwhile_is_not_overwritten(
    batch: Batch, stopped: Callable[..., None], capsys: pytest.CaptureFixture[str]
):
    stopped()
    Path("out.txt").write_text("mine\n")
    assert batch("in.txt", "out.txt") == 1
    assert "out.txt is there already; see --if-exists" in capsys.readouterr().err
    assert Path("out.txt").read_text() == "mine\n"
    assert batch("in.txt", "out.txt", "--if-exists", "replace") == 0
    assert Path("out.txt").read_bytes() == CONTENT.upper()


def test_options_that_the_model_cannot_honour_end_the_job_at_once(batch: Batch, capsys: pytest.CaptureFixture[str]):
    Path("in.txt").write_text("a\n")
    assert batch("in.txt", "out.txt", "--max-length", "257") == 78
    assert "257 is more than the model's 256 tokens" in capsys.readouterr().err
    assert not Path("out.txt").exists()


def test_a_closed_standard_output_is_told(
    batch: Batch, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    Path("in.txt").write_text("a\n")
    monkeypatch.setattr("sys.stdout", None)
    assert batch("in.txt", "-", "--output-format", "text") == 1
    assert "standard output is closed" in capsys.readouterr().err


def test_parquet_that_cannot_be_read_is_told(batch: Batch, capsys: pytest.CaptureFixture[str]):
    pa = pytest.importorskip("pyarrow", reason="Parquet needs the extra `batch`")
    pq = pytest.importorskip("pyarrow.parquet")
    twice = pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(twice, "twice.parquet")
    assert batch("twice.parquet", "out.parquet") == 1
    assert "two columns of one name: text, text" in capsys.readouterr().err
    words = pa.DictionaryArray.from_arrays([0, 1], ["x", "y"])
    nested = pa.table({"text": ["a", "b"], "list": pa.ListArray.from_arrays([0, 1, 2], words)})
    pq.write_table(nested, "nested.parquet", row_group_size=1)
    try:
        list(pq.ParquetFile("nested.parquet").iter_batches())
        code, said = 0, ""
    except pa.ArrowNotImplementedError:  # as of version 26
        code, said = 1, "nested.parquet cannot be read: Nested data conversions not implemented"
    assert batch("nested.parquet", "out.parquet") == code
    assert Path("out.parquet").exists() is (code == 0)
    printed = capsys.readouterr().err
    assert said in printed
    assert "Traceback" not in printed


def test_a_changed_model_is_refused(batch: Batch, stopped: Callable[..., None], capsys: pytest.CaptureFixture[str]):
    stopped()
    Path("bundle/manifest.json").write_text("{} ")
    assert batch("in.txt", "out.txt") == 78
    assert "model sha256 was" in capsys.readouterr().err


def test_standard_input_goes_on_where_it_is_the_same(
    batch: Batch, stopped: Callable[..., None], give: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
):
    give(CONTENT)
    stopped("-")
    give(CONTENT.replace(b"text 3", b"text x"))
    assert batch("-", "out.txt") == 1
    assert "standard input is not what it was" in capsys.readouterr().err
    give(CONTENT)
    assert batch("-", "out.txt") == 0
    assert Path("out.txt").read_bytes() == CONTENT.upper()


def test_an_output_that_is_there(batch: Batch, capsys: pytest.CaptureFixture[str]):
    Path("in.txt").write_text("a\n")
    Path("out.txt").write_text("mine\n")
    assert batch("in.txt", "out.txt") == 1
    assert "out.txt is there already; see --if-exists" in capsys.readouterr().err
    assert batch("in.txt", "out.txt", "--if-exists", "skip") == 0
    assert Path("out.txt").read_text() == "mine\n"
    assert batch("in.txt", "out.txt", "--if-exists", "replace") == 0
    assert Path("out.txt").read_text() == "A\n"
    Path("out.txt.errors.jsonl").write_text("{}\n")
    assert batch("in.txt", "out.txt", "--if-exists", "skip") == 1
    assert batch("in.txt", "out.txt", "--if-exists", "replace") == 0
    assert not Path("out.txt.errors.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nothing.txt", "out.txt"], 1, "nothing.txt cannot be read: No such file"),
        (["*.nothing.txt", "out.txt"], 1, "no file is named like"),
        ([".", "out.txt", "--input-format", "text"], 1, "is a folder; name its files"),
        (["in.jsonl", "nowhere/out.jsonl"], 1, "there is no folder nowhere"),
        (["in.jsonl", "in.jsonl", "--if-exists", "replace"], 1, "in.jsonl is one of the files to read"),
        (["in.jsonl", "new.jsonl", "--column", "body"], 1, "the first rows have no field 'body', but text, score"),
        (["in.jsonl", "new.jsonl"], 1, "row 1 has 'score' already; put something before the new names with --prefix"),
        (["in.csv", "out.csv"], 1, "in.csv has no column 'text'; it has a, b. Choose with --column"),
        (["*.csv", "out.csv", "--column", "a"], 1, "other columns (a, c) than the file before it"),
        (["in.dat", "out.txt"], 2, "the name 'in.dat' does not say what is in it"),
        (["in.jsonl", "out.csv"], 2, "jsonl rows cannot be written as csv"),
        (["-", "out.parquet", "--input-format", "parquet"], 2, "Parquet cannot be a standard stream"),
        (["-", "out.txt", "--shard", "0/2"], 2, "--shard needs files"),
        (["in.csv", "out.csv", "--shard", "2/2"], 2, "must be I/N with 0 <= I < N"),
        (["in.csv", "out.csv", "--max-row-bytes", "0"], 2, "max_row_bytes (0) must be >= 1"),
        (["bad.txt.gz", "out.txt"], 1, "bad.txt.gz cannot be read: Not a gzipped file"),
        (["cut.txt.gz", "out.txt"], 1, "cut.txt.gz cannot be read: Compressed file ended"),
        (["pipe.txt", "out.txt"], 1, "pipe.txt is no file but a pipe or a device: give its content to standard input"),
        (["utf16.txt", "out.txt"], 1, "utf16.txt is UTF-16; make it UTF-8 first"),
        (["gzip.txt", "out.txt"], 1, "gzip.txt is compressed with gzip: let INPUT's name end in .gz"),
        (["tab.csv", "out.tsv"], 1, "the name of column 'a\\tb': it holds a tab"),
        (["out.jsonl.errors.jsonl", "out.jsonl", "--if-exists", "replace"], 1, "and one that this job writes"),
        (["good.jsonl", "out.jsonl"], 1, "out.jsonl.errors.jsonl is there already; see --if-exists"),
        (["good.jsonl", "foreign.jsonl"], 1, "foreign.jsonl.job is in the way: it holds 'precious'"),
        (["good.jsonl", "new.jsonl", "--alternatives", "2"], 1, "row 1 has 'alternatives' already"),
        (["good.txt", "new.jsonl", "--column", "id"], 1, "a row's number is called 'id'"),
        (["good.txt", "new.jsonl", "--column", "flags"], 1, "the text has 'flags' already"),
        (["good.txt", "new.jsonl", "--no-header"], 2, "--no-header is for CSV and TSV"),
        (["good.txt", "new.jsonl", "--streams", "2"], 2, "--streams is for --target"),
        (["good.txt", "new.jsonl", "--actors", "2"], 2, "--actors is for --engine ray"),
        (["good.txt", "new.jsonl", "--from", ""], 2, "argument --from: it is empty"),
        (["in.jsonl", "/dev/null", "--output-format", "jsonl", "--if-exists", "replace"], 1, "is a pipe or a device"),
    ],
)
def test_wrong_use_is_explained(
    batch: Batch, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
):
    Path("in.jsonl").write_text('{"text": "a", "score": 1}\n')
    Path("in.csv").write_text("a,b\n1,2\n")
    Path("other.csv").write_text("a,c\n1,2\n")
    Path("bad.txt.gz").write_text("plain\n")
    Path("cut.txt.gz").write_bytes(gzip.compress(b"text\n")[:-3])
    Path("utf16.txt").write_text("text\n", encoding="utf-16")
    Path("gzip.txt").write_bytes(gzip.compress(b"text\n"))
    Path("tab.csv").write_text('"a\tb",text\n1,a\n')
    Path("good.txt").write_text("a\n")
    Path("good.jsonl").write_text('{"text": "a", "alternatives": 1}\n')
    Path("out.jsonl.errors.jsonl").write_text('{"text": "a"}\n')
    Path("foreign.jsonl.job").mkdir()
    Path("foreign.jsonl.job/precious").touch()
    os.mkfifo("pipe.txt")
    assert batch(*arguments) == code
    assert Path("out.jsonl.errors.jsonl").exists()
    assert Path("foreign.jsonl.job/precious").exists()
    assert message in " ".join(capsys.readouterr().err.split())
    assert not Path("out.csv").exists()
    assert not Path("out.txt").exists()


def test_an_input_that_changes_while_it_is_read(
    batch: Batch, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    Path("in.txt").write_text("a\n" * 10_000)
    original = input_files.InputFiles.streams

    def changing(files: input_files.InputFiles) -> Iterator[tuple[str, io.BufferedReader]]:
        for name, stream in original(files):
            with Path("in.txt").open("a") as file:
                file.write("b\n")
            yield name, stream  # type: ignore[misc]

    with monkeypatch.context() as patch:
        patch.setattr(input_files.InputFiles, "streams", changing)
        assert batch("in.txt", "out.txt") == 1
    assert "in.txt changed while it was read" in capsys.readouterr().err
    assert not Path("out.txt").exists()


def test_two_processes_do_not_share_a_job(
    batch: Batch, stopped: Callable[..., None], capsys: pytest.CaptureFixture[str]
):
    stopped()
    with Path("out.txt.job/lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert batch("in.txt", "out.txt") == 1
    assert "another process is working on out.txt" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b'{"version": 1', b"\xff"])
def test_a_job_whose_description_was_altered(
    batch: Batch, stopped: Callable[..., None], capsys: pytest.CaptureFixture[str], content: bytes
):
    stopped()
    Path("out.txt.job/job.json").write_bytes(content)
    assert batch("in.txt", "out.txt") == 1
    assert "job.json is not JSON: it was altered; start over with --restart" in capsys.readouterr().err
    assert batch("in.txt", "out.txt", "--restart") == 0
    assert Path("out.txt").read_bytes() == CONTENT.upper()


def test_starting_over_forgets_nothing_where_it_is_refused(batch: Batch, stopped: Callable[..., None]):
    stopped()
    Path("out.txt").write_text("mine\n")
    assert batch("in.txt", "out.txt", "--restart") == 1
    assert Path("out.txt.job/job.json").exists()
    assert batch("in.txt", "out.txt", "--restart", "--if-exists", "replace") == 0
    assert Path("out.txt").read_bytes() == CONTENT.upper()


@pytest.mark.parametrize("source", ["nothing.txt", "*.nothing.txt", "pipe.txt"])
@pytest.mark.parametrize("output", ["out.txt", "there.txt", "nowhere/out.txt"])
def test_an_input_that_is_not_there_is_told_before_the_output_is_looked_at(
    batch: Batch, stopped: Callable[..., None], capsys: pytest.CaptureFixture[str], source: str, output: str
):
    """With --restart, what a run has done would be thrown away for a mistyped name."""
    stopped()
    Path("there.txt").touch()
    os.mkfifo("pipe.txt")
    assert batch(source, output, "--restart") == 1
    assert source in capsys.readouterr().err
    assert Path("out.txt.job/job.json").exists()


def test_a_job_that_is_done_needs_no_input(batch: Batch):
    """A pod that is started again may find that it has been cleared away."""
    Path("out.txt").touch()
    assert batch("nothing.txt", "out.txt", "--if-exists", "skip") == 0


def test_rows_that_went_away_at_the_end(batch: Batch, monkeypatch: pytest.MonkeyPatch):
    """As after a power cut, where a disk has forgotten a file whose folder was not synced."""
    pytest.importorskip("pyarrow", reason="Parquet needs the extra `batch`")
    Path("in.txt").write_text("a\n")
    original, synced = JobFolder._move, []
    sync_folder = job_folder._sync_folder

    def sync(path: Path) -> None:
        synced.append([file.name for file in path.iterdir()])
        sync_folder(path)

    def move(folder: JobFolder, source: Path, target: Path) -> None:
        assert any("finished" in names for names in synced), "the journal says done, and the disk may not know the file"
        source.unlink()
        original(folder, source, target)

    monkeypatch.setattr(job_folder, "_sync_folder", sync)
    monkeypatch.setattr(JobFolder, "_move", move)
    assert batch("in.txt", "out.parquet") == 1
    assert Path("out.parquet.job/job.json").exists()


def test_a_bundle_of_other_languages(
    batch: Batch, translator: ScriptedTranslator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Translator, "load", lambda *_: ScriptedTranslator(model_info("en", "de")))
    Path("in.txt").write_text("a\n")
    assert batch("in.txt", "out.txt") == 78
    assert "translates en to de, not en to fr" in capsys.readouterr().err
