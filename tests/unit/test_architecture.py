"""The rules of the tree: who may import whom, how long a file may be, and that the README's tree is the tree."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("service", "model", "export", "benchmarks", "deploy", "tests")
GENERATED = ROOT / "service" / "pb"

# Package -> what of this project it may import besides itself. transport -> engine -> {decoding, runtime}.
MAY_IMPORT = {
    "service/text": (),
    "service/decoding": ("service.errors",),
    "service/runtime": ("service.errors",),
    "service/engine": ("service.decoding", "service.runtime", "service.text", "service.errors", "service.metrics"),
    "service/transport": (
        *("service.engine", "service.decoding.options", "service.pb", "service.errors"),
        *("service.config", "service.metrics", "service.logs"),
    ),
    "service/jobs": (
        *("service.engine", "service.decoding.options", "service.client", "service.errors"),
        *("service.runtime.bundle", "service.transport.languages"),
    ),
    "service": ("service",),
    "model": (
        *("service.runtime.tokenizer", "service.runtime.bundle", "service.runtime.folder_kind"),
        *("service.decoding.options", "service.errors"),
    ),
    "export": (
        *("model", "service.runtime.tokenizer", "service.runtime.piece_tokenizer", "service.runtime.bundle"),
        *(
            "service.runtime.folder_kind",
            "service.runtime.kernels",
            "service.text.splitter",
            "service.text.capitals",
            "service.text.reading",
            "service.decoding.options",
            "service.errors",
        ),
    ),
}
# Library -> the only places that may import it.
ONLY_IN = {
    "torch": ("model", "export"),
    "onnxruntime": ("service/runtime", "export"),
    "grpc": (
        "service/transport",
        "service/app.py",
        "service/client.py",
        "service/client_answers.py",
        "service/connection.py",
        "service/cli.py",
        "service/demo.py",
    ),
    "pyarrow": ("service/jobs",),
    "ray": ("service/jobs",),
    "sentencex": ("service/text",),
    "sentencepiece": ("service/runtime", "model", "export"),
}
# Imported when they are called, so that serving needs none of the extra packages.
LAZY = {
    "service/cli.py": ("model.cli", "export.cli", "export.huggingface.cli"),
    "service/commands/evaluate.py": ("model.evaluate", "model.corpus"),
    "service/commands/verify.py": ("export.cli",),
}
MAX_LINES, MAX_LINES_MODEL = 320, 450
MAX_COLUMNS = 120  # of C; of Python pyproject.toml says it
MAX_FUNCTION_LINES = 40  # its docstring not counted
VAGUE = {"utils", "util", "helpers", "helper", "manager", "common", "misc"}


def own_files() -> list[Path]:
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [path for path in files if not path.is_relative_to(GENERATED)]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(tree: ast.AST) -> Iterator[str]:
    """Full names of all modules that are imported anywhere below ``tree``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_within(module: str, prefixes: tuple[str, ...]) -> bool:
    return any(module == prefix or module.startswith(prefix + ".") for prefix in prefixes)


def forbidden_imports(name: str, source: str) -> list[str]:
    """What the file ``name`` imports against the rules."""
    tree = ast.parse(source)
    package = next((package for package in MAY_IMPORT if name.startswith(package + "/")), None)
    allowed = () if package is None else (package.replace("/", "."), *MAY_IMPORT[package])
    lazy = LAZY.get(name, ())
    at_module_level = {module for node in tree.body for module in imports(node) if not is_function(node)}
    wrong = []
    for module in imports(tree):
        if is_within(module, lazy) and module not in at_module_level:
            continue
        is_ours = module.split(".")[0] in ("service", "model", "export")
        if package is not None and is_ours and not is_within(module, allowed):
            wrong.append(module)
        places = ONLY_IN.get(module.split(".")[0])
        is_product = name.startswith(("service/", "model/", "export/"))
        if places is not None and is_product and not name.startswith(places):
            wrong.append(module)
    return wrong


def is_function(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


@pytest.mark.parametrize("path", own_files(), ids=name_of)
def test_imports_keep_the_rule(path: Path) -> None:
    assert forbidden_imports(name_of(path), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("service/app.py", "import torch"),
        ("service/engine/engine.py", "def f():\n    from model.config import ModelConfig"),
        ("service/decoding/beam.py", "from service.runtime.session import Session"),
        ("service/decoding/beam.py", "import service.engine.request"),
        ("service/runtime/session.py", "from service.engine import engine"),
        ("service/engine/engine.py", "import grpc"),
        ("service/transport/servicer.py", "from service.runtime import session"),
        ("service/cli.py", "from model.cli import add_train_command"),
        ("model/train.py", "from service.engine.translator import Translator"),
        ("export/graphs.py", "import service.app"),
    ],
)
def test_rule_catches(name: str, source: str) -> None:
    assert len(forbidden_imports(name, source)) == 1


def test_cli_may_import_commands_when_they_are_called() -> None:
    source = "def train():\n    from model.cli import add_train_command"
    assert forbidden_imports("service/cli.py", source) == []


@pytest.mark.parametrize("path", own_files(), ids=name_of)
def test_file_is_short_and_named_after_something(path: Path) -> None:
    is_long_kind = name_of(path).startswith("tests/") or name_of(path) == "model/transformer.py"
    num_lines = len(path.read_text(encoding="utf-8").splitlines())
    assert num_lines <= (MAX_LINES_MODEL if is_long_kind else MAX_LINES), "look for the missing noun"
    assert path.stem not in VAGUE, "a file is named after the one thing in it"


@pytest.mark.parametrize("path", sorted((ROOT / "service" / "runtime" / "kernels").glob("*.[ch]")), ids=name_of)
def test_file_in_c_is_short_and_narrow(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MAX_LINES, "look for the missing noun"
    assert [number for number, line in enumerate(lines, 1) if len(line) > MAX_COLUMNS] == []


def function_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    has_docstring = ast.get_docstring(node) is not None and first.end_lineno is not None
    docstring = first.end_lineno - first.lineno + 1 if has_docstring and first.end_lineno else 0
    return (node.end_lineno or node.lineno) - node.lineno + 1 - docstring


@pytest.mark.parametrize("path", own_files(), ids=name_of)
def test_functions_are_short(path: Path) -> None:
    functions = (
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    assert [function.name for function in functions if function_lines(function) > MAX_FUNCTION_LINES] == []


@pytest.mark.parametrize("path", own_files(), ids=name_of)
def test_module_says_what_it_knows(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert not source.strip() or ast.get_docstring(ast.parse(source)), "a module begins with a docstring"


def tree_of_readme() -> dict[str, str]:
    """Path -> remark of every line of the fenced block below ``## The tree``; two spaces of indentation a level."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"^## The tree\n.*?^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert block is not None, "README.md has no tree"
    entries: dict[str, str] = {}
    above: list[str] = []
    for line in block[1].splitlines():
        name, _, remark = line.strip().partition(" ")
        if name:
            above[(len(line) - len(line.lstrip())) // 2 :] = [name]
            entries["".join(above)] = remark.strip()
    return entries


def tracked_files() -> set[str]:
    result = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        pytest.skip("not a git checkout")
    return {name for name in result.stdout.splitlines() if (ROOT / name).exists()}


def test_readme_tree_is_the_tree() -> None:
    entries = tree_of_readme()
    tracked = tracked_files()
    must_be_shown = {
        name
        for name in tracked
        if name.endswith((".py", ".proto", ".toml"))
        and not name.startswith(("tests/", "service/pb/", "deploy/"))
        and not name.endswith("__init__.py")
    } | {
        name
        for name in ("Makefile", "NOTICE", "CHANGELOG.md", "CONTRIBUTING.md", "deploy/RUNBOOK.md")
        if name in tracked
    }
    assert sorted(must_be_shown - entries.keys()) == [], "not in README's tree"
    assert [name for name in entries if not (ROOT / name).exists()] == [], "in README's tree, but not there"


def test_every_line_of_the_readme_tree_has_a_remark() -> None:
    assert [name for name, remark in tree_of_readme().items() if not remark] == []
