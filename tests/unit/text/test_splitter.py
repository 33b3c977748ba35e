"""Splitting and joining: nothing is lost, nothing is too long, layout comes back as it was."""

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.text.splitter import SplitText, TextSplitter


def by_words(texts: Sequence[str]) -> list[list[int]]:
    return [list(map(len, text.split())) for text in texts]


def by_thirds(texts: Sequence[str]) -> list[list[int]]:
    """Like a vocabulary that knows pieces of three characters."""
    return [list(map(ord, text[::3])) for text in texts]


def by_characters(texts: Sequence[str]) -> list[list[int]]:
    return [list(map(ord, text)) for text in texts]


def split(text: str, language: str = "en", max_tokens: int = 100) -> SplitText:
    return TextSplitter(language, max_tokens, by_words).split(text)


def put_together(result: SplitText) -> str:
    pieces = [result.gaps[0]]
    for sentence, gap in zip(result.sentences, result.gaps[1:], strict=True):
        pieces += [sentence, gap]
    return "".join(pieces)


LIKE_TEXT = st.lists(
    st.sampled_from(
        [
            "Mr. Smith",
            "came",
            ". ",
            "! ",
            "? ",
            " ",
            "  ",
            "\t",
            "\n",
            "\r\n",
            "\r",
            "\u2028",
            "\x0b",
            "\xa0",
            "\u200b",
            "\0",
        ]
        + [
            "- ",
            "«",
            "»",
            '"',
            "(",
            ")",
            "3.14",
            "e.g.",
            "https://a.example/b?c=d",
            "これは。",
            "漢字",
            "、",
            "é",
            "e\u0301",
        ]
        + ["👩\u200d👩\u200d👧", "🇫🇷", "👍🏽", "שלום", "한글", ", ", "; ", "—", "\ufeff", "…"]
    ),
    max_size=60,
).map("".join)


class TestEveryText:
    @given(
        text=st.text() | LIKE_TEXT,
        max_tokens=st.integers(1, 12),
        language=st.sampled_from(["en", "fr", "ja", "xx", ""]),
    )
    def test_pieces_add_up_to_the_text(self, text: str, max_tokens: int, language: str) -> None:
        result = TextSplitter(language, max_tokens, by_thirds).split(text)
        assert put_together(result) == text

    @given(text=st.text() | LIKE_TEXT, max_tokens=st.integers(1, 12))
    def test_sentences_fit_and_are_trimmed(self, text: str, max_tokens: int) -> None:
        result = TextSplitter("en", max_tokens, by_thirds).split(text)
        for sentence in result.sentences:
            assert sentence
            assert sentence == sentence.strip()
            assert len(by_thirds([sentence])[0]) <= max_tokens
            assert len(sentence.splitlines()) == 1
            assert any(character.isalnum() for character in sentence)

    @given(text=st.text() | LIKE_TEXT)
    def test_no_letter_or_digit_is_left_out(self, text: str) -> None:
        result = TextSplitter("en", 10_000, by_thirds).split(text)
        assert not result.was_cut
        assert not any(character.isalnum() for gap in result.gaps for character in gap)

    @given(text=LIKE_TEXT, max_tokens=st.integers(1, 12))
    def test_flag_says_whether_a_sentence_was_cut(self, text: str, max_tokens: int) -> None:
        whole = TextSplitter("en", 10_000, by_thirds).split(text)
        result = TextSplitter("en", max_tokens, by_thirds).split(text)
        assert result.was_cut == any(count > max_tokens for count in map(len, by_thirds(whole.sentences)))
        if not result.was_cut:
            assert result == whole


class TestLayout:
    @pytest.mark.parametrize(
        "text", ["", " ", "\n\n", "\t \r\n", "\xa0\u3000", "---", "***", "!!!", "😀", "…", "\0", "- \n- "]
    )
    def test_nothing_to_translate(self, text: str) -> None:
        assert split(text) == SplitText((), (text,), was_cut=False)
        assert split(text).join([]) == text

    @pytest.mark.parametrize(
        ("text", "sentences", "gaps"),
        [
            ("One. Two.\r\n\r\nThree.\r\n", ("One.", "Two.", "Three."), ("", " ", "\r\n\r\n", "\r\n")),
            ("    indented\n\tby a tab", ("indented", "by a tab"), ("    ", "\n\t", "")),
            ("Name\tAge\nAnn\t12\t", ("Name", "Age", "Ann", "12"), ("", "\t", "\n", "\t", "\t")),
            ("1.\tThe parties agree.", ("1.", "The parties agree."), ("", "\t", "")),
            ("line one\nline two", ("line one", "line two"), ("", "\n", "")),
            ("old Mac\rline", ("old Mac", "line"), ("", "\r", "")),
            ("a\u2028b\x85c\x0bd\x0ce", ("a", "b", "c", "d", "e"), ("", "\u2028", "\x85", "\x0b", "\x0c", "")),
            ("- milk\n- eggs\n  * ham", ("milk", "eggs", "ham"), ("- ", "\n- ", "\n  * ", "")),
            ("> quoted\n> > twice", ("quoted", "twice"), ("> ", "\n> > ", "")),
            ("One.   Two.", ("One.", "Two."), ("", "   ", "")),
            ("One.\xa0Two.", ("One.", "Two."), ("", "\xa0", "")),
            ("\ufeffHello.\u200b", ("Hello.",), ("\ufeff", "\u200b")),
            ("Title\n-----\nText", ("Title", "Text"), ("", "\n-----\n", "")),
            ("😀 Hello. 😀😀! Bye.", ("😀 Hello.", "Bye."), ("", " 😀😀! ", "")),
            ("a\0b. C", ("a\0b.", "C"), ("", " ", "")),
        ],
    )
    def test_stays_as_it_was(self, text: str, sentences: tuple[str, ...], gaps: tuple[str, ...]) -> None:
        result = split(text)
        assert (result.sentences, result.gaps) == (sentences, gaps)

    def test_five_degrees_below_zero_are_no_list(self) -> None:
        assert split("-5 degrees").sentences == ("-5 degrees",)


class TestSentences:
    @pytest.mark.parametrize(
        "sentence",
        [
            "Mr. Smith paid 3.14 dollars.",
            "See https://example.org/a.b?c=d.e for more.",
            "Ask example.Org about it.",
            'He said: "Stop! Now!"',
            "It works, e.g. in this sentence.",
            "Wait... what?",
        ],
    )
    def test_one(self, sentence: str) -> None:
        assert split(sentence).sentences == (sentence,)
        assert split(f"{sentence} Then we left.").sentences == (sentence, "Then we left.")

    def test_right_to_left(self) -> None:
        assert split("שלום. מה שלומך?", "he").sentences == ("שלום.", "מה שלומך?")

    def test_full_stops_without_space(self) -> None:
        assert split("これは本です。あれは？「はい。」いいえ。", "ja").sentences[0] == "これは本です。"

    def test_rules_of_the_language(self) -> None:
        text = "Am 3. Mai kam er bzw. Paul. Ja."
        assert len(split(text, "en").sentences) == 4, "a text that tells them from those of English"
        for code in ("de", "de-AT", "de_AT", "DE"):
            assert split(text, code).sentences == ("Am 3. Mai kam er bzw. Paul.", "Ja."), code

    def test_unknown_language_is_split_by_english_rules(self) -> None:
        assert split("Mr. Smith came. He left.", "qqq") == split("Mr. Smith came. He left.", "en")

    def test_lone_surrogate_is_kept(self) -> None:
        text = "a \ud800 b. C."
        assert put_together(split(text)) == text


class TestLongSentences:
    def test_cut_after_a_clause(self) -> None:
        result = split("when the rain had stopped at last, we went out into the wet garden", max_tokens=10)
        assert result.sentences == ("when the rain had stopped at last,", "we went out into the wet garden")
        assert result.gaps == ("", " ", "")
        assert result.was_cut

    def test_cut_at_whitespace(self) -> None:
        result = split("word " * 100, max_tokens=10)
        assert result.was_cut
        assert set("".join(result.sentences).replace("word", "")) <= {" "}
        assert max(map(len, by_words(result.sentences))) <= 10
        assert len(result.sentences) <= 20  # parts are not crumbs

    def test_cut_inside_a_word(self) -> None:
        result = TextSplitter("en", 10, by_thirds).split("x" * 1000)
        assert "".join(result.sentences) == "x" * 1000
        assert len(result.sentences) <= 60

    def test_character_that_never_fits_is_left_as_it_is(self) -> None:
        result = TextSplitter("en", 1, lambda texts: [[1] * 5 * len(text) for text in texts]).split("ab c")
        assert result == SplitText((), ("ab c",), was_cut=True)

    @given(text=LIKE_TEXT, max_tokens=st.integers(1, 12))
    def test_tokens_of_each_sentence_are_kept(self, text: str, max_tokens: int) -> None:
        result = TextSplitter("en", max_tokens, by_thirds).split(text)
        assert list(result.tokens) == by_thirds(result.sentences)

    def test_piece_without_tokens_is_layout(self) -> None:
        assert TextSplitter("en", 5, lambda texts: [[] for _ in texts]).split("ab").sentences == ()

    @pytest.mark.parametrize("text", ["x" * 1_000_000, "a b " * 250_000, "漢字" * 500_000, "a, " * 300_000], ids=len)
    def test_work_is_linear(self, text: str) -> None:
        """Counted in characters whose tokens were asked for: a few times the text, however long a sentence is."""
        asked = 0

        def count(texts: Sequence[str]) -> list[list[int]]:
            nonlocal asked
            asked += sum(map(len, texts))
            return by_thirds(texts)

        assert put_together(TextSplitter("en", 100, count).split(text)) == text
        assert asked <= 4 * len(text)

    def test_tokens_are_asked_for_in_batches(self) -> None:
        calls = 0

        def count(texts: Sequence[str]) -> list[list[int]]:
            nonlocal calls
            calls += 1
            return by_words(texts)

        TextSplitter("en", 10, count).split("A sentence of words. " * 2000 + "word " * 5000)
        assert calls <= 6

    def test_limit_below_one_is_refused(self) -> None:
        with pytest.raises(ValueError, match=re.escape("max_tokens (0) must be >= 1")):
            TextSplitter("en", 0, by_words)


class TestJoin:
    def test_translations_take_the_places(self) -> None:
        assert split("  One.\n\n- Two.  ").join(["Un.", "Deux."]) == "  Un.\n\n- Deux.  "

    @given(text=LIKE_TEXT)
    def test_gaps_are_kept(self, text: str) -> None:
        result = TextSplitter("en", 10_000, by_thirds).split(text)
        joined = result.join(["x"] * len(result.sentences))
        for gap in result.gaps:
            assert gap in joined

    def test_touching_sentences_get_a_space_where_the_target_writes_spaces(self) -> None:
        result = split("これは。あれは。", "ja")
        assert result.join(["This is.", "That is."]) == "This is. That is."
        assert result.join(["这是。", "那是。"]) == "这是。那是。"

    def test_a_space_between_chinese_or_japanese_translations_goes(self) -> None:
        result = split("Hello. How are you?  Fine.\nBye. Tom.")
        said = ["你好。", "你好吗？", "很好。", "再见。", "Tom。"]
        assert result.join(said) == "你好。你好吗？  很好。\n再见。 Tom。"
        assert result.starts(said)[1] == (7, 3)
        assert split("Hello. Bye.").join(["안녕하세요.", "안녕."]) == "안녕하세요. 안녕."

    def test_korean_is_wide_and_writes_spaces(self) -> None:
        assert split("これは。あれは。", "ja").join(["이것입니다.", "저것입니다."]) == "이것입니다. 저것입니다."

    @pytest.mark.parametrize("text", ["漢字仮名" * 5, "เขาไปตลาด" * 3, "ភាសាខ្មែរ" * 3], ids=len)
    def test_parts_of_a_sentence_without_spaces_get_one(self, text: str) -> None:
        result = TextSplitter("zh", 5, by_thirds).split(text)
        assert len(result.sentences) > 1
        assert result.join(["part"] * len(result.sentences)) == " ".join(["part"] * len(result.sentences))

    def test_parts_of_a_word_get_none(self) -> None:
        result = TextSplitter("en", 10, by_thirds).split("x" * 100)
        assert result.join(result.sentences) == "x" * 100

    def test_wrong_number_of_translations(self) -> None:
        with pytest.raises(ValueError, match="1 translations for 2 sentences"):
            split("One. Two.").join(["Un."])


@given(st.text(st.sampled_from("ab .!?\n。日"), max_size=40), st.sampled_from(["x", "yy", "日"]))
def test_starts_are_where_sentences_and_translations_stand(text: str, said: str) -> None:
    split = TextSplitter("en", 5, by_characters).split(text)
    translations = [said * (number + 1) for number in range(len(split.sentences))]
    joined, starts = split.join(translations), split.starts(translations)
    assert len(starts) == len(translations)
    for (source, target), sentence, translation in zip(starts, split.sentences, translations, strict=True):
        assert text[source:].startswith(sentence)
        assert joined[target:].startswith(translation)


def test_emoji_are_no_chinese() -> None:
    """They are as wide: a space before one stays, and one is put where sentences touched."""
    split = SplitText(("A.", "B."), ("", " ", ""), False)
    assert split.join(["Super \U0001f600", "\U0001f600 Bien"]) == "Super \U0001f600 \U0001f600 Bien"
    assert SplitText(("\u4f60\u597d\u3002", "B"), ("", "", ""), False).join(["a.", "\U0001f600 b"]) == "a. \U0001f600 b"
