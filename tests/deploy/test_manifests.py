"""The manifests are valid, and say what the program does: its flags, ports, probe names and times."""

import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from service.cli import build_parser
from service.config import ServiceConfig, load_config, parse_address
from service.transport.health import SERVICE
from service.transport.server import FLUSH_S
from tests.deploy.manifests import K8S, TARGETS, built, built_one, container, documents, one, whole_files

VERSION = "1.31"
# Their schemas come with their operators.
CUSTOM = {"ServiceMonitor", "PrometheusRule", "ScaledObject"}
CONFIG = K8S / "base" / "dragoman.toml"


def settings() -> ServiceConfig:
    return load_config(CONFIG, {}, {})


def deployment() -> dict[str, Any]:
    return one("Deployment")


def check(manifest: dict[str, Any]) -> None:
    if manifest["kind"] not in CUSTOM:
        kubernetes_validate.validate(manifest, VERSION, strict=True)


@pytest.mark.parametrize("path", whole_files(), ids=lambda path: path.relative_to(K8S).as_posix())
def test_a_file_is_valid(path: Path):
    for document in documents(path):
        check(document)


def test_validation_catches():
    wrong = deployment()
    wrong["spec"]["template"]["spec"]["terminationGracePeriodSecond"] = 3
    with pytest.raises(kubernetes_validate.ValidationError):
        check(wrong)


@pytest.mark.parametrize("target", TARGETS)
def test_what_kustomize_makes_is_valid(target: str):
    for manifest in built(target):
        check(manifest)


def test_the_files_that_kustomizations_name_are_all_there_are():
    for kustomization in K8S.rglob("kustomization.yaml"):
        [content] = documents(kustomization)
        folder = kustomization.parent
        named = {folder / name for name in content.get("resources", []) + content.get("components", [])}
        named |= {folder / patch["path"] for patch in content.get("patches", []) if "path" in patch}
        named |= {folder / name for made in content.get("configMapGenerator", []) for name in made["files"]}
        assert all(path.exists() for path in named), folder
        assert set(folder.glob("*.*")) <= named | {kustomization}, folder


def environment(workload: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["value"] for item in container(workload).get("env", [])}


def test_arguments_are_the_programs():
    options = build_parser("serve").parse_args(container(deployment())["args"])
    assert str(options.config) == "/etc/dragoman/dragoman.toml"
    job = one("Job", "dragoman-batch")
    options = build_parser("batch").parse_args([word.replace("$(SHARD)", "7") for word in container(job)["args"]])
    assert (options.output, options.shard) == ("/data/output-7.jsonl", (7, job["spec"]["completions"]))


@pytest.mark.parametrize(
    "path", sorted(K8S.glob("*/*/deployment.yaml")), ids=lambda path: path.relative_to(K8S).as_posix()
)
def test_environments_are_settings(path: Path):
    for content in documents(path):
        assert load_config(CONFIG, environment(content), {})


def test_ports_are_where_the_service_listens():
    ports = {port["name"]: port["containerPort"] for port in container(deployment())["ports"]}
    assert ports == {
        "grpc": parse_address("listen", settings().listen)[1],
        "metrics": parse_address("metrics_listen", settings().metrics_listen)[1],
    }
    for name in ("dragoman", "dragoman-headless"):
        for port in one("Service", name)["spec"]["ports"]:
            assert (port["targetPort"], port["port"]) == (port["name"], ports[port["name"]])
    for rule in one("NetworkPolicy")["spec"]["ingress"]:
        assert {port["port"] for port in rule["ports"]} <= set(ports)
    assert {endpoint["port"] for endpoint in one("ServiceMonitor")["spec"]["endpoints"]} == {"metrics"}


def test_the_service_listens_to_other_machines():
    assert {parse_address("listen", address)[0] for address in (settings().listen, settings().metrics_listen)} == {
        "0.0.0.0"
    }


def test_probes_ask_for_the_names_that_the_service_answers():
    server = container(deployment())
    port = parse_address("listen", settings().listen)[1]
    asked = {name: server[name]["grpc"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert asked == {
        "startupProbe": {"port": port, "service": SERVICE},
        "readinessProbe": {"port": port, "service": SERVICE},
        "livenessProbe": {"port": port, "service": ""},
    }


def test_the_drain_fits_into_the_grace_period():
    spec = deployment()["spec"]["template"]["spec"]
    before = container(deployment())["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain_s = settings().admit_grace_s + settings().drain_grace_s + 2 * FLUSH_S
    assert spec["terminationGracePeriodSeconds"] >= before + drain_s + 10


def test_the_readiness_probe_notices_a_drain_before_calls_are_refused():
    probe = container(deployment())["readinessProbe"]
    assert probe["periodSeconds"] <= settings().admit_grace_s


@pytest.mark.parametrize("workload", ["Deployment", "Job"])
def test_pods_are_as_restricted_as_they_can_be(workload: str):
    found = deployment() if workload == "Deployment" else one("Job", "dragoman-batch")
    spec = found["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not spec["automountServiceAccountToken"]
    assert container(found)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert set(container(found)["resources"]["limits"]) >= {"cpu", "memory"}


def test_selectors_find_the_pods():
    labels = deployment()["spec"]["template"]["metadata"]["labels"]
    selectors = [
        deployment()["spec"]["selector"]["matchLabels"],
        one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    selectors += [one("Service", name)["spec"]["selector"] for name in ("dragoman", "dragoman-headless")]
    selectors += [one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"]]
    assert all(selector == labels for selector in selectors)
    batch = one("Job", "dragoman-batch")["spec"]["template"]["metadata"]["labels"]
    assert batch != labels, "a Service would send calls to pods of the batch job"


def test_the_user_is_the_images():
    dockerfile = (K8S.parent / "Dockerfile").read_text()
    user = deployment()["spec"]["template"]["spec"]["securityContext"]
    assert f"USER {user['runAsUser']}:{user['runAsGroup']}" in dockerfile


def test_an_autoscaler_has_the_replicas_for_itself():
    for target in ("overlays/cpu", "overlays/gpu", "overlays/production"):
        assert "replicas" not in built_one(target, "Deployment")["spec"]


def test_a_gpu_replica_has_one_gpu_and_uses_it():
    server = container(built_one("overlays/gpu", "Deployment"))
    assert server["resources"]["limits"]["nvidia.com/gpu"] == "1"
    config = load_config(CONFIG, environment(built_one("overlays/gpu", "Deployment")), {})
    assert config.device == "cuda"
    # The model in the image has no graphs for it.
    [model] = built_one("overlays/gpu", "Deployment")["spec"]["template"]["spec"]["initContainers"]
    assert list(config.bundle) == model["args"]
    assert "cuda" in model["image"]


def test_spans_find_their_way_to_the_collector():
    folder = K8S / "components" / "tracing"
    [policy], [patched] = documents(folder / "policy.yaml"), documents(folder / "deployment.yaml")
    endpoint = environment(patched)["DRAGOMAN_OTLP_ENDPOINT"]
    ports = {str(port["port"]) for rule in policy["spec"]["egress"] for port in rule["ports"]}
    assert ports == {"53", endpoint.rpartition(":")[2]}


def test_with_tls_the_probes_ask_over_http():
    """kubelet's gRPC probes speak no TLS; tests/unit/test_metrics_server.py holds the pages."""
    server = container(built_one("overlays/production", "Deployment"))
    pages = {name: server[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    ready, alive = {"port": "metrics", "path": "/readyz"}, {"port": "metrics", "path": "/livez"}
    assert pages == {"startup": ready, "readiness": ready, "liveness": alive}


def test_settings_are_known():
    assert tomllib.loads(CONFIG.read_text()).keys() <= ServiceConfig.__dataclass_fields__.keys()


def test_every_index_of_the_batch_job_has_its_part():
    job = one("Job", "dragoman-batch")["spec"]
    [shard] = [word for word in container({"spec": job})["args"] if word.startswith("--shard=")]
    assert shard == f"--shard=$(SHARD)/{job['completions']}"
