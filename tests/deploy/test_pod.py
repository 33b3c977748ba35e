"""The Deployment's pod, run by podman from the manifest that kubectl makes, and called over gRPC.

podman knows Deployment, ConfigMap, resources and security contexts; probes by gRPC, preStop and Services it leaves out.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from service.client import Client, ServiceError
from tests.deploy.containers import IMAGE, podman, require_image, wait_for
from tests.deploy.manifests import built, container

pytestmark = [pytest.mark.image, pytest.mark.timeout(300)]

KINDS = ("ConfigMap", "Deployment")
HOST_PORT = {"grpc": 50951, "metrics": 9951}


def published(manifest: dict[str, object]) -> dict[str, object]:
    """The Deployment with the built image, one replica, and ports of this host on the loopback."""
    if manifest["kind"] == "Deployment":
        manifest["spec"]["replicas"] = 1  # type: ignore[index]
        server = container(manifest)
        server["image"] = IMAGE
        server["imagePullPolicy"] = "Never"
        for port in server["ports"]:
            port |= {"hostPort": HOST_PORT[port["name"]], "hostIP": "127.0.0.1"}
    return manifest


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[str]:
    """Name of the running container."""
    require_image()
    file = tmp_path / "pod.yaml"
    chosen = [json.loads(json.dumps(item)) for item in built("overlays/cpu") if item["kind"] in KINDS]
    file.write_text(yaml.safe_dump_all(map(published, chosen)))
    podman("kube", "play", "--replace", file)
    try:
        [name] = [name for name in podman("ps", "--format", "{{.Names}}").stdout.split() if name.endswith("-dragoman")]
        yield name
    finally:
        podman("kube", "down", file, check=False)


def test_the_deployments_pod_serves(pod: str):
    wait_for(pod, "serving")
    with Client(f"127.0.0.1:{HOST_PORT['grpc']}") as client:
        [result] = client.translate(["Where is the station?"], source="en", target="fr")
    assert not isinstance(result, ServiceError)
    assert result.text == "Où est la gare ?"
    state = podman("inspect", pod, "--format", "{{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{.EffectiveCaps}}")
    assert state.stdout.strip() == "65532:65532 true []"
    settings = wait_for(pod, "starting")["config"]
    assert settings["admit_grace_s"] == 2.0, "dragoman.toml of the ConfigMap was not read"
    podman("stop", "--time", "60", pod)
    assert podman("inspect", pod, "--format", "{{.State.ExitCode}}").stdout.strip() == "0"
