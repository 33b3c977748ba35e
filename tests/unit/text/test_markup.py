"""HTML in pieces: what is a tag, what is text, what is left alone; nothing is lost, and time is linear."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.text.markup import Kind, Piece, pieces

PARTS = [
    "<b>",
    "</b>",
    "<p class='a>b'>",
    "<br/>",
    "<!--",
    "-->",
    "<code>",
    "</code>",
    "<",
    ">",
    '"',
    "'",
    "a ",
    "&lt;",
    "\n",
]


def kinds(html: str) -> list[tuple[str, str]]:
    return [(piece.kind.value, piece.raw) for piece in pieces(html)]


@given(st.lists(st.sampled_from(PARTS)).map("".join) | st.text())
def test_the_pieces_are_the_text(html: str):
    assert "".join(piece.raw for piece in pieces(html)) == html


def test_words_paragraphs_and_what_is_neither():
    assert list(pieces('<P>A <I title="x > y">b</i><br>c<wbr/>')) == [
        Piece(Kind.BREAK, "<P>", "p"),
        Piece(Kind.TEXT, "A "),
        Piece(Kind.OPEN, '<I title="x > y">', "i"),
        Piece(Kind.TEXT, "b"),
        Piece(Kind.CLOSE, "</i>", "i"),
        Piece(Kind.BREAK, "<br>", "br"),
        Piece(Kind.TEXT, "c"),
        Piece(Kind.ALONE, "<wbr/>", "wbr"),
    ]


@pytest.mark.parametrize(
    "text", ["a < b and c > d", "I <3 you", "<", "a <- b", "1<2>1", "</ p>", "<b", "<!-- open", "a<"]
)
def test_what_is_no_tag_is_text(text: str):
    assert kinds(text) == [("text", text)]


@pytest.mark.parametrize(
    "alone",
    [
        "<!-- <b>no</b> -->",
        "<![CDATA[ <b> ]]>",
        "<?xml version='1.0'?>",
        "<!DOCTYPE html>",
        "<img src='a>b'>",
        "<x id='1'/>",
        "<code>ls <b>-l</b></code>",
        "<CODE>a<code>b</code></Code>",
        "<script>if (a < b) { '<script>' }</script>",
        '<span translate="no">A <span>B</span></span>',
        "<span class='c notranslate'>A</span>",
        "<em class=notranslate>A</em>",
        "<x-y.z translate=no>A</x-y.z>",
    ],
)
def test_what_stays_as_it_is(alone: str):
    assert kinds(f"a{alone}b") == [("text", "a"), ("alone", alone), ("text", "b")]


def test_names_that_html_does_not_know_are_within_sentences():
    assert kinds("<1>a</1><x-name>b</x-name>") == [
        *(("open", "<1>"), ("text", "a"), ("close", "</1>")),
        *(("open", "<x-name>"), ("text", "b"), ("close", "</x-name>")),
    ]


def test_quotes_that_are_not_closed_do_not_hide_the_end_of_a_tag():
    assert kinds("<a title=it's>b</a>") == [("open", "<a title=it's>"), ("text", "b"), ("close", "</a>")]


def test_an_element_that_does_not_end_is_a_tag():
    assert kinds("<code>a") == [("open", "<code>"), ("text", "a")]
    assert kinds("<p translate=no>a") == [("break", "<p translate=no>"), ("text", "a")]


@pytest.mark.parametrize(
    "part", ['<a "', "<a '\"", "<!--", "<code>", "<", "<p translate=no>", "<?", "<a <", "<a b='<c d=\""]
)
def test_time_is_linear(part: str):
    """A hundred times the time for a hundred times the text; a square would take ten thousand times."""

    def seconds(count: int) -> float:
        text, started = part * count, time.perf_counter()
        assert sum(len(piece.raw) for piece in pieces(text)) == len(text)
        return time.perf_counter() - started

    assert seconds(100_000) < 1_000 * max(min(seconds(1_000) for _ in range(3)), 1e-4)
