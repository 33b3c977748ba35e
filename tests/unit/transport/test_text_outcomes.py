"""What becomes of single texts: why one has no translation, when one fails its call, which are counted as split."""

import grpc
import pytest

from service.engine.scoring import PairAnswer, PairResult
from service.errors import Cancelled, DeadlineExceeded, Draining, EngineFailure, InvalidRequest, RequestError
from service.pb import translation_pb2 as pb
from service.transport.servicer import raise_common
from service.transport.status import text_error
from tests.unit.transport.running_server import Running, request, with_server
from tests.unit.transport.scripted_translator import result_of
from tests.unit.transport.test_translate_stream import CONFIG, item, results

LEFT = Cancelled("the caller left")
LATE = DeadlineExceeded("too late")
LONG = InvalidRequest("texts[0]", "too long")


@pytest.mark.parametrize(
    ("error", "code", "finish_reason"),
    [
        (LEFT, "CANCELLED", pb.FINISH_REASON_CANCELLED),
        (LATE, "DEADLINE_EXCEEDED", pb.FINISH_REASON_DEADLINE),
        (EngineFailure(), "INTERNAL", pb.FINISH_REASON_ERROR),
        (LONG, "INVALID_ARGUMENT", pb.FINISH_REASON_ERROR),
    ],
)
def test_a_text_says_why_it_was_not_translated(error: RequestError, code: str, finish_reason: int):
    result = text_error(error)
    assert (result.error.code, result.finish_reason) == (grpc.StatusCode[code].value[0], finish_reason)
    assert (result.error.message, result.error.field) == (str(error), getattr(error, "field", ""))


SCORED = PairResult(-1.0, -1.0, (), (), queue_s=0.1, score_s=0.2)


@pytest.mark.parametrize("error", [Draining("the server stopped"), LATE, LEFT])
@pytest.mark.parametrize("good", [result_of("a"), SCORED])
def test_what_is_sent_again_as_a_whole_fails_as_a_whole(error: RequestError, good: PairAnswer):
    with pytest.raises(type(error)) as caught:
        raise_common([good, LONG, error])
    assert caught.value is error


def test_any_other_error_stays_with_its_text():
    raise_common([result_of("a"), LONG, EngineFailure()])
    raise_common([])
    with pytest.raises(InvalidRequest):
        raise_common([LONG, EngineFailure()])


def test_texts_with_a_divided_sentence_are_counted():
    async def check(server: Running) -> None:
        server.translator.answers["long"] = result_of("long")._replace(split=True)
        response = await server.stub.Translate(request("long", "short", "long"))
        assert [result.translation.split for result in response.results] == [True, False, True]
        assert server.sample("dragoman_split_total") == 2
        await results(server.stub.TranslateStream(iter([CONFIG, item("1", "long"), item("2", "short")])))
        assert server.sample("dragoman_split_total") == 3

    with_server(check)
