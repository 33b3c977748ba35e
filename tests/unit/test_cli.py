"""The command line: lines in, lines out, and an exit code for whatever goes wrong; with a scripted translator."""

import bz2
import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from service import cli
from service.decoding.options import DecodeOptions
from service.engine.translator import Translator
from service.errors import EngineFailure
from service.transport.limits import Limits
from tests.unit.transport.running_server import running_on_thread
from tests.unit.transport.scripted_translator import ScriptedTranslator, result_of

ANY_PORT = ("--listen", "127.0.0.1:0", "--metrics-listen", "")


@pytest.fixture
def translator(monkeypatch: pytest.MonkeyPatch) -> ScriptedTranslator:
    """What every bundle is loaded as."""
    scripted = ScriptedTranslator()
    monkeypatch.setattr(Translator, "load", lambda *_: scripted)
    return scripted


@pytest.fixture
def standard_input(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    def give(content: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))

    return give


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    return str(tmp_path)


def run(*arguments: str) -> int:
    """Exit code, also where argparse leaves by itself."""
    try:
        return cli.main(arguments)
    except SystemExit as end:
        return int(end.code or 0)


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"one\ntwo\n", ["ONE", "TWO"]),
        (b"one\n\n  \ntwo", ["ONE", "", "  ", "TWO"]),
        (b"a\rb\xe2\x80\xa8c\n", ["A\rB\u2028C"]),
        (b"", []),
    ],
)
def test_as_many_lines_out_as_in(
    translator: ScriptedTranslator,
    standard_input: Callable[[bytes], None],
    bundle: str,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    lines: list[str],
):
    standard_input(content)
    assert run("translate", "--bundle", bundle, "--to", "fr") == 0
    assert capsys.readouterr().out == "".join(f"{line}\n" for line in lines)


def test_many_lines_keep_their_order(
    translator: ScriptedTranslator,
    standard_input: Callable[[bytes], None],
    bundle: str,
    capsys: pytest.CaptureFixture[str],
):
    standard_input(b"".join(b"line %d\n" % number for number in range(2000)))
    assert run("translate", "--bundle", bundle, "--to", "fr") == 0
    assert capsys.readouterr().out.splitlines() == [f"LINE {number}" for number in range(2000)]


def test_json_holds_everything(translator: ScriptedTranslator, bundle: str, capsys: pytest.CaptureFixture[str]):
    flags = ("--json", "--beam", "5", "--alternatives", "2", "--length-penalty", "0.6")
    assert run("translate", "--bundle", bundle, "--from", "en-US", "--to", "fr", *flags, "a") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["text"], found["score"], found["token_ids"], found["finish_reason"]) == (
        "A",
        -0.5,
        [7, 2],
        "end_token",
    )
    assert [item["text"] for item in found["alternatives"]] == ["A", "A'"]
    options = translator.submissions[0][1]
    assert (options.num_beams, options.length_penalty) == (5, 0.6)
    assert (found["length_limited"], found["repetition_found"]) == (False, False)
    assert "alignment" not in found


def test_json_holds_a_single_alternative_where_several_were_asked_for(
    translator: ScriptedTranslator, bundle: str, capsys: pytest.CaptureFixture[str]
):
    translator.answers["a"] = result_of("a")
    assert run("translate", "--bundle", bundle, "--to", "fr", "--json", "--alternatives", "2", "a") == 0
    assert [item["text"] for item in json.loads(capsys.readouterr().out)["alternatives"]] == ["A"]


def test_alignment_is_asked_for_and_printed(
    translator: ScriptedTranslator, bundle: str, capsys: pytest.CaptureFixture[str]
):
    link = {"source_start": 0, "source_end": 1, "target_start": 0, "target_end": 1, "weight": 0.5}
    assert run("translate", "--bundle", bundle, "--to", "fr", "--json", "--alignment", "a") == 0
    assert json.loads(capsys.readouterr().out)["alignment"] == [link]
    with running_on_thread() as server:
        assert run("translate", "--target", server.address, "--to", "fr", "--json", "--alignment", "a") == 0
        assert json.loads(capsys.readouterr().out)["alignment"] == [link]


def test_a_failed_text_leaves_an_empty_line(
    translator: ScriptedTranslator, bundle: str, capsys: pytest.CaptureFixture[str]
):
    translator.answers["bad"] = EngineFailure()
    assert run("translate", "--bundle", bundle, "--to", "fr", "a", "bad", "b") == 1
    printed = capsys.readouterr()
    assert printed.out == "A\n\nB\n"
    assert "text 2: internal error" in printed.err


def test_a_running_service_does_the_same(standard_input: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]):
    with running_on_thread() as server:
        standard_input(b"one\n\ntwo\n")
        assert run("translate", "--target", server.address, "--to", "fr") == 0
        assert capsys.readouterr().out == "ONE\n\nTWO\n"
        assert run("translate", "--target", server.address, "--to", "de", "a") == 78
        assert "the service has no model to de; it has en to fr" in capsys.readouterr().err
        assert run("translate", "--target", server.address, "--from", "en", "--to", "de", "a") == 78
        assert "the service has no model from en to de" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "COMMAND"),
        (["translate", "a"], 2, "--to"),
        (["translate", "--to", "fr", "--beam", "17", "a"], 2, "--beam (17) must be in [1, 16]"),
        (["translate", "--to", "", "a"], 2, "argument --to: it is empty"),
        (["translate", "--to", "fr", "--target", "h", "a"], 2, "'h' names no port; give HOST:PORT"),
        (["translate", "--to", "fr", "--target", "dns:///h:65536", "a"], 2, "'dns:///h:65536' must be <= 65535"),
        (["translate", "--to", "fr", "--alternatives", "2", "a"], 2, "--alternatives needs --json"),
        (["translate", "--to", "fr", "--alignment", "a"], 2, "--alignment needs --json"),
        (["translate", "--to", "fr", "--format", "htm", "a"], 2, "argument --format: 'htm' is neither plain nor html"),
        (["translate", "--to", "fr", "--format", "html", "--json", "--alternatives", "2", "a"], 2, "one alternative"),
        (["translate", "--to", "fr", "--format", "html", "--json", "--alignment", "a"], 2, "without --alignment"),
        (["batch", "a", "b.jsonl", "--to", "fr", "--format", "html", "--alternatives", "2"], 2, "one alternative"),
        (["translate", "--to", "fr", "--target", "h:1", "--bundle", "b", "a"], 2, "not allowed with"),
        (["translate", "--to", "fr", "--target", "h:1", "--precision", "int8", "a"], 2, "not for --target"),
        (["translate", "--to", "fr", "--patience-s", "9", "a"], 2, "--patience-s is for --target"),
        (["translate", "--to", "fr", "--bundle", "/nothing/there", "a"], 78, "no bundle at /nothing/there"),
        (["serve", "--bundle", "/nothing/there", "--listen", "50051"], 78, "HOST:PORT"),
        (["serve", *ANY_PORT, "--bundle", ""], 78, "the name of a bundle is empty"),
        (["serve", "--max-rows", "many"], 2, "must be a whole number"),
        (["serve", "--config", "/nothing/there.toml"], 78, "cannot read"),
        (["translate", "--to", "fr", "\udcff"], 2, "a TEXT is not valid UTF-8"),
        (["sing"], 2, "invalid choice"),
    ],
)
def test_wrong_use_is_explained(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str):
    assert run(*arguments) == code
    assert message in capsys.readouterr().err


def test_a_bundle_of_other_languages_is_refused(
    translator: ScriptedTranslator, bundle: str, capsys: pytest.CaptureFixture[str]
):
    assert run("translate", "--bundle", bundle, "--to", "de", "a") == 78
    assert "translates en to fr, not en to de" in capsys.readouterr().err


def test_input_that_is_not_utf8_is_named(
    translator: ScriptedTranslator,
    standard_input: Callable[[bytes], None],
    bundle: str,
    capsys: pytest.CaptureFixture[str],
):
    standard_input(b"fine\n\xff\n")
    assert run("translate", "--bundle", bundle, "--to", "fr") == 1
    printed = capsys.readouterr()
    assert printed.out == "FINE\n"
    assert "line 2 of the input is not valid UTF-8" in printed.err


@pytest.mark.parametrize("number_of_bytes", [8, 9, 10**6])
def test_a_line_that_is_too_long_is_named(
    translator: ScriptedTranslator,
    standard_input: Callable[[bytes], None],
    bundle: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number_of_bytes: int,
):
    monkeypatch.setattr("service.commands.translate.MAX_LINE_BYTES", 8)
    standard_input(b"fine\n" + b"x" * number_of_bytes + b"\nmore\n")
    is_short = number_of_bytes == 8
    assert run("translate", "--bundle", bundle, "--to", "fr") == (0 if is_short else 1)
    printed = capsys.readouterr()
    assert printed.out == ("FINE\nXXXXXXXX\nMORE\n" if is_short else "FINE\n")
    assert ("line 2 of the input has more than the 8 bytes allowed" in printed.err) is not is_short


def test_a_line_without_an_end_does_not_fill_the_memory(
    translator: ScriptedTranslator, bundle: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    with Path("/dev/zero").open("rb") as endless:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(endless))
        monkeypatch.setattr("service.commands.translate.MAX_LINE_BYTES", 1_000_000)
        assert run("translate", "--bundle", bundle, "--to", "fr") == 1
    assert "line 1 of the input has more than the 1000000 bytes allowed" in capsys.readouterr().err


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("importlib.import_module", missing)
    assert run("train", "config.toml") == 78
    assert "`dragoman train` needs more packages: pip install 'dragoman[train]'" in capsys.readouterr().err
    assert run("align", "bundle", "text") == 78
    assert "pip install 'dragoman[export]'" in capsys.readouterr().err


def test_evaluate_measures(
    translator: ScriptedTranslator, bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source, reference, output = (tmp_path / name for name in ("source.bz2", "reference", "output"))
    source.write_bytes(bz2.compress(b"the cat sat on the mat\nit was a very good day\n"))
    reference.write_text("THE CAT SAT ON THE MAT\nIT WAS A VERY GOOD DAY\n")
    files = ("--source", str(source), "--reference", str(reference))
    assert run("evaluate", "--bundle", bundle, *files, "--output", str(reference)) == 2
    assert "it would be overwritten" in capsys.readouterr().err
    assert run("evaluate", "--bundle", bundle, *files, "--output", "/nowhere/out.txt") == 1
    assert "cannot write /nowhere/out.txt" in capsys.readouterr().err
    assert run("evaluate", "--bundle", bundle, *files, "--reference", str(reference)) == 2
    assert "--reference: one file" in capsys.readouterr().err
    output.write_text("of an earlier run\n")
    assert run("evaluate", "--bundle", bundle, *files, "--output", str(output), "--beam", "99") == 2
    assert output.read_text() == "of an earlier run\n", "it stays until there is another"
    assert run("evaluate", "--bundle", bundle, *files, "--output", str(output), "--beam", "1", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["bleu"], found["chrf"], found["num_beams"]) == (100.0, 100.0, 1)
    assert "version:" in found["bleu_signature"]
    assert output.read_text() == reference.read_text()

    reference.write_text("one line\n")
    assert run("evaluate", "--bundle", bundle, *files) == 1
    assert "must have the same number" in capsys.readouterr().err


def test_evaluate_that_fails_leaves_no_empty_output(translator: ScriptedTranslator, bundle: str, tmp_path: Path):
    files = (tmp_path / "source", tmp_path / "reference")
    for file in files:
        file.write_text("a\n")
    output = tmp_path / "output"
    texts = ("--source", str(files[0]), "--reference", str(files[1]), "--output", str(output))
    assert run("evaluate", "--bundle", bundle, *texts, "--to", "de") != 0
    assert not output.exists(), "it looks like a result"
    output.symlink_to(tmp_path / "elsewhere")
    assert run("evaluate", "--bundle", bundle, *texts, "--to", "de") != 0
    assert output.is_symlink(), "where it leads is the user's choice"
    assert not output.exists()


def test_evaluate_names_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run("evaluate", "--source", str(tmp_path / "nothing"), "--reference", str(tmp_path)) == 1
    assert capsys.readouterr().err == (
        f"dragoman evaluate: {tmp_path}/nothing: cannot be read: No such file or directory\n"
    )


@pytest.mark.parametrize("names", [("a" * 5000 + ".txt", "out.txt"), ("in.txt", "a" * 250 + ".txt")])
def test_a_name_that_is_too_long_is_told_in_words(
    tmp_path: Path, names: tuple[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("in.txt").write_text("Hello.\n")
    assert run("batch", *names, "--to", "fr") == 1
    error = capsys.readouterr().err
    assert error.startswith("dragoman batch: aaaa")
    assert error.endswith(": File name too long\n")


def test_ctrl_c_while_it_imports_is_no_traceback():
    code = (
        "import sys; from service import cli\n"
        "assert not {'grpc', 'numpy', 'asyncio', 'prometheus_client'} & set(sys.modules)\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'grpc': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "sys.exit(cli.main(['translate', '--to', 'fr', 'a']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert (done.returncode, done.stderr) == (130, b"")


def test_help_needs_nothing_heavy():
    code = (
        "import sys; from service import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'onnxruntime', 'onnx', 'sacrebleu'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("serve", "--max-row", "3"), "--max-row 3; did you mean --max-rows?"),
        (("serve", "--max-rowz=3"), "did you mean --max-rows?"),
        (("translate", "--to", "fr", "--bea", "2"), "did you mean --beam?"),
        (("health", "localhost:1", "--zzz"), "unrecognized arguments: --zzz\n"),
    ],
)
def test_flags_are_given_by_their_whole_names(
    arguments: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert told in error
    assert f"usage: dragoman {arguments[0]}" in error, "of another command"


def test_what_is_not_said_is_left_to_the_service(capsys: pytest.CaptureFixture[str]) -> None:
    """Its own defaults and limits may be others than ours."""
    with running_on_thread(limits=Limits(max_beams=2), defaults=DecodeOptions(num_beams=2)) as server:
        command = ("translate", "--to", "fr", "--target", server.address)
        assert run(*command, "--length-penalty", "0.5", "one") == 0
        assert run(*command, "--beam", "3", "one") == 78
        asked = [options for _, options, _, _ in server.translator.submissions]
    assert capsys.readouterr().out.startswith("ONE\n")
    assert asked == [DecodeOptions(num_beams=2, length_penalty=0.5)]


def test_options_that_the_model_cannot_give_are_told_once(
    translator: ScriptedTranslator, bundle: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Not text by text: a batch job would fail row by row."""
    said = "options.max_length: 257 is more than the model's 256 tokens"
    command = ("translate", "--to", "fr", "--max-length", "257", "one", "two")
    assert run(*command, "--bundle", bundle) == 78
    assert capsys.readouterr().err.count(said) == 1
    (tmp_path / "in.txt").write_text("one\ntwo\n")
    with running_on_thread() as server:
        assert run(*command, "--target", server.address) == 78
        assert capsys.readouterr().err.count(f"dragoman translate: INVALID_ARGUMENT: config.{said}") == 1
        files = (str(tmp_path / "in.txt"), str(tmp_path / "out.txt"))
        assert run("batch", *files, "--to", "fr", "--max-length", "257", "--target", server.address) == 78
        assert server.translator.submissions == []
    printed = capsys.readouterr()
    assert (printed.out, said in printed.err) == ("", True)
    assert not (tmp_path / "out.txt").exists()


@pytest.mark.parametrize("is_json", [False, True])
def test_what_may_not_say_all_is_told_of(
    is_json: bool, translator: ScriptedTranslator, bundle: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines have no place for flags."""
    translator.answers["cut"] = result_of("cut")._replace(length_limited=True)
    translator.answers["divided"] = result_of("divided")._replace(split=True)
    flags = ["--json"] if is_json else []
    assert run("translate", "--to", "fr", "--bundle", bundle, *flags, "whole", "cut", "divided") == 0
    told = (
        "2 of 3 translations: the text was split, or the translation ends at a length limit" in capsys.readouterr().err
    )
    assert told is not is_json


def test_a_disk_that_is_full_is_told_in_words(
    translator: ScriptedTranslator, bundle: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert run("translate", "--to", "fr", "--bundle", bundle, "one") == 1
        with contextlib.suppress(OSError):
            full.close()
    assert "standard output cannot be written: No space left on device" in capsys.readouterr().err
