"""Score over a real connection, good and bad."""

import asyncio

import grpc
import pytest

from service.engine.request import Priority
from service.errors import EngineFailure, InvalidRequest, Overloaded
from service.pb import translation_pb2 as pb
from service.transport.limits import Limits
from tests.unit.transport.running_server import Running, with_server
from tests.unit.transport.test_translate import details, failure

SCORE = "/dragoman.v1.TranslationService/Score"


def score_request(*targets: str, **fields: object) -> pb.ScoreRequest:
    """A valid request from English to French but for what ``fields`` say."""
    pairs = [pb.ScorePair(source="text", target=target) for target in targets]
    return pb.ScoreRequest(**{"pairs": pairs, "source_language": "en", "target_language": "fr", **fields})


def test_results_come_in_the_order_of_the_pairs():
    async def check(server: Running) -> None:
        asked = score_request("a", "bb", request_id="mine", length_penalty=0.5, priority=pb.PRIORITY_BATCH)
        response = await server.stub.Score(asked, timeout=5)
        assert [result.score.score for result in response.results] == [-0.5, -1.0]
        assert (response.request_id, response.model, response.model_version) == ("mine", "en-fr", "1")
        score = response.results[0].score
        assert (score.log_probability, score.queue_s, score.score_s) == (-1.0, 0.1, 0.2)
        assert list(score.tokens) == [pb.TokenScore(id=7, log_probability=-1.0, start=0, end=2)]
        assert not score.alignment
        [(pairs, priority, deadline)] = server.translator.pair_submissions
        assert (pairs, priority) == ([("text", "a"), ("text", "bb")], Priority.BATCH)
        assert deadline is not None
        assert server.sample("dragoman_texts_total", outcome="scored") == 2

    with_server(check)


def test_alignment_comes_where_it_is_asked_for():
    async def check(server: Running) -> None:
        response = await server.stub.Score(score_request("a", include_alignment=True))
        link = pb.AlignmentLink(source_start=0, source_end=1, target_start=2, target_end=3, weight=0.5)
        assert list(response.results[0].score.alignment) == [link]

    with_server(check)


def test_one_bad_pair_does_not_fail_its_neighbours_but_all_bad_ones_the_call():
    async def check(server: Running) -> None:
        server.translator.answers |= {"bad": InvalidRequest("pairs[1].target", "too long"), "worse": EngineFailure()}
        good, bad = (await server.stub.Score(score_request("good", "bad"))).results
        assert good.score.score == -4.0
        assert (bad.error.reason, bad.error.field) == ("INVALID_FIELD", "pairs[1].target")
        assert (await failure(server.stub.Score(score_request("worse")))).code() is grpc.StatusCode.INTERNAL
        server.translator.refusal = Overloaded("full", retry_after_s=0.25)
        refused = await failure(server.stub.Score(score_request("good")))
        assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "RetryInfo" in details(refused)

    with_server(check)


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"pairs": []}, ["pairs"]),
        ({"pairs": [pb.ScorePair(source="s")] * 4}, ["pairs"]),
        ({"pairs": [pb.ScorePair(source="s" * 11, target="t" * 12)]}, ["pairs[0].source", "pairs[0].target"]),
        ({"pairs": [pb.ScorePair(source="s" * 9, target="t" * 9)] * 2}, ["pairs"]),
        ({"length_penalty": float("nan")}, ["length_penalty"]),
        ({"length_penalty": 5.1, "target_language": "?"}, ["target_language", "length_penalty"]),
        ({"priority": 9, "request_id": "\n"}, ["request_id", "priority"]),
    ],
)
def test_every_bad_field_is_named(changes: dict[str, object], fields: list[str]) -> None:
    async def check(server: Running) -> None:
        error = await failure(server.stub.Score(score_request("good", **changes)))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert [violation.field for violation in details(error)["BadRequest"].field_violations] == fields

    with_server(check, Limits(max_texts=3, max_text_characters=10, max_request_characters=30))


def test_a_caller_who_leaves_frees_the_work():
    async def check(server: Running) -> None:
        server.translator.gate.clear()
        call = server.stub.Score(score_request("a"), timeout=60)
        await asyncio.to_thread(server.translator.submitted.wait)
        call.cancel()
        assert await asyncio.to_thread(server.translator.cancelled.wait, 5)
        assert await server.server.drain(5)
        assert server.sample("dragoman_requests_total", method=SCORE, code="CANCELLED") == 1

    with_server(check)


def test_alignment_of_translations_is_asked_of_the_engine():
    async def check(server: Running) -> None:
        asked = pb.TranslateRequest(texts=["a"], model="en-fr", include_alignment=True)
        await server.stub.Translate(asked)
        assert server.translator.is_aligned

    with_server(check)
