"""What Ray's workers do, without Ray; the whole job on a real Ray is in tests/integration/test_batch_ray.py."""

import json
import pickle
from pathlib import Path

import pytest

from service.decoding.options import DecodeOptions
from service.engine.settings import EngineSettings
from service.errors import EngineFailure
from service.jobs.formats import FileKind, Format
from service.jobs.input_files import InputFiles
from service.jobs.job import open_source
from service.jobs.ray_windows import EngineRecipe, RayOptions, ReadRows, RowTranslator
from service.jobs.source import SourceOptions
from tests.unit.jobs.conftest import Batch
from tests.unit.transport.scripted_translator import ScriptedTranslator

pa = pytest.importorskip("pyarrow", reason="Ray's tables need the extra `batch`")


def test_a_read_task_reads_its_rows_in_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\nno\n{"text": null}\n{"text": "d"}\n')
    monkeypatch.chdir(tmp_path)
    source = open_source(InputFiles.find("in.jsonl"), FileKind(Format.JSONL, ""), SourceOptions())
    rows = source.rows(1)
    next(rows)  # a file is open meanwhile
    task = pickle.loads(pickle.dumps(ReadRows(source.elsewhere(), 2, 4)))
    monkeypatch.chdir("/")
    [table] = list(task())
    assert table["number"].to_pylist() == [2, 3, 4]
    assert table["text"].to_pylist() == [None, None, "d"]
    assert [bool(reason) for reason in table["reason"].to_pylist()] == [True, False, False]
    rows.close()


def test_an_actor_translates_each_text_once(batch: Batch, translator: ScriptedTranslator):
    translator.answers["bad"] = EngineFailure()
    recipe = EngineRecipe(Path("bundle"), EngineSettings(), None, "fr", DecodeOptions())
    actor = RowTranslator(recipe, RayOptions(cpus=0.5))
    texts = ["a", "bad", None, "a", None]
    table = pa.table({"number": [1, 2, 3, 4, 5], "text": texts, "reason": ["", "", "", "", "not JSON"]})
    for _ in range(2):
        outcomes = [json.loads(outcome) for outcome in actor(table)["outcome"].to_pylist()]
        assert [outcome["text"] for outcome in outcomes] == ["A", None, None, "A", None]
        assert [outcome["flags"] for outcome in outcomes] == [[], ["error"], ["no_text"], [], ["error"]]
    assert [submitted for submitted, *_ in translator.submissions] == [["bad"], ["a"], ["bad"]]


def test_standard_input_cannot_be_read_by_tasks(batch: Batch, capsys: pytest.CaptureFixture[str]):
    assert batch("-", "out.txt", "--engine", "ray") == 78
    assert "it must be files" in capsys.readouterr().err
    Path("in.txt").write_text("a\n")
    assert batch("in.txt", "out.txt", "--engine", "ray", "--actors", "0") == 2
    assert batch("in.txt", "out.txt", "--engine", "ray", "--target", "h:1") == 2
