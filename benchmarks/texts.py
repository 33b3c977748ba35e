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
        chosen += rng.sample(pairs, wanted)
    rng.shuffle(chosen)
    return Pairs([source for source, _ in chosen], [reference for _, reference in chosen])
