"""Golden texts: only what the service takes for one sentence, so that a bundle is asked for what it was made with."""

from collections.abc import Callable
from pathlib import Path

import pytest

from export.golden import single_sentences
from export.write_bundle import ExportError, ExportOptions, usable_golden_texts
from model.transformer import Transformer
from service.cli import main
from service.runtime.bundle import Bundle, Language
from service.runtime.tokenizer import Tokenizer
from tests.conftest import sentences

Make = Callable[..., Path]
PAIRS = tuple(f"{text.capitalize()}. {text.capitalize()}." for text in sentences(20))


def num_tokens(tokenizer: Tokenizer, text: str) -> int:
    [ids] = tokenizer.encode([text])
    return len(ids)


@pytest.mark.parametrize(
    "text", [" the red house", "the red house ", "- the red house", "Wait. The mill turns.", "!!!", ""]
)
def test_what_is_not_one_sentence_alone_is_left_out(text: str, nonsense_tokenizer: Tokenizer) -> None:
    assert single_sentences([text, "the red house"], nonsense_tokenizer, "en", 64) == ["the red house"]


def test_what_the_service_would_cut_is_left_out(nonsense_tokenizer: Tokenizer) -> None:
    text = "the red house stands beside the river"
    length = num_tokens(nonsense_tokenizer, text)
    assert single_sentences([text], nonsense_tokenizer, "en", length) == [text]
    assert single_sentences([text], nonsense_tokenizer, "en", length - 1) == []


def test_the_end_token_and_those_of_the_languages_need_room_too(nonsense_tokenizer: Tokenizer) -> None:
    text = "the red house stands beside the river"
    languages = {"source_languages": (Language("en", (5,)),), "target_languages": (Language("fr", (6, 7)),)}
    for more, count in ((languages, 4), ({}, 1)):
        least = num_tokens(nonsense_tokenizer, text) + count
        options = [
            ExportOptions("a", "1", golden_texts=(text,), max_source_tokens=limit, **more)  # type: ignore[arg-type]
            for limit in (least, least - 1)
        ]
        assert usable_golden_texts(nonsense_tokenizer, "en", options[0]) == [text]
        with pytest.raises(
            ExportError, match=f"of 1 golden texts none is one sentence of at most {least - count - 1} "
        ):
            usable_golden_texts(nonsense_tokenizer, "en", options[1])


def test_a_bundle_of_texts_some_of_which_are_no_sentences_loads(
    random_transformer: Transformer, make_bundle: Make, nonsense_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    usable = tuple(text for text in sentences(40) if num_tokens(nonsense_tokenizer, text) < 16)
    too_long = tuple(text for text in sentences(40) if num_tokens(nonsense_tokenizer, text) >= 16)
    options = {"golden_texts": PAIRS + too_long + usable, "max_source_tokens": 16, "precisions": ("cpu-fp32",)}
    bundle = make_bundle(random_transformer, tmp_path / "bundle", **options)
    golden = {golden.source for golden in Bundle.open(bundle).manifest.golden}
    assert golden
    assert golden <= set(usable)
    assert main(["verify", str(bundle)]) == 0


def test_texts_of_which_none_can_be_used_are_refused(
    random_transformer: Transformer, make_bundle: Make, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="of 20 golden texts none is one sentence of at most 63 tokens"):
        make_bundle(random_transformer, tmp_path / "bundle", golden_texts=PAIRS)
    assert list(tmp_path.iterdir()) == []
