"""Nothing that is read can run: no pickle, no eval, no shell; files that could hold pickles are read without them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [
    path for package in ("service", "model", "export", "benchmarks") for path in sorted((ROOT / package).rglob("*.py"))
]
# Modules whose files can hold code.
UNSAFE = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "jsonpickle", "marshal", "shelve"}
# What may be used of them: names of errors.
HARMLESS = {"pickle.UnpicklingError"}
# Calls that run what they are given, but for those that are told not to.
RUNS = {"eval", "exec", "compile", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "builtins.eval"}


def name_of(node: ast.expr) -> str:
    """Such as "torch.load"; empty where it is something else than names."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return ""


def keyword(call: ast.Call, name: str) -> object:
    return next((k.value.value for k in call.keywords if k.arg == name and isinstance(k.value, ast.Constant)), None)


def unsafe(source: str) -> Iterator[str]:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNSAFE:
            yield f"from {node.module} import"
        elif isinstance(node, ast.Import):
            yield from (f"import {a.name} as" for a in node.names if a.name.split(".")[0] in UNSAFE and a.asname)
        elif (
            isinstance(node, ast.Attribute) and name_of(node).split(".")[0] in UNSAFE and name_of(node) not in HARMLESS
        ):
            yield name_of(node)
        elif isinstance(node, ast.Call):
            yield from unsafe_call(node)


def unsafe_call(call: ast.Call) -> Iterator[str]:
    name = name_of(call.func)
    if name in RUNS:
        yield name
    elif name == "torch.load" and keyword(call, "weights_only") is not True:
        yield "torch.load without weights_only=True"
    elif name in ("np.load", "numpy.load") and keyword(call, "allow_pickle") is True:
        yield "np.load with allow_pickle"
    elif keyword(call, "shell") is True:
        yield f"{name} with a shell"
    elif keyword(call, "trust_remote_code") is True:
        yield f"{name} with trust_remote_code"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_file_runs_what_it_reads(path: Path) -> None:
    assert list(unsafe(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.loads(b'')",
        "import pickle as p",
        "from pickle import loads",
        "import joblib\njoblib.load(f)",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "np.load(f, allow_pickle=True)",
        "eval(text)",
        "subprocess.run(text, shell=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
    ],
)
def test_the_rule_catches(source: str) -> None:
    assert len(list(unsafe(source))) == 1


def test_the_rule_lets_errors_and_safe_loads_pass() -> None:
    source = (
        "import pickle\ntry:\n    torch.load(f, weights_only=True)\nexcept pickle.UnpicklingError:\n    model.eval()"
    )
    assert list(unsafe(source)) == []
