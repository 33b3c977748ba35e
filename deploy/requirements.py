"""The run-time requirements of pyproject.toml, one a line, with ONNX Runtime's package and extras chosen by the caller.

Knows: pyproject.toml. Does not know: how an image is built. Needs nothing but Python.
"""

import argparse
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def requirements(onnxruntime: str, extras: Sequence[str] = (), pyproject: Path = PYPROJECT) -> list[str]:
    """All dependencies, those on an ONNX Runtime replaced by ``onnxruntime`` at the same lower bound.

    Raises:
        ValueError: pyproject.toml asks for no ONNX Runtime, or has no such extra.
    """
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    dependencies: list[str] = project["dependencies"]
    for extra in extras:
        if extra not in project["optional-dependencies"]:
            raise ValueError(f"{pyproject} has no extra {extra!r}")
        dependencies = dependencies + project["optional-dependencies"][extra]
    runtimes = [line for line in dependencies if line.startswith("onnxruntime")]
    bound = re.search(r"[<>=~!][^;\s]*", runtimes[0]) if runtimes else None
    if bound is None:
        raise ValueError(f"{pyproject} asks for no version of ONNX Runtime")
    return [line for line in dependencies if line not in runtimes] + [onnxruntime + bound[0]]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--onnxruntime", default="onnxruntime", help="package, with extras (default: %(default)s)")
    parser.add_argument("--extras", default="", help="extras to add, with commas between (default: none)")
    given = parser.parse_args()
    print("\n".join(requirements(given.onnxruntime, [extra for extra in given.extras.split(",") if extra])))
