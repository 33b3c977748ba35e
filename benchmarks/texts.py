"""Sentences to translate, with references, from the folder that DRAGOMAN_DATA names.

Knows: files. Does not know: models.
"""

import gzip
import os
import random
import sys
from pathlib import Path
from typing import NamedTuple

VARIABLE = "DRAGOMAN_DATA"
KINDS = ("tatoeba", "europarl", "news", "mixed")


class Pairs(NamedTuple):
    """English sentences and what people made of them in French."""

    sources: list[str]
    references: list[str]


def root(part: str) -> Path:
    """The folder of all texts; ends the program where there is none, or no ``part`` in it."""
    value = os.environ.get(VARIABLE, "")
    if not value or not Path(value, part).is_dir():
        sys.exit(f"this benchmark needs texts: set {VARIABLE} to the folder that holds {part}/")
    return Path(value)


def lines(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [line.rstrip("\n") for line in file]


def read(kind: str) -> Pairs:
    """All pairs of one kind: everyday sentences, speeches, news, or a third of each."""
    texts = root("en-fr")
    if kind == "tatoeba":
        pairs = [line.split("\t") for line in lines(texts / "en-fr" / "tatoeba.test.tsv.gz")]
        return Pairs([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    if kind == "europarl":
        stem = texts / "en-fr" / "europarl.dev"
    elif kind == "news":
        stem = texts / "eval" / "newstest2013.en-fr"
    else:
        raise ValueError(f"texts must be one of {', '.join(KINDS)}, not {kind!r}")
    return Pairs(lines(Path(f"{stem}.en.gz")), lines(Path(f"{stem}.fr.gz")))


def choose(kind: str, count: int, seed: int) -> Pairs:
    """``count`` pairs drawn without repetition, the same for the same seed."""
    kinds = KINDS[:3] if kind == "mixed" else (kind,)
    chosen: list[tuple[str, str]] = []
    rng = random.Random(seed)
    for i, each in enumerate(kinds):
        pairs = list(zip(*read(each), strict=True))
        wanted = count // len(kinds) + (i < count % len(kinds))
        if wanted > len(pairs):
            sys.exit(f"{count} texts of kind {kind!r} are wanted; of {each!r} there are {len(pairs)}, not {wanted}")
        chosen += rng.sample(pairs, wanted)
    rng.shuffle(chosen)
    return Pairs([source for source, _ in chosen], [reference for _, reference in chosen])


# Scripts, control and format characters, combining marks, symbols: first and last code points.
ODD_RANGES = (
    *((0x20, 0x7E), (0x00, 0x1F), (0x7F, 0xA0), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x4FF), (0x590, 0x6FF)),
    *((0x900, 0x97F), (0x2000, 0x206F), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xE000, 0xE0FF)),
    *((0xFB00, 0xFB4F), (0xFF00, 0xFFEF), (0x1F300, 0x1FAFF)),
)
ODD_LINES = (
    *("", " ", "\t", "\n", "\u200b", "\ufeff", "a\x00b", "\x07", "\u2581", "\u2581\u2581a", "  two  spaces  "),
    *("\ufb01 \ufb03 \xbd \u2460", "e\u0301 \xe9", "\uff26\uff35\uff2c\uff2c", "\u202eabc", "</s>", "<unk> <pad>"),
    *(
        "\U0001f600",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467 fam\xedlia",
        "\u65e5\u672c\u8a9e and \u0440\u0443\u0441",
    ),
)


def odd_lines(count: int, seed: int) -> list[str]:
    """What hardly anybody translates, all different: control characters, emoji, up to four scripts in a line."""
    rng, lines = random.Random(seed), dict.fromkeys(ODD_LINES)
    while len(lines) < count:
        chosen = rng.sample(ODD_RANGES, rng.randint(1, 4))
        letters = (chr(rng.randint(*rng.choice(chosen))) if rng.random() < 0.85 else " " for _ in range(60))
        lines["".join(letters)[: rng.randint(1, 60)]] = None
    return list(lines)[:count]
