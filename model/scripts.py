"""Which script letters are of. Knows: Unicode's names of characters. Does not know: corpora."""

import sys
import unicodedata
from functools import cache, lru_cache


@lru_cache(maxsize=65_536)
def script_of(character: str) -> str:
    """The script of a letter, as its Unicode name begins: latin, cyrillic, greek, cjk, hiragana, arabic ..."""
    return unicodedata.name(character, "unknown").partition(" ")[0].lower()


def is_in_script(text: str, scripts: str) -> bool:
    """Whether at least half of the letters of ``text`` are of ``scripts``, names with spaces between."""
    letters = [character for character in text if character.isalpha()]
    wanted = scripts.lower().split()
    return 2 * sum(script_of(letter) in wanted for letter in letters) >= len(letters)


@cache
def known_scripts() -> frozenset[str]:
    """All names that script_of() gives letters; about half a second the first time."""
    every = map(chr, range(sys.maxunicode + 1))
    return frozenset(unicodedata.name(c, "unknown").partition(" ")[0].lower() for c in every if c.isalpha())
