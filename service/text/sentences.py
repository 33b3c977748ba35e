"""Where the sentences of a text stand.

Knows: lines, layout characters, and the sentence rules of each language (by the ``sentencex`` library). Does not know:
how long a sentence may be.
"""

import re
from collections.abc import Iterator
from itertools import accumulate, pairwise

import sentencex

from service.text.abbreviations import goes_on

Span = tuple[int, int]
"""Start and end of a piece of a text, as in text[start:end]."""

# Every character that str.splitlines() takes for a line break, and the tab, which stands between a number and its
# paragraph and between the columns of a table: a model would make a space of it. A sentence never goes past one.
LINE = re.compile(r"[^\t\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")
# Layout around a sentence: whitespace, control characters, zero-width space, word joiner, byte order mark.
OUTER = r"\s\x00-\x1f\x7f-\x9f\u200b\u2060\ufeff"
BULLETS = re.compile(rf"[{OUTER}]*(?:[-*+>#•‣◦▪●○·–—]+\s+)+")
HEAD = re.compile(rf"[{OUTER}]*")
TAIL_CHARACTER = re.compile(rf"[{OUTER}]")
# Letters of scripts that put no spaces between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese; part of a pattern.
UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
LETTER_OR_DIGIT = re.compile(r"[^\W_]")
# The library fails (1.0.32) where a space of more than one byte stands between a capital letter and a full stop
# ("plan B\xa0."): it gets ASCII spaces instead.
WIDE_SPACE = re.compile(r"[^\S\x00-\x7f]")
# For each full stop of these languages the library makes its patterns anew (1.0.32): 0.3 ms, Python's lock held, where
# others take 1 us. They get the rules of one that is written alike.
RULES_OF = {"ca": "es", "oc": "es", "da": "de", "jut": "de", "kl": "de"}
# The library compares every full stop with every quotation and bracket of what it is given, and holds Python's lock: a
# line of 160,000 characters in Japanese quotation marks took 8 s. It is given so much at a time: 0.7 s.
WINDOW_CHARACTERS = 2_000
# What stands after these in a window may be in a quotation whose end is not in it, and is read again with the next one.
SURE_CHARACTERS = 1_500
# Full stops of scripts that put no space after them, or may not, with closing quotation marks and brackets; and those
# of ASCII behind Chinese and Japanese letters, if before such letters ("你好!我是小明").
ENDS_WITHOUT_SPACE = re.compile(
    r"(?:[。！？｡︒．…।॥።။։]|(?P<ascii>[\u3040-\u30ff\u3400-\u9fff][.!?]+))[”’」』）》〉】\")]*\Z"
)
WIDE_LETTER = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")


def trim(text: str, span: Span) -> Span | None:
    """The span without the layout around it; None where it holds neither letter nor digit."""
    start, end = span
    if LETTER_OR_DIGIT.search(text, start, end) is None:
        return None
    head = HEAD.match(text, start, end)
    start = head.end() if head else start
    while TAIL_CHARACTER.match(text[end - 1]):
        end -= 1
    return start, end


def sentence_spans(text: str, language: str) -> list[Span]:
    """Spans of the sentences, in order, without the layout around them. Pieces without letter or digit are left out."""
    spans = []
    for line in LINE.finditer(text):
        start = line.start()
        bullets = BULLETS.match(text, start, line.end())
        if bullets is not None:
            start = bullets.end()
        ends = [start + end for end in boundaries(text[start : line.end()], language)]
        for piece in pairwise([start, *ends]):
            trimmed = trim(text, piece)
            if trimmed is not None:
                spans.append(trimmed)
    return spans


def boundaries(line: str, language: str) -> list[int]:
    """The end of each sentence of a line, ascending; the last is the line's end.

    A boundary inside a word ("example.Org") is not taken, unless the full stop is one that no space follows (Chinese,
    Japanese).
    """
    if len(line) < 3 or LETTER_OR_DIGIT.search(line) is None:
        return [len(line)]
    ends, start = [], 0
    for end in library_ends(line, language):
        stop = ENDS_WITHOUT_SPACE.search(line, max(start, end - 8), end)
        is_end = line[end - 1].isspace() or (stop and (not stop["ascii"] or WIDE_LETTER.match(line, end)))
        if is_end and not goes_on(line, end, language):
            ends.append(end)
        start = end
    return [*ends, len(line)]


def library_ends(line: str, language: str) -> Iterator[int]:
    """The end of each of the library's sentences but the last, read window by window; time is linear in the line.

    Each window but the last is left at the last end that is sure, or, where there is none in its second half, in the
    midst of a sentence that is too long for any model.
    """
    start = 0
    while len(line) - start > WINDOW_CHARACTERS:
        pieces = library_pieces(line[start : start + WINDOW_CHARACTERS], language)
        ends = [end for end in accumulate(map(len, pieces)) if end <= SURE_CHARACTERS]
        yield from (start + end for end in ends)
        start += ends[-1] if ends and ends[-1] >= SURE_CHARACTERS // 2 else SURE_CHARACTERS
    for length in map(len, library_pieces(line[start:], language)[:-1]):
        start += length
        yield start


def library_pieces(line: str, language: str) -> list[str]:
    """The library's sentences, together as long as ``line``. Whatever it cannot read is one sentence."""
    text = WIDE_SPACE.sub(" ", line)
    try:
        pieces = sentencex.segment(RULES_OF.get(language, language), text)
    except UnicodeEncodeError:  # a lone surrogate: Python can hold one, UTF-8 cannot
        return [text]
    except BaseException as error:
        # What Python makes of a panic in Rust; its class cannot be imported, and is no Exception.
        if type(error).__name__ != "PanicException":
            raise
        return [text]
    return pieces if "".join(pieces) == text else [text]
