"""The files of deploy/ as Python values, as they stand and as kubectl puts them together."""

import functools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
K8S = ROOT / "deploy" / "k8s"
# What a user applies.
TARGETS = ("overlays/cpu", "overlays/gpu", "overlays/production", "batch")
# Neither a manifest nor whole: pieces that kustomize merges.
PIECES = (
    "kustomization.yaml",
    "model-claim/deployment.yaml",
    "model-image/deployment.yaml",
    "security/deployment.yaml",
    "tracing/deployment.yaml",
    "tracing/policy.yaml",
)

Manifest = dict[str, Any]


def documents(path: Path) -> list[Manifest]:
    return [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]


def whole_files() -> list[Path]:
    """Files whose documents are valid by themselves."""
    files = sorted([*K8S.glob("base/*.yaml"), *K8S.glob("components/*/*.yaml"), *K8S.glob("batch/*.yaml")])
    return [path for path in files if not path.relative_to(K8S).as_posix().endswith(PIECES)]


def one(kind: str, name: str = "dragoman", files: list[Path] | None = None) -> Manifest:
    """The only document of that kind and name."""
    everything = [document for path in files or whole_files() for document in documents(path)]
    [found] = [item for item in everything if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    return found


def container(workload: Manifest) -> Manifest:
    [found] = workload["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


@functools.cache
def built(target: str) -> tuple[Manifest, ...]:
    """What `kubectl kustomize` makes of a folder; the test is skipped where there is no kubectl of 1.27 or later."""
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed")
    done = subprocess.run(["kubectl", "kustomize", K8S / target], capture_output=True, text=True, check=False)
    if "unknown command" in done.stderr or "invalid Kustomization" in done.stderr:
        pytest.skip("this kubectl is older than 1.27")
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def built_one(target: str, kind: str, name: str = "dragoman") -> Manifest:
    [found] = [item for item in built(target) if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    return found
