"""Bytes that make no character leave no trace; all others come back."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.app import SHIPPED_BUNDLE
from service.runtime.tokenizer import VOCABULARY, Tokenizer

TOKENIZER = Tokenizer.from_file(Path(SHIPPED_BUNDLE) / VOCABULARY)
BYTE_IDS = {value: token for token, value in TOKENIZER.bytes.items()}
EMOJI = [BYTE_IDS[value] for value in "\U0001f600".encode()]
[BEFORE, AFTER] = TOKENIZER.encode(["She", "sleeps"])


def test_every_byte_has_a_token() -> None:
    assert sorted(BYTE_IDS) == list(range(256))


@pytest.mark.parametrize("missing", range(4))
def test_a_broken_character_leaves_no_trace(missing: int) -> None:
    broken = EMOJI[:missing] + EMOJI[missing + 1 :]
    whole, without, alone, twice = TOKENIZER.decode(
        [[*BEFORE, *EMOJI, *AFTER], [*BEFORE, *broken, *AFTER], broken, [*broken, *EMOJI]]
    )
    assert whole == "She\U0001f600 sleeps"
    assert without == "She sleeps"
    assert alone == ""
    assert twice == "\U0001f600"


@given(st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=12))
def test_no_ids_show_a_mark_for_what_is_broken(ids: list[int]) -> None:
    ids = [token for token in ids if token != TOKENIZER.unknown]
    [text] = TOKENIZER.decode([ids])
    assert "\ufffd" not in text
    spans = TOKENIZER.decoded_spans(ids)
    assert len(spans) == len(ids)
    assert all(0 <= start <= end <= len(text) for start, end in spans)


@given(st.lists(st.integers(0, 255), max_size=12))
def test_what_is_left_is_what_utf8_holds(values: list[int]) -> None:
    kept = [TOKENIZER.bytes[token] for token in TOKENIZER.readable([BYTE_IDS[value] for value in values])]
    assert bytes(kept).decode() == bytes(values).decode(errors="ignore")
