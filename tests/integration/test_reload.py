"""Models replaced, added and removed in a launched server under load: no call fails, none changes its version."""

import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from model.transformer import Transformer
from service.pb import translation_pb2 as pb
from service.pb import translation_pb2_grpc as pb_grpc
from tests.conftest import sentences
from tests.integration.launched_server import LaunchedServer

pytestmark = pytest.mark.integration
TEXTS = sentences(40)
OPTIONS = pb.DecodeOptions(num_beams=1)


class Load:
    """Callers that send one request after the other and keep what they were answered: a version or a code."""

    def __init__(self, address: str, num_callers: int = 4) -> None:
        self.answers: list[list[str]] = [[] for _ in range(num_callers)]
        self.stop = threading.Event()
        self.channel = grpc.insecure_channel(address)
        self.stub = pb_grpc.TranslationServiceStub(self.channel)
        self.threads = [threading.Thread(target=self.call, args=(answers,)) for answers in self.answers]

    def call(self, answers: list[str]) -> None:
        request = pb.TranslateRequest(texts=TEXTS[:8], model="nonsense", options=OPTIONS)
        while not self.stop.is_set():
            try:
                answers.append(self.stub.Translate(request, timeout=60).model_version)
            except grpc.RpcError as error:
                answers.append(f"{error.code().name}: {error.details()}")

    def __enter__(self) -> "Load":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(60)
        self.channel.close()

    def wait_for(self, version: str) -> None:
        """Until every caller has had an answer of that version."""
        until = time.monotonic() + 60
        while not all(version in answers for answers in self.answers):
            assert time.monotonic() < until, f"no version {version}: {[answers[-1:] for answers in self.answers]}"
            time.sleep(0.01)

    def models(self) -> list[tuple[str, str]]:
        listed = self.stub.ListModels(pb.ListModelsRequest(), timeout=60).models
        return [(model.name, model.version) for model in listed]

    def wait_for_models(self, wanted: list[tuple[str, str]]) -> None:
        until = time.monotonic() + 60
        while (found := self.models()) != wanted:
            assert time.monotonic() < until, f"{found} instead of {wanted}"
            time.sleep(0.02)


class HeldStream:
    """A stream that stays open, one text at a time."""

    def __init__(self, stub: pb_grpc.TranslationServiceStub) -> None:
        self.arrived, self.texts, self.is_open = threading.Semaphore(0), list[str](), True
        self.call = stub.TranslateStream(self.requests())

    def requests(self) -> Iterator[pb.TranslateStreamRequest]:
        yield pb.TranslateStreamRequest(config=pb.StreamConfig(model="nonsense", options=OPTIONS))
        while self.arrived.acquire() and self.is_open:
            yield pb.TranslateStreamRequest(text=pb.StreamText(id=self.texts[-1], text=TEXTS[0]))

    def ask(self, name: str) -> str:
        """Sends one text and returns the id of the next result."""
        self.texts.append(name)
        self.arrived.release()
        response = next(self.call)
        assert response.result.HasField("translation")
        return str(response.id)

    def close(self) -> None:
        self.is_open = False
        self.arrived.release()
        assert list(self.call) == []


def damage_and_mend(folder: Path, server: LaunchedServer, load: Load) -> None:
    """A byte of the weights changes: refused, the old version goes on, also when it is put right."""
    weights = next(folder.rglob("weights*"))
    whole = weights.read_bytes()
    weights.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    server.process.send_signal(signal.SIGHUP)
    counts = [len(answers) for answers in load.answers]
    while any(len(now) < count + 5 for now, count in zip(load.answers, counts, strict=True)):
        time.sleep(0.01)
    assert load.models() == [("nonsense", "2")]
    weights.write_bytes(whole)


def test_no_call_fails_while_models_come_change_and_go(
    random_transformer: Transformer, make_bundle: Callable[..., Path], nonsense_bundle: Path, tmp_path: Path
) -> None:
    folder, version_2, german = tmp_path / "models", tmp_path / "version-2", tmp_path / "german"
    make_bundle(random_transformer, version_2, version="2")
    make_bundle(random_transformer, german, name="german", target_language="de")
    folder.mkdir()
    shutil.copytree(nonsense_bundle, folder / "nonsense")
    flags = ("--models-folder", str(folder), "--models-poll-s", "0.1")
    with LaunchedServer(*flags) as server, Load(server.address) as load:
        load.wait_for("1")
        stream = HeldStream(load.stub)
        assert stream.ask("0") == "0"
        # Overwritten in place, file by file: what is still incomplete is left alone, or refused.
        shutil.copytree(version_2, folder / "nonsense", dirs_exist_ok=True)
        load.wait_for("2")
        assert stream.ask("1") == "1", "a stream goes on with the version it began with"
        damage_and_mend(folder / "nonsense", server, load)
        german.rename(folder / "german")
        load.wait_for_models([("german", "1"), ("nonsense", "2")])
        routed = pb.TranslateRequest(texts=["a"], source_language="en", target_language="de")
        assert load.stub.Translate(routed, timeout=60).model == "german"
        shutil.rmtree(folder / "german")
        load.wait_for_models([("nonsense", "2")])
        assert stream.ask("2") == "2"
        stream.close()
    for answers in load.answers:
        assert set(answers) == {"1", "2"}, "every call was answered, by one version or the other"
        assert answers == sorted(answers), "none by the old version after one by the new"
