"""Every documented range of a request."""

import pytest

from service.decoding.options import DecodeOptions
from service.errors import InvalidRequest
from service.pb import translation_pb2 as pb
from service.transport.limits import Limits
from service.transport.status import InvalidFields
from service.transport.validation import MAX_VIOLATIONS, read_request
from tests.unit.transport.running_server import request

LIMITS = Limits(max_texts=4, max_text_characters=10, max_request_characters=25, max_beams=8, max_alternatives=4)
DEFAULTS = DecodeOptions(num_beams=4, length_penalty=0.8)


def violated(message: pb.TranslateRequest, limits: Limits = LIMITS) -> list[str]:
    try:
        read_request(message, limits, DEFAULTS)
    except InvalidFields as error:
        return [violation.field for violation in error.violations]
    except InvalidRequest as error:
        return [error.field]
    return []


TWO_ALTERNATIVES = pb.DecodeOptions(num_beams=2, num_alternatives=2)


def with_options(**fields: float) -> pb.TranslateRequest:
    return request("a", options=pb.DecodeOptions(**fields))


def test_an_empty_message_is_refused():
    assert violated(pb.TranslateRequest()) == ["texts", "source_language", "target_language"]


@pytest.mark.parametrize("text", ["", " ", "\n\n", "\t \u00a0", "\0", "\u202babc\u202c", "😀" * 10])
def test_odd_texts_are_taken(text: str):
    assert read_request(request(text), LIMITS, DEFAULTS)[0] == [text]


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (request(), ["texts"]),
        (request(*"abcde"), ["texts"]),
        (request("ok", "x" * 11), ["texts[1]"]),
        (request("x" * 9, "x" * 9, "x" * 9), ["texts"]),
        (request("a", source_language=""), ["source_language"]),
        (request("a", target_language="x" * 36), ["target_language"]),
        (request("a", target_language="fr_FR"), ["target_language"]),
        (request("a", model="m" * 129), ["model"]),
        (request("a", request_id="two\nlines"), ["request_id"]),
        (request("a", request_id="x" * 129), ["request_id"]),
        (request("a", priority=9), ["priority"]),
        (request("a", text_format=9), ["text_format"]),
        (request("a", text_format=pb.TEXT_FORMAT_HTML, include_alignment=True), ["include_alignment"]),
        (request("a", text_format=pb.TEXT_FORMAT_HTML, options=TWO_ALTERNATIVES), ["options.num_alternatives"]),
        (with_options(num_beams=0), ["options.num_beams"]),
        (with_options(num_beams=9), ["options.num_beams"]),
        (with_options(length_penalty=-0.1), ["options.length_penalty"]),
        (with_options(length_penalty=float("nan")), ["options.length_penalty"]),
        (with_options(num_alternatives=5), ["options.num_alternatives"]),
        (with_options(num_beams=2, num_alternatives=3), ["options.num_alternatives"]),
        (with_options(num_beams=8, num_alternatives=5), ["options.num_alternatives"]),
        (with_options(num_alternatives=0), ["options.num_alternatives"]),
        (with_options(max_length=-1), ["options.max_length"]),
        (with_options(no_repeat_ngram_size=17), ["options.no_repeat_ngram_size"]),
        (with_options(repetition_penalty=0.5), ["options.repetition_penalty"]),
        (with_options(repetition_penalty=float("nan")), ["options.repetition_penalty"]),
        (with_options(min_length=-1), ["options.min_length"]),
        (with_options(max_length=5, min_length=6), ["options.min_length"]),
    ],
)
def test_what_is_out_of_range_is_named(message: pb.TranslateRequest, fields: list[str]):
    assert violated(message) == fields


@pytest.mark.parametrize("field", ["max_length", "min_length"])
def test_a_limit_that_the_model_has_is_not_made_up(field: str):
    with pytest.raises(InvalidRequest, match=rf"options\.{field}: -1 must be >= 0$") as caught:
        read_request(with_options(**{field: -1}), LIMITS, DEFAULTS)
    assert caught.value.numbers == {"value": -1, "min": 0}


def test_limits_are_inclusive():
    assert violated(request("x" * 10, "x" * 10, "x" * 5, "")) == []
    assert violated(with_options(num_beams=8, num_alternatives=4, length_penalty=5, max_length=2**31 - 1)) == []


def test_unset_options_take_the_defaults():
    assert read_request(request("a"), LIMITS, DEFAULTS)[1].options == DEFAULTS
    options = read_request(with_options(length_penalty=0.0), LIMITS, DEFAULTS)[1].options
    assert (options.num_beams, options.length_penalty) == (4, 0.0)


def test_a_named_model_needs_no_languages():
    settings = read_request(pb.TranslateRequest(texts=["a"], model="m"), LIMITS, DEFAULTS)[1]
    assert (settings.model, settings.source_language) == ("m", "")


def test_the_number_of_violations_is_bounded():
    limits = Limits(max_texts=1000, max_text_characters=1)
    assert len(violated(request(*["xx"] * 1000), limits)) == MAX_VIOLATIONS
