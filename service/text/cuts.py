"""Where a sentence that is too long for the model is cut.

Knows: which places in a sentence are better than others. Does not know: why it is too long, or what a token is.

From the best place to the worst: after a clause's punctuation, at whitespace, between two characters that a reader sees
as two (never between a letter and its accent or inside an emoji), between any two code points.
"""

import re
import unicodedata

from service.text.sentences import Span

# Also of Arabic, Urdu, Hindi, Armenian, Greek and Ethiopic writing. Marks of Chinese and Japanese have no space behind
# them, nor have those of ASCII between their letters, and what closes a quotation goes with them.
CLAUSE_END = re.compile(
    r"[,;:.!?…)\]»”،؛؟۔।॥՝։·\u0387፣፤፥።](?=\s)|\s[–-](?=\s)|—|[、，；：。！？][”’」』）》〉】]*|[」』）》〉】]"
    r"|(?<=[\u3040-\u30ff\u3400-\u9fff])[,;:.!?](?=[\u3040-\u30ff\u3400-\u9fff])"
)
WHITESPACE = re.compile(r"\s+")
# Parts aim at this share of the limit: their ends then have room to move to a good place.
FILL = 0.75
# How far from its target, in parts, a cut may move to find a place of each kind.
CLAUSE_REACH = 0.35
WHITESPACE_REACH = 0.5
GRAPHEME_REACH_CHARACTERS = 64
# Flags are told apart by counting from the first of a row; in a longer row than this the count is given up.
FLAG_REACH_CHARACTERS = 1000
ZERO_WIDTH_JOINER = "\u200d"


def cut_long(text: str, span: Span, num_tokens: int, max_tokens: int) -> list[Span]:
    """Parts of about equal length, each probably within ``max_tokens``; they cover the span without overlap.

    A part may still be too long where tokens are unevenly spread: count and cut again. A span of one code point has no
    parts: what no cut can make fit is left untranslated.
    """
    start, end = span
    if end - start < 2:
        return []
    num_parts = min(int(num_tokens / (FILL * max_tokens)) + 1, end - start)
    length = (end - start) / max(num_parts, 2)
    cuts = [start]
    for number in range(1, max(num_parts, 2)):
        place = best_place(text, (cuts[-1] + 1, end - 1), round(start + number * length), length)
        if place > cuts[-1]:
            cuts.append(place)
    return list(zip(cuts, [*cuts[1:], end], strict=True))


def best_place(text: str, allowed: Span, target: int, length: float) -> int:
    """The index to cut before: the best kind of place in reach of ``target``, the nearest of its kind.

    Args:
        allowed: first and last index that may be returned.
        length: of a part, in characters.
    """
    first, last = allowed
    target = min(max(target, first), last)
    for pattern, reach in ((CLAUSE_END, CLAUSE_REACH * length), (WHITESPACE, WHITESPACE_REACH * length)):
        low, high = max(first, int(target - reach)), min(last, int(target + reach))
        # One character more on both sides: the patterns look at what stands around a place.
        found = [match.end() for match in pattern.finditer(text, low - 1, high + 1) if low <= match.end() <= high]
        if found:
            return min(found, key=lambda place: abs(place - target))
    for distance in range(GRAPHEME_REACH_CHARACTERS):
        for place in (target - distance, target + distance):
            if first <= place <= last and is_grapheme_boundary(text, place):
                return place
    return target


def is_grapheme_boundary(text: str, place: int) -> bool:
    """A reader sees text[place - 1] and text[place] as two characters (the main rules of Unicode annex 29)."""
    before, after = text[place - 1], text[place]
    if unicodedata.category(after) in ("Mn", "Me", "Mc") or ZERO_WIDTH_JOINER in (before, after):
        return False
    if "\U0001f3fb" <= after <= "\U0001f3ff" or "\U000e0020" <= after <= "\U000e007f":  # skin tones, flag tags
        return False
    if is_jamo(before) and "\u1160" <= after <= "\u11ff":  # a Korean syllable spelled in its letters
        return False
    if is_regional_indicator(before) and is_regional_indicator(after):  # flags are pairs of them
        first = place - 1
        while first > max(0, place - FLAG_REACH_CHARACTERS) and is_regional_indicator(text[first - 1]):
            first -= 1
        return (place - first) % 2 == 0
    return True


def is_jamo(character: str) -> bool:
    return "\u1100" <= character <= "\u11ff"


def is_regional_indicator(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"
