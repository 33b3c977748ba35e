"""The client against a real server with a scripted translator."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from service.client import Client, ServiceError
from service.client_answers import text_outcome
from service.connection import Connection, channel_that_stays_open
from service.decoding.options import DecodeOptions
from service.engine.request import AlignmentLink, FinishReason, Priority, TextResult, Timings
from service.errors import Draining, EngineFailure, Overloaded
from service.pb import translation_pb2 as pb
from service.transport.security import SecurityOptions
from service.transport.status import DRAINING_RETRY_S
from tests.unit.transport.certificate_files import CertificateFiles
from tests.unit.transport.running_server import Running, running_on_thread


def test_results_have_everything_the_service_says(client: Client):
    options = DecodeOptions(num_beams=4, num_alternatives=2, length_penalty=0.6)
    [result] = client.translate(["a"], source="en", target="fr", options=options)
    assert isinstance(result, TextResult)
    assert [(item.text, item.token_ids, item.score) for item in result.alternatives] == [
        ("A", (7, 2), -0.5),
        ("A'", (8, 2), -1.5),
    ]
    assert result.finish_reason is FinishReason.END_TOKEN
    assert (result.timings.queue_s, result.timings.encode_s, result.timings.decode_s) == (0.1, 0.2, 0.3)


def test_every_time_and_flag_of_a_translation_is_read():
    timings = pb.StageTimings(queue_s=1, encode_s=2, decode_s=3, prepare_s=4, finish_s=5, align_s=6)
    for flag in ("split", "length_limited", "repetition_found"):
        translation = pb.Translation(text="A", timings=timings, **{flag: True})  # type: ignore[arg-type]
        found = text_outcome(pb.TextResult(translation=translation))
        assert isinstance(found, TextResult)
        assert found.timings == Timings(1, 2, 3, prepare_s=4, finish_s=5, align_s=6)
        assert [name for name in ("split", "length_limited", "repetition_found") if getattr(found, name)] == [flag]


def test_alignment_comes_where_it_is_asked_for(client: Client):
    link = AlignmentLink(0, 1, 0, 1, 0.5)
    for alignment in (True, False):
        asked: dict[str, Any] = {"source": "en", "target": "fr", "alignment": alignment}
        for result in (*client.translate(["a"], **asked), *client.translate_stream(["a"], **asked)):
            assert isinstance(result, TextResult)
            assert result.alignment == ((link,) if alignment else ())


def test_model_and_priority_arrive(server: Running, client: Client):
    asked: dict[str, Any] = {"source": "", "target": "", "model": "en-fr", "priority": Priority.BATCH}
    assert client.translate(["a"], **asked)
    assert list(client.translate_stream(["a"], **asked))
    assert client.score([("a", "b")], **asked)
    assert [priority for _, _, priority, _ in server.translator.submissions] == [Priority.BATCH] * 2
    assert server.translator.pair_submissions[0][1] is Priority.BATCH
    with pytest.raises(ServiceError, match="NOT_FOUND"):
        client.translate(["a"], **(asked | {"model": "none"}))


def test_an_error_says_why_for_programs_too(server: Running, client: Client):
    with pytest.raises(ServiceError) as caught:
        client.translate([], source="en", target="fr")
    assert (caught.value.code, caught.value.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert caught.value.request_id
    server.translator.answers["bad"] = EngineFailure()
    [_, bad] = client.translate(["a", "bad"], source="en", target="fr")
    assert isinstance(bad, ServiceError)
    assert bad.reason == "INTERNAL"
    with Client("127.0.0.1:1", timeout_s=0.2) as lonely, pytest.raises(ServiceError) as alone:
        lonely.translate(["a"], source="en", target="fr")
    assert alone.value.reason == ""


def test_what_a_later_service_may_say_is_read(client: Client):
    """Within v1 new enum values may come."""
    later = pb.TextResult(translation=pb.Translation(text="A"), finish_reason=99)  # type: ignore[arg-type]
    result = text_outcome(later)
    assert isinstance(result, TextResult)
    assert result.text == "A"
    unknown = text_outcome(pb.TextResult(error=pb.TextError(code=99, message="new")))
    assert isinstance(unknown, ServiceError)
    assert unknown.code == "UNKNOWN"


def test_options_arrive_unchanged(server: Running, client: Client):
    options = DecodeOptions(num_beams=3, num_alternatives=2, length_penalty=0.6, max_length=9)
    client.translate(["a"], source="en", target="fr", options=options)
    assert server.translator.submissions[0][1] == options


def test_a_stream_keeps_the_order(client: Client):
    texts = [f"text {number}" for number in range(1500)]
    found = [result.text for result in client.translate_stream(texts, source="en", target="fr")]
    assert found == [text.upper() for text in texts]


def test_one_text_is_not_taken_for_its_characters(client: Client):
    for translate in (client.translate, client.translate_stream):
        with pytest.raises(TypeError, match="not one text"):
            translate("Good morning.", source="en", target="fr")


def test_one_failed_text_keeps_its_place(server: Running, client: Client):
    server.translator.answers["bad"] = EngineFailure()
    for results in (
        client.translate(["a", "bad", "b"], source="en", target="fr"),
        list(client.translate_stream(["a", "bad", "b"], source="en", target="fr")),
    ):
        assert [isinstance(result, ServiceError) for result in results] == [False, True, False]
        assert results[1].code == "INTERNAL"


def test_a_failed_call_raises(server: Running, client: Client):
    server.translator.refusal = Overloaded("the queue is full", 1.0)
    with pytest.raises(ServiceError, match="RESOURCE_EXHAUSTED: the queue is full"):
        client.translate(["a"], source="en", target="fr")
    with pytest.raises(ServiceError, match="FAILED_PRECONDITION"):
        list(client.translate_stream(["a"], source="en", target="de"))


def test_what_the_texts_raise_comes_out(client: Client):
    def texts() -> Iterator[str]:
        yield "a"
        raise ValueError("the file ended too soon")

    results = client.translate_stream(texts(), source="en", target="fr")
    with pytest.raises(ValueError, match="too soon"):
        list(results)


def test_a_stream_left_early_ends(server: Running, client: Client):
    results = client.translate_stream((str(number) for number in range(100_000)), source="en", target="fr")
    assert isinstance(next(results), TextResult)
    results.close()
    assert len(server.translator.submissions) < 5_000


def test_scores_come_in_order_with_errors_in_their_places(server: Running, client: Client):
    server.translator.answers["bad"] = EngineFailure()
    good, bad = client.score([("a", "bb"), ("a", "bad")], source="en", target="fr", length_penalty=0.5)
    assert not isinstance(good, ServiceError)
    assert (good.score, good.tokens[0].end, good.alignment[0].weight) == (-1.0, 2, 0.5)
    assert isinstance(bad, ServiceError)
    assert bad.code == "INTERNAL"


def test_unavailable_is_sent_again_after_the_pause_that_the_server_asks_for(server: Running, client: Client):
    sent_at: list[float] = []
    original = server.translator.submit

    def submit(*arguments: object, **options: object) -> object:
        sent_at.append(time.monotonic())
        if len(sent_at) < 3:
            raise Draining("come again")
        return original(*arguments, **options)

    server.translator.submit = submit
    [result] = client.translate(["a"], source="en", target="fr")
    assert isinstance(result, TextResult)
    assert len(sent_at) == 3
    assert all(later - earlier >= DRAINING_RETRY_S * 0.9 for earlier, later in pairwise(sent_at))


def refuse(server: Running) -> None:
    """As from the end of admit_grace_s on: health has said so before."""
    asyncio.run_coroutine_threadsafe(server.server.announce_end(), server.loop).result(10)
    asyncio.run_coroutine_threadsafe(server.server.drain(0), server.loop).result(10)


def test_calls_pass_over_a_replica_that_drains():
    """By retries alone one call in sixteen would meet the draining one of two replicas each time."""
    with running_on_thread() as first, running_on_thread() as second, ThreadPoolExecutor(8) as pool:
        with Client(f"ipv4:{first.address},{second.address}", timeout_s=10) as client:
            for leaving in (None, first):
                if leaving:
                    refuse(leaving)
                found = pool.map(lambda _: client.translate(["a"], source="en", target="fr"), range(120))
                assert all(isinstance(result, TextResult) for [result] in found)
        assert min(len(server.translator.submissions) for server in (first, second)) >= 50
        refused = first.sample("dragoman_rejected_total", reason="draining")
        assert refused < 30  # by calls that were on their way while health changed; of all it would be 60 and more


def test_health_tells_of_a_server_that_takes_no_calls(server: Running, client: Client):
    assert client.health("dragoman.v1.TranslationService") == "SERVING"
    refuse(server)
    assert client.health("dragoman.v1.TranslationService") == "NOT_SERVING"
    assert client.health() == "SERVING"


def test_a_large_request_is_sent_again_as_well(server: Running, client: Client):
    original = server.translator.submit

    def refuse_once(*_: object, **__: object) -> None:
        server.translator.submit = original
        raise Draining("come again")

    server.translator.submit = refuse_once
    results = client.translate(["a" * 90_000] * 10, source="en", target="fr")
    assert [isinstance(result, TextResult) for result in results] == [True] * 10


@pytest.mark.parametrize("has_tls", [True, False])
def test_a_server_that_asks_for_a_token_even_for_its_health(tmp_path: Path, has_tls: bool):
    files = CertificateFiles(tmp_path)
    certificate, key = files.issue("dragoman.example", "server")
    token, other = "a-token-of-the-tests-alone", "a-token-that-nobody-knows"
    (tmp_path / "clients.toml").write_text(f'[web]\ntokens = ["{token}"]\n')
    tls = {"tls_certificate": str(certificate), "tls_key": str(key)} if has_tls else {}
    security = SecurityOptions(clients=str(tmp_path / "clients.toml"), open_health=False, **tls)
    file = tmp_path / "token"
    with running_on_thread(security=security, root=files.root if has_tls else None) as server:
        reach = {"ca": files.ca, "server_name": "dragoman.example"} if has_tls else {}
        file.write_text(token)
        with Client(Connection(server.address, token_file=file, **reach), timeout_s=10) as known:
            [result] = known.translate(["a"], source="en", target="fr")
            assert isinstance(result, TextResult)
            assert known.health() == "SERVING"
            assert channel_that_stays_open.cache_info().currsize or not has_tls  # what it is for is a slow test's
        file.write_text(other)
        for given in (file, None):
            with (
                Client(Connection(server.address, token_file=given, **reach), timeout_s=10) as stranger,
                pytest.raises(ServiceError, match="UNAUTHENTICATED"),
            ):
                stranger.list_models()
