"""Cuts fall between what a reader sees as two characters, at the best place there is."""

import pytest

from service.text.cuts import cut_long, is_grapheme_boundary

CLUSTERS = {
    "letter and accent": "e\u0301",
    "letter and two accents": "o\u0323\u0302",
    "family of emoji": "👩\u200d👩\u200d👧",
    "emoji with a skin tone": "👍🏽",
    "flag": "🇫🇷",
    "flag of tags": "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "Korean syllable in letters": "\u1112\u1161\u11ab",
    "Devanagari syllable": "नी",
    "emoji with variation selector": "❤\ufe0f",
}


@pytest.mark.parametrize("cluster", CLUSTERS.values(), ids=CLUSTERS)
def test_no_cut_inside_what_a_reader_sees_as_one(cluster: str) -> None:
    text = cluster * 60
    for place in range(1, len(text)):
        assert is_grapheme_boundary(text, place) == (place % len(cluster) == 0)
    for num_tokens in range(11, 200, 7):
        parts = cut_long(text, (0, len(text)), num_tokens, 10)
        assert len(parts) > 1
        assert [start % len(cluster) for start, _ in parts] == [0] * len(parts)


@pytest.mark.parametrize("num_tokens", [11, 25, 1000, 100_000])
@pytest.mark.parametrize("text", ["x" * 500, "word " * 100, "a, " * 166, "\u0301" * 500, "ab"])
def test_parts_cover_the_span_in_order(text: str, num_tokens: int) -> None:
    span = (0, len(text)) if len(text) == 2 else (3, len(text) - 3)
    parts = cut_long(text, span, num_tokens, 10)
    assert len(parts) >= 2
    assert (parts[0][0], parts[-1][1]) == span
    assert all(left[1] == right[0] for left, right in zip(parts, parts[1:], strict=False))
    assert all(start < end for start, end in parts)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("one two three, four five six", "one two three,"),
        ("one two three; four five six", "one two three;"),
        ("one two 3,4 four: five six seven", "one two 3,4 four:"),
        ("one two three (four) five sixs", "one two three (four)"),
        ("one two three four five sixse", "one two three "),
        ("一二三四五，六七八九十", "一二三四五，"),
        ("word—another word—of the lot", "word—another word—"),
        ("كان يا ما كان، وفي قديم الزمان", "كان يا ما كان،"),
        ("وہ کل گھر آیا تھا؛ پھر چلا گیا", "وہ کل گھر آیا تھا؛"),
        ("वह कल घर आया था। फिर चला गया", "वह कल घर आया था।"),
        ("νωρίς το πρωί ήρθε· έφυγε όμως αργά", "νωρίς το πρωί ήρθε·"),
        ("「一二三四五。」六七八九十", "「一二三四五。」"),
        ("一二（三四五）六七八九十", "一二（三四五）"),
        ("一二三四五,六七八九十", "一二三四五,"),
    ],
)
def test_best_place(text: str, left: str) -> None:
    (start, end), *_ = cut_long(text, (0, len(text)), 12, 10)
    assert text[start:end] == left


def test_one_code_point_has_no_parts() -> None:
    assert cut_long("abc", (1, 2), 50, 10) == []
