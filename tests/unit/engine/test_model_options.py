"""What a request's options become for a model: its own choices, the settings' and its limits, case by case."""

import pytest

from service.decoding.options import DecodeOptions
from service.engine.model_options import ModelOptions
from service.errors import InvalidRequest
from service.runtime.bundle import Decoding

LIMIT = 100


def options(**fields: int) -> DecodeOptions:
    return DecodeOptions(num_beams=1, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "default", "own", "num_source_tokens", "wanted"),
    [
        (0, 0, 0, 5, 31),  # three for each and 16
        (0, 0, 0, 1, 19),
        (0, 0, 0, 28, LIMIT),
        (0, 0, 0, 29, LIMIT),  # 103 are more than the model can
        (0, 0, 40, 5, 40),  # what its authors chose goes before the formula,
        (0, 50, 40, 5, 50),  # what the settings say before that,
        (0, 50, 0, 5, 50),
        (7, 50, 40, 5, 7),  # and what was asked for before all
        (7, 0, 0, 5, 7),
        (0, 101, 0, 5, LIMIT),
        (0, 0, 101, 5, LIMIT),
    ],
)
def test_how_long_a_translation_may_be(asked: int, default: int, own: int, num_source_tokens: int, wanted: int) -> None:
    model = ModelOptions(Decoding(max_length=own), LIMIT, max_beams=4, default_max_length=default)
    assert model.max_length(num_source_tokens, options(max_length=asked)) == wanted


@pytest.mark.parametrize(
    ("own", "asked", "wanted"),
    [
        (Decoding(), options(), options()),
        (Decoding(), options(min_length=3, no_repeat_ngram_size=2), options(min_length=3, no_repeat_ngram_size=2)),
        (Decoding(min_length=4), options(), options(min_length=4)),
        (Decoding(no_repeat_ngram_size=3), options(), options(no_repeat_ngram_size=3)),
        (Decoding(min_length=4), options(min_length=2), options(min_length=2)),
        (Decoding(no_repeat_ngram_size=3), options(no_repeat_ngram_size=2), options(no_repeat_ngram_size=2)),
        (Decoding(min_length=4), options(max_length=3), options(min_length=3, max_length=3)),
        (Decoding(min_length=4), options(max_length=9), options(min_length=4, max_length=9)),
    ],
)
def test_what_a_request_leaves_open_is_as_the_authors_chose(
    own: Decoding, asked: DecodeOptions, wanted: DecodeOptions
) -> None:
    assert ModelOptions(own, LIMIT, max_beams=4).completed(asked) == wanted


def test_what_a_model_can_give_is_taken() -> None:
    model = ModelOptions(Decoding(), LIMIT, max_beams=4)
    model.check(DecodeOptions(num_beams=4, max_length=LIMIT, min_length=LIMIT))


@pytest.mark.parametrize(
    ("asked", "field", "value", "most"),
    [
        (DecodeOptions(num_beams=5), "options.num_beams", 5, 4),
        (options(max_length=LIMIT + 1), "options.max_length", LIMIT + 1, LIMIT),
        (options(min_length=LIMIT + 1), "options.min_length", LIMIT + 1, LIMIT),
    ],
)
def test_what_it_cannot_is_refused_by_name(asked: DecodeOptions, field: str, value: int, most: int) -> None:
    with pytest.raises(InvalidRequest, match=f"{value} is more than the") as error:
        ModelOptions(Decoding(), LIMIT, max_beams=4).check(asked)
    assert error.value.field == field
    assert f" {most} " in str(error.value)
