"""Pairs made of pairs: what people write, and parallel text has little of.

Knows: text, characters. Does not know: files, token ids, languages but for what both sides share.

A corpus with ``variant`` set stands beside the corpus itself, with a weight of its own. What a pair becomes depends on
the pair, its line and the lines before it, so that preparing it again gives the same. A pair whose source would stay as
it is gives none: a text in Japanese has no capitals, and to shout its translation would be to shout by chance.

    capitals     THE DOOR IS OPEN.           LA PORTE EST OUVERTE.
    lowercase    the door is open            la porte est ouverte
    title        The Door Is Open            La porte est ouverte
    typographic  quotes, apostrophes, dashes and dots of word processors; the target stays as it is
    numbers      He has 31 sons.             Il a 31 fils.                  from 3 sons: digits both sides have
    copies       The door is open (a@b.org)  La porte est ouverte (a@b.org) addresses, codes, placeholders, numbers

One in four of the copies is an address or code alone: a corpus of them wants drop_copies = false.
"""

import random
import re
import string
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator

Pair = tuple[str, str]

VARIANTS_VERSION = 3  # another one where the same pair becomes something else

NOTHING: Pair = ("", "")
"""Stands for a pair of which a variant can make nothing."""
RECENT_WORDS = 1000
KNOWN_WORDS = 100_000
FINAL_PUNCTUATION = re.compile("\\s*[.!?\\u2026\\u3002\\uff01\\uff1f\\u0964]+\\s*$")
DOUBLE_QUOTED, SINGLE_QUOTED = re.compile('"([^"]*)"'), re.compile(r"(?<!\w)'([^']*)'(?!\w)")
OPENING = re.compile(r"(?<!\S)'(?=\w)")  # of a quotation with an apostrophe in it, or over several lines
WORD = re.compile(r"[^\W\d_]+")
INNER_WORD = re.compile(r"(?<=[\w,;] )[^\W\d_]+")  # not those that may begin a sentence, or what somebody says
LONGEST_TITLE, SMALL_WORD = 12, 3  # words; letters
DIGITS = re.compile(r"\d+(?!\d|(?:st|nd|rd|th)\b)")  # another number may have another ending: no 32st
ENDINGS = ("com", "org", "net", "fr", "de", "eu", "co.uk", "io")
SYMBOLS = "\u2192\u2022\u2713\u2605\u2665\u00a9\u00ae\u00b0\u00a7\u20ac\u00a3\u2190\u2714\u26a0\u2764"
FILE_TYPES = ("pdf", "txt", "png", "docx", "csv", "py", "html", "zip")


def capitals(source: str, target: str, _: random.Random) -> Pair:
    return NOTHING if source.upper() == source else (source.upper(), target.upper())


class Lowercase:
    """Without capitals and without the end of the sentence.

    The target keeps its names: whatever begins with a capital past its first word, and a first word that most targets
    so far write with a capital inside of a sentence (I, German nouns), or that the source has, too, if none has it yet.
    """

    def __init__(self) -> None:
        self.capitals: Counter[str] = Counter()  # how much more often a word has a capital than none

    def __call__(self, source: str, target: str, _: random.Random) -> Pair:
        self.learn(target)
        bare_source, bare_target = (FINAL_PUNCTUATION.sub("", side) for side in (source, target))
        had_capitals = bare_source != bare_source.lower()
        if had_capitals and not self.is_name(bare_target, bare_source):
            bare_target = bare_target[:1].lower() + bare_target[1:]
        varied = bare_source.lower(), bare_target
        return NOTHING if "" in varied or varied[0] == source else varied

    def learn(self, target: str) -> None:
        for word in INNER_WORD.findall(target):
            if word.lower() in self.capitals or len(self.capitals) < KNOWN_WORDS:
                self.capitals[word.lower()] += 1 if word[0].isupper() else -1

    def is_name(self, text: str, source: str) -> bool:
        """Whether the first word of ``text`` has its capital not only for being the first."""
        first = WORD.match(text)
        balance = self.capitals[first.group().lower()] if first else 0
        return balance > 0 or (balance == 0 and text.partition(" ")[0] in source.split())


def title(source: str, target: str, rng: random.Random) -> Pair:
    """The source as a headline or a button, the target without the end of the sentence."""
    bare_source, bare_target = (FINAL_PUNCTUATION.sub("", side) for side in (source, target))
    words = bare_source.split(" ")
    last = len(words) - 1
    if last >= LONGEST_TITLE:
        return NOTHING
    large = [
        word if 0 < place < last and len(word) <= SMALL_WORD and rng.random() < 0.7 else word[:1].upper() + word[1:]
        for place, word in enumerate(words)
    ]
    varied = " ".join(large), bare_target
    return NOTHING if "" in varied or varied[0] == source else varied


def typographic(source: str, target: str, rng: random.Random) -> Pair:
    """Quotes, apostrophes, dashes and dots of the source as word processors and telephones make them."""
    dash = rng.choice((" \u2013 ", " \u2014 ", "\u2014"))
    made = DOUBLE_QUOTED.sub("\u201c\\1\u201d", source)
    made = OPENING.sub("\u2018", SINGLE_QUOTED.sub("\u2018\\1\u2019", made)).replace("'", "\u2019")
    made = made.replace(" - ", dash).replace("...", "\u2026")
    return NOTHING if made == source else (made, target)


def numbers(source: str, target: str, rng: random.Random) -> Pair:
    """Other digits at the same places of both sides, mostly as many."""
    found = DIGITS.findall(source)
    if not found or sorted(found) != sorted(DIGITS.findall(target)):
        return NOTHING
    drawn = {old: other_number(old, rng) for old in dict.fromkeys(found)}
    source, target = (DIGITS.sub(lambda match: drawn[match.group()], side) for side in (source, target))
    return source, target


def other_number(old: str, rng: random.Random) -> str:
    """One that takes the same plural: 0 and 1 stay."""
    if old in ("0", "1"):
        return old
    if len(old) == 3 or old.startswith("0"):  # a group of thousands, cents, a code: what it is shows in its length
        return digits(len(old), rng)
    if len(old) == 4:  # mostly a year
        return str(rng.randrange(1000, 10000))
    size = max(1, len(old) + rng.choice((-1, 0, 0, 0, 1)))
    return str(rng.randrange(max(2, 10 ** (size - 1)), 10**size))


def digits(count: int, rng: random.Random) -> str:
    return "".join(rng.choices(string.digits, k=count))


class Copies:
    """Puts what no one translates into a pair, or beside it.

    Its words are those of the latest sources, and letters by chance.
    """

    def __init__(self) -> None:
        self.words: deque[str] = deque(maxlen=RECENT_WORDS)

    def __call__(self, source: str, target: str, rng: random.Random) -> Pair:
        self.words.extend(word for word in re.findall(r"[A-Za-z]+", source) if len(word) > 2)
        kinds = (self.address, self.mail, self.code, self.number, self.placeholder, self.file, self.symbol)
        unit = rng.choice(kinds)(rng)
        ends = [FINAL_PUNCTUATION.search(side) for side in (source, target)]
        where = rng.randrange(4)
        if where == 0 or not source.strip() or not target.strip():
            return unit, unit
        if where == 1:
            return f"{unit} {source}", f"{unit} {target}"
        if where == 2 and ends[0] and ends[1]:  # before the end of the sentence
            source_end, target_end = ends[0], ends[1]
            return (
                f"{source[: source_end.start()]} ({unit}){source_end.group()}",
                f"{target[: target_end.start()]} ({unit}){target_end.group()}",
            )
        return f"{source} {unit}", f"{target} {unit}"

    def word(self, rng: random.Random) -> str:
        if self.words and rng.random() < 0.7:
            return rng.choice(self.words).lower()
        return "".join(rng.choices(string.ascii_lowercase, k=rng.randrange(2, 9)))

    def domain(self, rng: random.Random) -> str:
        return f"{self.word(rng)}{rng.choice(('', '', '-' + self.word(rng)))}.{rng.choice(ENDINGS)}"

    def address(self, rng: random.Random) -> str:
        start = rng.choice(("https://", "http://", "https://www.", "www."))
        path = "".join(f"/{self.word(rng)}" for _ in range(rng.randrange(3)))
        return start + self.domain(rng) + path + rng.choice(("", "", "/", ".html", f"?id={digits(3, rng)}"))

    def mail(self, rng: random.Random) -> str:
        name = self.word(rng) + rng.choice(("", f".{self.word(rng)}", f"_{self.word(rng)}", digits(2, rng)))
        return rng.choice((f"{name}@{self.domain(rng)}", f"@{name}", f"#{name}"))

    def code(self, rng: random.Random) -> str:
        letters = "".join(rng.choices(string.ascii_uppercase, k=rng.randrange(1, 5)))
        return rng.choice(
            (
                f"{letters}-{digits(rng.randrange(1, 5), rng)}",
                f"{letters}{digits(rng.randrange(1, 5), rng)}",
                f"v{rng.randrange(10)}.{rng.randrange(30)}.{rng.randrange(10)}",
                f"{letters}{rng.randrange(1, 10)}-{digits(4, rng)}/{digits(2, rng)}",
            )
        )

    def number(self, rng: random.Random) -> str:
        count = rng.randrange(1, 7)
        return rng.choice(
            (
                str(rng.randrange(10 ** (count - 1), 10**count)),
                f"{rng.randrange(100)}-{rng.randrange(100)}",
                f"{digits(3, rng)}-{digits(4, rng)}",
                f"{rng.randrange(24):02}:{rng.randrange(60):02}",
                f"{rng.randrange(1000, 3000)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}",
                f"{rng.randrange(1, 29)}/{rng.randrange(1, 13)}/{rng.randrange(1900, 2100)}",
            )
        )

    def placeholder(self, rng: random.Random) -> str:
        word = self.word(rng)
        return rng.choice((f"{{{word}}}", f"{{{rng.randrange(10)}}}", "%s", "%d", f"%({word})s", f"${{{word}}}"))

    def symbol(self, rng: random.Random) -> str:
        """Often an emoji."""
        return rng.choice(
            (chr(rng.randrange(0x1F300, 0x1F650)), rng.choice(SYMBOLS), chr(rng.randrange(0x1F600, 0x1F645)))
        )

    def file(self, rng: random.Random) -> str:
        name = rng.choice((self.word(rng), f"{self.word(rng)}_{self.word(rng)}", f"{self.word(rng)}-{digits(2, rng)}"))
        folder = rng.choice(("", "", f"/{self.word(rng)}/", f"/{self.word(rng)}/{self.word(rng)}/", "C:\\"))
        return f"{folder}{name}.{rng.choice(FILE_TYPES)}"


MAKERS: dict[str, Callable[[], Callable[[str, str, random.Random], Pair]]] = {
    "capitals": lambda: capitals,
    "lowercase": Lowercase,
    "title": lambda: title,
    "typographic": lambda: typographic,
    "numbers": lambda: numbers,
    "copies": Copies,
}


def varied(pairs: Iterable[Pair], variant: str) -> Iterator[Pair]:
    """The ``variant`` of each pair, in order; NOTHING where it has none."""
    vary = MAKERS[variant]()
    for number, (source, target) in enumerate(pairs):
        yield vary(source, target, random.Random(f"{variant} {number}"))
