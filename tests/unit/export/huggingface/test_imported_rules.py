"""What an imported folder demands of every search, through its bundle, against the oracle."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from export.huggingface.importer import read_checkpoint
from model.reference_decode import constrained, extend_with, search_beams, search_greedily
from service.cli import main
from service.decoding.options import DecodeOptions
from service.engine.request import FinishReason
from service.engine.settings import EngineSettings
from service.engine.translator import Translator
from tests.conftest import sentences
from tests.unit.export.huggingface.conftest import edit_json

Make = Callable[..., Path]
FRENCH = ("en", "fr")


@contextmanager
def imported(folder: Path) -> Iterator[Translator]:
    bundle = folder.parent / "bundle"
    assert main(["import-marian", str(folder), str(bundle), "--precision", "cpu-fp32"]) == 0
    with closing(Translator.load(bundle, EngineSettings(num_workers=1, stop_repetition=False))) as translator:
        yield translator


def test_tokens_that_must_not_come_leave_a_search_all_its_candidates(make_folder: Make) -> None:
    """Those that it would choose most often are banned."""
    folder = make_folder(num_heads=4)
    plain = read_checkpoint(folder, [], ["fr"])
    pad, end = plain.tokenizer.pad, plain.tokenizer.end
    often: list[int] = []
    for text in sentences(8):
        source = [*plain.targets[0].prefix, *plain.tokenizer.encode([text])[0], end]
        often += search_greedily(extend_with(plain.model, source, plain.tokenizer.start), end, 12).ids
    banned = sorted({*sorted(set(often) - {end}, key=often.count)[-4:], pad})
    edit_json(folder / "generation_config.json", bad_words_ids=[[token] for token in banned], renormalize_logits=False)
    checkpoint = read_checkpoint(folder, [], ["fr"])
    assert sorted(checkpoint.decoding.banned) == banned
    with imported(folder) as translator:
        for beams in (1, 4):
            options = DecodeOptions(num_beams=beams, max_length=12)
            results = translator.translate(sentences(8), options, FRENCH)
            for text, result in zip(sentences(8), results, strict=True):
                source = [*plain.targets[0].prefix, *checkpoint.tokenizer.encode([text])[0], end]
                extend = extend_with(checkpoint.model, source, checkpoint.tokenizer.start)
                extend = constrained(extend, banned=banned, last=end, max_length=12)
                right = search_greedily(extend, end, 12) if beams == 1 else search_beams(extend, end, 12, beams)[0]
                assert list(result.alternatives[0].token_ids) == right.ids
                assert result.score == pytest.approx(right.score, abs=1e-4)
        assert translator.engine.failure is None


def test_an_end_that_was_forced_is_the_limit_of_length(make_folder: Make) -> None:
    """Only of one that came before does anybody know that the model chose it."""
    folder = make_folder(num_heads=4)
    edit_json(folder / "generation_config.json", max_length=13)
    with imported(folder) as translator:
        end = translator.tokenizer.end
        seen = set()
        for options in (DecodeOptions(num_beams=1), DecodeOptions(num_beams=4), DecodeOptions(2, max_length=6)):
            limit = options.max_length or 12  # theirs counts the start token
            for result in translator.translate(sentences(12), options, FRENCH):
                ids = result.alternatives[0].token_ids
                is_limited = len(ids) == limit
                assert ids[-1] == end
                assert result.finish_reason is (FinishReason.LENGTH_LIMIT if is_limited else FinishReason.END_TOKEN)
                assert result.length_limited == is_limited
                seen.add(is_limited)
    assert seen == {False, True}


def test_the_token_of_a_language_has_room_beside_the_longest_sentence(make_folder: Make) -> None:
    with imported(make_folder(num_heads=4)) as translator:
        room = translator.info.max_source_tokens - 2  # the end token and the language's
        for num_tokens, num_sentences in ((room, 1), (room + 1, 2)):
            text = " ".join(["the"] * num_tokens)
            assert len(translator.tokenizer.encode([text])[0]) == num_tokens
            [result] = translator.translate([text], DecodeOptions(num_beams=1), FRENCH)
            assert (result.num_sentences, result.split) == (num_sentences, num_sentences > 1)
            assert result.num_source_tokens == num_tokens + 2 * num_sentences
        assert translator.engine.failure is None
