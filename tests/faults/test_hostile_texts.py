"""Texts that nobody should send: each has its documented answer, nothing is cut in silence, nothing is lost."""

import asyncio

import grpc
import pytest

from service.client import Client
from service.decoding.options import DecodeOptions
from service.engine.request import TextResult
from tests.faults.calls import Caller, reason_of, request
from tests.faults.conftest import TEXTS
from tests.faults.server_process import PLAIN, ServerProcess

pytestmark = pytest.mark.integration
SHORT = DecodeOptions(num_beams=1, max_length=4)
# What comes back as it is: there is nothing to translate.
BLANK = ("", " ", "\n", "\t \n\n ", "\u00a0\u2003", "\r\n")
STRANGE = (
    "\x00",
    "a\x00b",
    "\x01\x02\x7f",
    "\u202eright to left\u202c",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd.",
    "\u0627\u0644\u0633\u0644\u0627\u0645 \u0639\u0644\u064a\u0643\u0645.",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 10,
    "e" + "\u0301" * 50,
    "\ufeffWhere is the station?",
    "\ufffe\uffff",
    "<b>" * 40 + "x",
    "." * 500,
)


@pytest.fixture(scope="module")
def server():
    with ServerProcess(program=PLAIN) as started:
        yield started
        assert started.stop() == 0


@pytest.fixture
def client(server: ServerProcess):
    base = server.census()
    with Client(server.address) as connected:
        yield connected
    server.wait_for_rest(base)


def translate(client: Client, texts: list[str]) -> list[TextResult]:
    results = client.translate(texts, source="en", target="fr", options=SHORT)
    assert len(results) == len(texts)
    assert all(isinstance(result, TextResult) for result in results)
    return [result for result in results if isinstance(result, TextResult)]


def test_blank_texts_come_back_as_they_are(client: Client):
    assert [result.text for result in translate(client, list(BLANK))] == list(BLANK)


def test_strange_texts_are_answered_like_any_other_and_change_no_neighbour(client: Client, golden: dict[str, str]):
    mixed = [text for pair in zip(STRANGE, TEXTS * 2, strict=False) for text in pair]
    results = client.translate(mixed, source="en", target="fr", options=DecodeOptions(num_beams=1))
    assert len(results) == len(mixed)
    for text, result in zip(mixed, results, strict=True):
        assert isinstance(result, TextResult)
        assert text not in golden or result.text == golden[text]


def test_ten_thousand_emoji_come_back(client: Client):
    assert translate(client, ["\U0001f600" * 10_000])[0].text == "\U0001f600" * 10_000


@pytest.mark.parametrize("length", [5_000, pytest.param(100_000, marks=pytest.mark.faults)])
def test_a_long_word_is_cut_and_the_answer_says_so(client: Client, length: int):
    [result] = translate(client, ["a" * length])
    assert result.split
    assert result.num_sentences > 10


@pytest.mark.parametrize(
    ("texts", "field", "number"),
    [
        (["b" * 10_000_000], "texts[0]", "10000000"),
        (["b"] * 10_000, "texts", "10000"),
        (["b" * 99_999] * 11, "texts", "1099989"),
    ],
    ids=["a text of 10 MB", "10,000 texts", "too much together"],
)
def test_too_much_is_refused_with_its_field_and_number(
    server: ServerProcess, texts: list[str], field: str, number: str
):
    async def check() -> None:
        async with Caller(server.address) as caller:
            outcome = await caller.translate(*texts)
        assert (outcome.code, outcome.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
        assert outcome.details.startswith(f"{field}:")
        assert number in outcome.details

    base = server.census()
    asyncio.run(check())
    server.wait_for_rest(base)


def test_text_that_is_not_unicode_is_refused(server: ServerProcess):
    """A lone surrogate, and bytes that are no UTF-8: no client library sends them, a program may."""

    async def check() -> None:
        payload = request("surrogate").SerializeToString()
        async with Caller(server.address) as caller:
            call = caller.channels[0].unary_unary("/dragoman.v1.TranslationService/Translate")
            for wrong in (b"sur\xed\xa0\x80ate", b"surr\xff\xfe\x80te"):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call(payload.replace(b"surrogate", wrong), timeout=60)
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
                assert reason_of(caught.value) == "INVALID_FIELD"

    asyncio.run(check())


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.faults)])
def test_as_many_results_as_texts_in_their_order(client: Client, count: int):
    """Through a stream, where there is no limit to their number; every third is blank, every fifth too long."""

    def text(number: int) -> str:
        return "" if number % 3 == 0 else "x" * 100_001 if number % 500 == 1 else f"Number {number}."

    results = list(client.translate_stream(map(text, range(count)), source="en", target="fr", options=SHORT))
    assert len(results) == count
    for number, result in enumerate(results):
        is_refused = number % 3 != 0 and number % 500 == 1
        assert isinstance(result, TextResult) is not is_refused
        if isinstance(result, TextResult):
            assert bool(result.text) is (number % 3 != 0)


def test_a_message_beyond_the_limit_is_refused(server: ServerProcess):
    async def check() -> None:
        async with Caller(server.address) as caller:
            outcome = await caller.translate("b" * (17 * 2**20))
            assert outcome.code == "RESOURCE_EXHAUSTED"
            assert (await caller.translate("Good morning.")).code == "OK"

    asyncio.run(check())
