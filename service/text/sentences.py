"""Where the sentences of a text stand.

Knows: lines, layout characters, and the sentence rules of each language (by the ``sentencex`` library). Does not know:
how long a sentence may be.
"""

import re
from itertools import pairwise

import sentencex

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
LETTER_OR_DIGIT = re.compile(r"[^\W_]")
# The library fails (1.0.32) where a space of more than one byte stands between a capital letter and a full stop
# ("plan B\xa0."): it gets ASCII spaces instead.
WIDE_SPACE = re.compile(r"[^\S\x00-\x7f]")
# Full stops of scripts that put no space after them, with closing quotation marks and brackets.
ENDS_WITHOUT_SPACE = re.compile(r"[。！？｡︒．…][”’」』）》〉】\")]*\Z")


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
    ends, end = [], 0
    for piece in library_pieces(line, language)[:-1]:
        end += len(piece)
        if piece[-1:].isspace() or ENDS_WITHOUT_SPACE.search(piece[-8:]):
            ends.append(end)
    return [*ends, len(line)]


def library_pieces(line: str, language: str) -> list[str]:
    """The library's sentences of a line, as long as the line together. Whatever it cannot read is one sentence."""
    text = WIDE_SPACE.sub(" ", line)
    try:
        pieces = sentencex.segment(language, text)
    except UnicodeEncodeError:  # a lone surrogate: Python can hold one, UTF-8 cannot
        return [text]
    except BaseException as error:
        # What Python makes of a panic in Rust; its class cannot be imported, and is no Exception.
        if type(error).__name__ != "PanicException":
            raise
        return [text]
    return pieces if "".join(pieces) == text else [text]
