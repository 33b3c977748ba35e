"""Tokens' places are places in the text, whatever the text is."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.runtime.tokenizer import Tokenizer

odd = st.text(st.sampled_from("the red house éﬁ😀👩‍🚀ña\u0301 \t　日本۱"), max_size=30)


@settings(max_examples=200, deadline=None)
@given(text=odd)
def test_every_token_has_a_span_inside_its_text(nonsense_tokenizer: Tokenizer, text: str) -> None:
    spans, [ids] = nonsense_tokenizer.spans(text), nonsense_tokenizer.encode([text])
    assert len(spans) == len(ids)
    said = nonsense_tokenizer.decode([ids])[0]
    for content, places in ((text, spans), (said, nonsense_tokenizer.decoded_spans(ids))):
        last = 0
        for start, end in places:
            assert last <= start <= end <= len(content)
            assert content[start:end] == content[start:end].strip()
            last = end
    if ids:
        shown = "".join(said[start:end] for start, end in nonsense_tokenizer.decoded_spans(ids))
        assert shown.replace(" ", "") == "".join(said.split())


@pytest.mark.parametrize("text", ["the red house", "  the\tred   house "])
def test_words_are_found_where_they_stand(nonsense_tokenizer: Tokenizer, text: str) -> None:
    assert "".join(text[start:end] for start, end in nonsense_tokenizer.spans(text)) == "theredhouse"
