"""Where tokens stand in their text, in characters.

Knows: SentencePiece's own record of a text's pieces, UTF-8. Does not know: models, requests.

A token's span leaves out the space that belongs to its piece. It is empty where a token stands for nothing that can be
seen, such as a lone space or all but the last of the bytes of a character.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from os.path import commonprefix
from typing import Any

from sentencepiece import SentencePieceProcessor, sentencepiece_pb2

Span = tuple[int, int]
"""Start and end of a token, as in text[start:end]."""


def encoded_spans(processor: SentencePieceProcessor, text: str) -> list[Span]:
    """One span for each piece that ``processor`` cuts ``text`` into."""
    messages: Any = sentencepiece_pb2  # its messages are made at run time, out of mypy's sight
    pieces = messages.SentencePieceText.FromString(processor.encode(text, out_type="serialized_proto")).pieces
    # SentencePiece counts bytes of UTF-8; a byte inside a character belongs to it as a whole.
    widths = [len(character.encode("utf-8", "surrogatepass")) for character in text]
    place_of = [place for place, width in enumerate(widths) for _ in range(width)] + [len(text)]
    return [trimmed(text, place_of[piece.begin], place_of[piece.end]) for piece in pieces]


def decoded_spans(decode: Callable[[Sequence[Sequence[int]]], list[str]], ids: Sequence[int]) -> list[Span]:
    """One span for each of ``ids`` in the text that ``decode`` makes of all of them.

    A token's end is where the text of the tokens up to it stops being the beginning of the whole text.
    """
    *prefixes, text = decode([ids[:count] for count in range(len(ids) + 1)])
    ends = [*accumulate((len(commonprefix([prefix, text])) for prefix in prefixes), max), len(text)]
    return [trimmed(text, start, end) for start, end in pairwise(ends)]


def trimmed(text: str, start: int, end: int) -> Span:
    piece = text[start:end]
    start += len(piece) - len(piece.lstrip())
    return start, max(start, end - len(piece) + len(piece.rstrip()))
