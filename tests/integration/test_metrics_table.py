"""service/METRICS.md says what a running service shows at /metrics, and no label ever has another value."""

import re
import shutil
import subprocess
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from service.client import Client, ServiceError
from service.decoding.options import DecodeOptions
from service.demo import free_port
from service.errors import STATUS
from service.metrics import Metrics
from service.pb import translation_pb2 as pb
from tests.integration.launched_server import LaunchedServer

pytestmark = pytest.mark.integration
TABLE = (Path(__file__).parents[2] / "service" / "METRICS.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| ((?:dragoman|process)_\w+) \| (\w+) \| ?([\w, ]*?) ?\| (.*) \|$", re.MULTILINE)
VALUES = re.compile(r"^\| (\w+) \| (dragoman_[\w, ]+) \| ([\w, ]+) \|$", re.MULTILINE)


@dataclass(frozen=True)
class Documented:
    kind: str
    labels: tuple[str, ...]
    meaning: str


def documented() -> dict[str, Documented]:
    return {
        name: Documented(kind, tuple(re.findall(r"\w+", labels)), meaning)
        for name, kind, labels, meaning in ROW.findall(TABLE)
    }


def allowed_values() -> dict[tuple[str, str], set[str]]:
    """(Metric, label) -> values, of the labels whose values are listed by name."""
    found = {
        (metric, label): set(re.findall(r"\w+", values))
        for label, metrics, values in VALUES.findall(TABLE)
        for metric in re.findall(r"\w+", metrics)
    }
    found["dragoman_requests_total", "code"] = {code.name for code in grpc.StatusCode}
    reasons = {reason.lower() for _, reason in STATUS.values()}
    found["dragoman_texts_total", "outcome"] = {"translated", "scored"} | reasons
    own = pb.DESCRIPTOR.services_by_name["TranslationService"].methods_by_name
    methods = {f"/dragoman.v1.TranslationService/{name}" for name in own}
    methods |= {f"/grpc.health.v1.Health/{name}" for name in ("Check", "Watch", "List")}
    methods |= {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"}
    found["dragoman_requests_total", "method"] = found["dragoman_request_duration_seconds", "method"] = methods
    return found


def full_name(family: Metric) -> str:
    return family.name + ("_total" if family.type == "counter" else "")


@pytest.fixture(scope="module")
def page(nonsense_bundle: Path) -> str:
    """/metrics after calls of every kind, good and bad, some with what a stranger might send."""
    port = free_port()
    flags = ["--bundle", str(nonsense_bundle), "--metrics-listen", f"127.0.0.1:{port}", "--max-texts", "8"]
    with LaunchedServer(*flags) as server:
        use(server.address)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
            return str(response.read().decode())


def use(address: str) -> None:
    with Client(address) as client:
        client.list_models()
        client.translate(["the red house", "", "the mill"], source="en", target="fr")
        assert list(client.translate_stream(["we wait"], source="en", target="fr"))
        client.score([("the red house", "la maison rouge")], source="en", target="fr")
        for fields in ({"source": "en", "target": "xx"}, {"source": "strange text", "target": "fr"}):
            with pytest.raises(ServiceError):
                client.translate(["the river"], **fields)
        with pytest.raises(ServiceError):
            client.translate(["x"] * 9, source="en", target="fr", options=DecodeOptions(num_beams=1))
    with grpc.insecure_channel(address) as channel:
        for method in ("/dragoman.v1.TranslationService/Strange", "/strange.Service/Method"):
            with pytest.raises(grpc.RpcError):
                channel.unary_unary(method)(b"strange", metadata=[("x-request-id", "strange")], timeout=10)


def test_the_table_has_what_the_program_has() -> None:
    own = {
        full_name(family): Documented(family.type, documented()[full_name(family)].labels, family.documentation)
        for family in Metrics().registry.collect()
    }
    assert documented() == own


def test_a_running_service_shows_the_table_and_nothing_else(page: str) -> None:
    shown = {full_name(family): family for family in text_string_to_metric_families(page)}
    assert shown.keys() == documented().keys()
    for name, family in shown.items():
        assert family.type == documented()[name].kind, name
        assert family.documentation == documented()[name].meaning, name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(documented()[name].labels), name


def test_labels_have_the_values_of_the_table(page: str) -> None:
    allowed = allowed_values()
    num_checked = 0
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            for label, value in sample.labels.items():
                if (full_name(family), label) in allowed:
                    num_checked += 1
                    assert value in allowed[full_name(family), label], (sample.name, label, value)
    assert num_checked > 20
    bounded = {(name, label) for name, row in documented().items() for label in row.labels}
    of_models = {label for name, label in bounded if name.endswith(("_info", "_load_seconds"))}
    assert {(name, label) for name, label in bounded if label not in of_models} == set(allowed)
    assert "strange" not in page.lower()


def test_promtool_finds_nothing_to_say(page: str) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: apt install prometheus)")
    done = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_texts_of_streams_that_wait_for_room_are_not_counted_as_refused(nonsense_bundle: Path) -> None:
    """Streams are read more slowly instead; four wait here for a queue that holds four sentences, some of three."""
    port = free_port()
    flags = ["--num-workers", "1", "--max-rows", "4", "--max-beams", "4", "--max-queue-sentences", "4"]
    flags += ["--bundle", str(nonsense_bundle), "--metrics-listen", f"127.0.0.1:{port}"]
    with LaunchedServer(*flags) as server, ThreadPoolExecutor(4) as pool:

        def stream(number: int) -> int:
            with Client(server.address) as client:
                texts = [f"the red house {number} {place}" for place in range(20)]
                texts += ["the mill. the river. the rain."] * 4
                return len(list(client.translate_stream(texts, source="en", target="fr")))

        assert list(pool.map(stream, range(4))) == [24] * 4
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
            shown = {family.name: family for family in text_string_to_metric_families(response.read().decode())}
    assert sum(sample.value for sample in shown["dragoman_rejected"].samples) == 0
    assert max(sample.value for sample in shown["dragoman_texts"].samples) == 96
