"""HTML and XML in pieces: text, tags, and what is not for translation.

Knows: what a tag looks like, and which elements HTML takes for words and which for paragraphs. Does not know: what
becomes of the pieces. Joined, they are the text again. Nothing is refused: what is no tag is text.
"""

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

# A ">" in an attribute's quotes does not end a tag; where quotes are not closed, the first one does. Names of digits
# alone are those of message catalogues ("<1>terms</1>"); they are names where they are closed.
_NAME = r"(?P<name>[a-z][^\s/<>\"']*+|\d{1,2}+(?=/?>))"
_TAG = re.compile(rf"<(?P<close>/?){_NAME}(?:[^<>\"']++|\"[^\"]*+\"|'[^']*+')*+>", re.IGNORECASE)
_CARELESS_TAG = re.compile(rf"<(?P<close>/?){_NAME}[^<>]*+>", re.IGNORECASE)
_NOT_TRANSLATED = re.compile(
    r"\stranslate\s*=\s*[\"']?no\b|\sclass\s*=\s*(?:\"[^\"]*\bnotranslate\b|'[^']*\bnotranslate\b|notranslate\b)",
    re.IGNORECASE,
)
_BEGIN = re.compile(r"<[a-z0-9/!?]", re.IGNORECASE)
# What begins so ends so, whatever is between.
_ENDS: Final = {"<!--": "-->", "<![CDATA[": "]]>", "<?": "?>", "<!": ">"}


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


BLOCKS: Final = _names(
    "address area article aside audio base blockquote body br button canvas caption center col colgroup datalist dd "
    "details dialog dir div dl dt embed fieldset figcaption figure footer form frame frameset h1 h2 h3 h4 h5 h6 head "
    "header hgroup hr html iframe legend li link main map menu meta nav noframes noscript object ol optgroup option p "
    "param picture pre search section select source summary table tbody td template textarea tfoot th thead title tr "
    "track ul video"
)
VOID: Final = _names("img input wbr")  # those of BLOCKS are breaks in any case
UNTRANSLATED: Final = _names("code kbd math samp script style svg tt var")
MAX_MISSING: Final = 100  # of so many things looked for in vain no more are looked for: time stays linear
PREFORMATTED: Final = frozenset(["pre", "textarea"])


class Kind(enum.Enum):
    """What a piece is. ALONE: something within a sentence that stays as it is. BREAK: between two sentences."""

    TEXT = "text"
    OPEN = "open"
    CLOSE = "close"
    ALONE = "alone"
    BREAK = "break"


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the text as it stands there; ``name`` of a tag's element, in lower case."""

    kind: Kind
    raw: str
    name: str = ""


def pieces(html: str) -> Iterator[Piece]:
    """The pieces of a text, in order; time is linear in it."""
    return _Reader(html).pieces()


class _Reader:
    """Where one text is read; remembers what it has looked for in vain, so that nothing is looked for twice."""

    def __init__(self, html: str) -> None:
        self.html = html
        self.missing, self.found = set[str](), set[str]()

    def pieces(self) -> Iterator[Piece]:
        done = position = 0
        while begin := _BEGIN.search(self.html, position):
            start = begin.start()
            found = self.special(start) or self.tag(start)
            if found is None:
                position = start + 1
                continue
            if start > done:
                yield Piece(Kind.TEXT, self.html[done:start])
            yield found
            done = position = start + len(found.raw)
        if done < len(self.html):
            yield Piece(Kind.TEXT, self.html[done:])

    def special(self, start: int) -> Piece | None:
        """A comment, a declaration, an instruction, a CDATA section."""
        for begin, end in _ENDS.items():
            if self.html.startswith(begin, start) and begin not in self.missing:
                stop = self.html.find(end, start + len(begin))
                if stop >= 0:
                    return Piece(Kind.ALONE, self.html[start : stop + len(end)])
                self.missing.add(begin)
        return None

    def tag(self, start: int) -> Piece | None:
        """A tag, or a whole element that is not translated."""
        match = _TAG.match(self.html, start) or _CARELESS_TAG.match(self.html, start)
        if match is None:
            return None
        raw, name = match[0], match["name"].lower()
        if name.isdigit() and not raw.endswith("/>") and self.is_missing(f"</{name}>"):
            return None
        if not match["close"] and not raw.endswith("/>"):
            is_kept = name in UNTRANSLATED or _NOT_TRANSLATED.search(raw) is not None
            if is_kept and name not in self.missing and len(self.missing) < MAX_MISSING:
                stop = self.end_of_element(name, match.end())
                if stop is not None:
                    return Piece(Kind.BREAK if name in BLOCKS else Kind.ALONE, self.html[start:stop], name)
                self.missing.add(name)
        if name in BLOCKS:
            return Piece(Kind.BREAK, raw, name)
        if name in VOID or raw.endswith("/>"):
            return Piece(Kind.ALONE, raw, name)
        return Piece(Kind.CLOSE if match["close"] else Kind.OPEN, raw, name)

    def is_missing(self, part: str) -> bool:
        if part not in self.missing and part not in self.found:
            (self.found if part in self.html else self.missing).add(part)
        return part in self.missing

    def end_of_element(self, name: str, position: int) -> int | None:
        """Where the element ends whose content begins at ``position``; None where it does not."""
        is_script = name in ("script", "style")  # their content has no tags, whatever it looks like
        depth = 1
        for match in re.compile(rf"<(/?){re.escape(name)}(?![^\s/>])[^<>]*+>", re.IGNORECASE).finditer(
            self.html, position
        ):
            if match[1]:
                depth -= 1
            elif not is_script and not match[0].endswith("/>"):
                depth += 1
            if depth == 0:
                return match.end()
        return None
