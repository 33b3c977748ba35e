"""HTML between its sentences and their translations: structure kept, tags around the right words."""

import html
import re
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.text.html_text import HtmlText
from service.text.placement import Look
from service.text.segments import MAX_DEPTH, Segment, segments
from service.text.splitter import TextSplitter

TAG = re.compile(r"<[^<>]*>")
SPLITTER = TextSplitter("en", 50, lambda texts: [text.split() for text in texts])  # type: ignore[misc]


def divided(markup: str) -> HtmlText:
    return HtmlText(markup, SPLITTER.split)


def words(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]


def joined(markup: str, *translations: str, order: Sequence[Sequence[int]] = ()) -> str:
    """With the n-th word of each translation made of that of its sentence which ``order`` names; default: the n-th."""
    text, looks = divided(markup), list[Look]()
    starts = text.starts(translations)
    for number, (sentence, translation) in enumerate(zip(text.sentences, translations, strict=True)):
        sources, (first, second) = words(sentence), starts[number]
        for place, (start, end) in enumerate(words(translation)):
            source = order[number][place] if order else place
            if 0 <= source < len(sources):
                begin, stop = sources[source]
                looks.append(Look(first + begin, first + stop, second + start, second + end, 0.9))
    return text.join(translations, looks)


def test_tags_between_sentences_stay_where_they_are():
    markup = "<ul>\n  <li> One day. </li>\n<li><b>Two &amp; three.</b><br>Four</li></ul>\n\n<!-- end -->"
    text = divided(markup)
    assert text.sentences == ("One day.", "Two & three.", "Four")
    assert not text.needs_looks
    assert text.join(["Un <jour>.", "Deux & trois.", "Quatre"]) == (
        "<ul>\n  <li> Un &lt;jour&gt;. </li>\n<li><b>Deux &amp; trois.</b><br>Quatre</li></ul>\n\n<!-- end -->"
    )


def test_tags_within_a_sentence_follow_their_words():
    markup = 'The <b>black</b> <a href="x">cat</a> sleeps.'
    assert divided(markup).needs_looks
    assert divided(markup).sentences == ("The black cat sleeps.",)
    assert joined(markup, "Le chat noir dort.", order=[[0, 2, 1, 3, 4]]) == (
        'Le <a href="x">chat</a> <b>noir</b> dort.'
    )


def test_elements_stay_inside_one_another():
    markup = "I like <i>big <b>red</b> cars</i> much."
    order = [[0, 1, 4, 2, 3, 5, 6]]
    assert joined(markup, "Moi aime autos grandes rouges beaucoup.", order=order) == (
        "Moi aime <i>autos grandes <b>rouges</b></i> beaucoup."
    )


def test_an_element_goes_around_one_stretch_of_words():
    """The larger one; what is between two words of it goes along if there are more of them."""
    markup = "I do <b>not want</b> it."
    assert joined(markup, "Je ne le veux pas.", order=[[0, 2, 4, 3, 2, 5]]) == "Je ne le <b>veux pas</b>."
    assert joined(markup, "Je ne y veux pas.", order=[[0, 2, -1, 3, 2, 5]]) == "Je <b>ne y veux pas</b>."


def test_an_element_without_a_word_is_not_lost():
    assert joined("I <b>do</b> not <i>know</i>.", "Sais pas.", order=[[3, 2, 4]]) == "<i>Sais</i> <b></b>pas."
    assert joined("<b>Oh</b> well.", "", order=[[]]) == "<b></b>"


def test_things_alone_stand_beside_their_words():
    assert joined("Push <img src=a> the button.", "Le bouton, pousse.", order=[[1, 2, -1, 0, 3]]) == (
        "<img src=a> Le bouton, pousse."
    )
    assert joined("A word<sup>1</sup> more.", "Plus un mot.", order=[[2, 0, 1, 3]]) == "Plus un mot<sup>1</sup>."
    assert joined("A word<sup>1</sup>, two.", "Deux, un mot.", order=[[3, 2, 0, 1, 4]]) == "Deux, un mot<sup>1</sup>."
    assert joined("Run <code>a &lt; b</code> now.", "Lance maintenant.") == "Lance <code>a &lt; b</code> maintenant."
    assert joined("One<wbr> two.", "Un deux.") == "Un<wbr> deux."
    assert joined("x <b>One two", "x Un deux") == "x <b>Un deux"
    assert joined("One two</b> x.", "Un deux x.") == "Un deux</b> x."


def test_spaces_within_a_paragraph_are_one_and_those_around_it_stay():
    markup = "<p>\n   The\n   old <i> cat </i>\n</p>\n\n<pre>a  b\n  c</pre>"
    assert divided(markup).sentences == ("The old cat", "a  b", "c")
    assert joined(markup, "Le vieux chat", "A  B", "C") == (
        "<p>\n   Le vieux <i>chat</i>\n</p>\n\n<pre>A  B\n  C</pre>"
    )


def test_blank_lines_part_sentences():
    assert divided("one\nline\n\nnext").sentences == ("one line", "next")
    assert joined("one\nline\r\n\r\nnext", "une ligne", "suite") == "une ligne\r\n\r\nsuite"


def test_what_has_no_words_stays_as_it_stands():
    markup = "<td>&nbsp;</td><td> --- <b>&copy;</b></td>"
    assert divided(markup).sentences == ()
    assert divided(markup).join([]) == markup


def test_letters_of_scripts_without_spaces_are_words_of_their_own():
    text = divided("I am <b>a cat</b>.")
    looks = [Look(0, 1, 0, 2, 0.9), Look(7, 10, 3, 4, 0.9), Look(2, 4, 4, 6, 0.9), Look(10, 11, 6, 7, 0.9)]
    assert text.join(["吾輩は猫である。"], looks) == "吾輩は<b>猫</b>である。"


def test_soft_hyphens_are_no_part_of_words():
    markup = "<p>Silben&shy;tren\xadnung <b>&shy;ist</b> &#173; gut</p><p>&shy;1&shy;</p><p>&shy;</p>"
    assert divided(markup).sentences == ("Silbentrennung ist gut", "1")
    assert joined(markup, "Hyphenation is good", "1") == "<p>Hyphenation <b>is</b> good</p><p>1</p><p>&shy;</p>"


def test_before_anything_is_known_of_the_words_tags_within_sentences_are_left_out():
    assert divided("<p>A <b>word</b>.</p><p>&lt;</p>").join(["Un <mot>."]) == "<p>Un &lt;mot&gt;.</p><p>&lt;</p>"


def test_as_many_translations_as_sentences():
    with pytest.raises(ValueError, match="0 translations for 1 sentences"):
        divided("<p>One").join([])


MARKUP = st.lists(
    st.sampled_from(
        [
            "<b>",
            "</b>",
            "<i>",
            "</i>",
            "<a href='x'>",
            "</a>",
            "<p>",
            "</p>",
            "<br>",
            "<img>",
            "<!-- c -->",
            "</x>",
            "<x>",
        ]
        + ["one ", "two", " three", ". ", "Four", "&amp;", "1", " ", "\n\n", ", "]
    ),
    max_size=40,
).map("".join)


MARKUP_IN_WORDS = st.lists(
    st.sampled_from(
        ["<b>", "</b>", "<i>", "</i>", "</x>", "<x>", "<p>", "<img>", "one", "Two", "three,", "4.", "&amp;"]
    )
).map(" ".join)


@given(MARKUP | st.text())
def test_strings_and_segments_are_the_text(markup: str):
    assert "".join(part.raw if isinstance(part, Segment) else part for part in segments(markup)) == markup


@given(MARKUP, st.data())
def test_no_tag_is_lost_or_doubled_and_no_word(markup: str, data: st.DataObject):
    """Whatever the words looked at."""
    text = divided(markup)
    translations = [" ".join(reversed(sentence.upper().split())) for sentence in text.sentences]
    order = [
        data.draw(st.lists(st.integers(-1, 9), min_size=len(words(each)), max_size=len(words(each))))
        for each in translations
    ]
    found = joined(markup, *translations, order=order)
    assert Counter(TAG.findall(found)) == Counter(TAG.findall(markup))
    shown = html.unescape(TAG.sub("", found))
    assert re.sub(r"\s", "", shown).count("") == re.sub(r"\s", "", html.unescape(TAG.sub("", markup))).count("")
    assert [sorted(translation.split()) for translation in translations] == [
        sorted(sentence.upper().split()) for sentence in text.sentences
    ]


@given(MARKUP_IN_WORDS)
def test_words_that_look_at_themselves_leave_everything_in_its_place(markup: str):
    """But for spaces beside tags."""
    text = divided(markup)
    assert "".join(joined(markup, *text.sentences).split()) == "".join(markup.split())


def test_deep_nesting_is_read_and_keeps_its_order():
    markup = f"a {'<b>' * 1000}c{'</b>' * 1000} d"
    [segment] = [part for part in segments(markup) if isinstance(part, Segment)]
    depth, tags = 0, segment.tags
    while tags:
        depth, tags = depth + 1, tuple(tag for tag in tags[0].inside if tag.closing)
    assert depth <= MAX_DEPTH
    assert Counter(TAG.findall(joined(markup, "A C D"))) == Counter({"<b>": 1000, "</b>": 1000})
