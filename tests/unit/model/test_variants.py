"""Pairs made of pairs: each variant's rule, on any text, and that preparing them again gives the same."""

import random
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.config import CorpusConfig
from model.corpus import CorpusError, fit_pairs, read_pairs, sample_pairs
from model.sections import TrainingConfigError
from model.token_store import fingerprint
from model.variants import MAKERS, NOTHING, varied
from service.runtime.tokenizer import Tokenizer

PAIRS = [
    ("The door is open.", "La porte est ouverte."),
    ("Tom saw Mary in Paris!", "Tom a vu Marie à Paris !"),
    ("He has 3 sons since 1998.", "Depuis 1998, il a 3 fils."),
    ("It costs 1,250 euros.", "Cela coûte 1 250 euros."),
    ("Two", "Deux"),
]
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\n\r\t"), max_size=40)


def made(variant: str, pair: tuple[str, str]) -> tuple[str, str]:
    return next(varied([pair], variant))


@pytest.mark.parametrize(
    ("variant", "pair", "expected"),
    [
        ("capitals", PAIRS[0], ("THE DOOR IS OPEN.", "LA PORTE EST OUVERTE.")),
        ("capitals", ("I", "42"), NOTHING),
        ("capitals", ("\u5f7c\u306f\u6765\u305f\u3002", "He came."), NOTHING),
        ("capitals", ("NASA", "La NASA"), NOTHING),
        ("lowercase", ("\u5f7c\u306f\u6765\u305f", "He came."), NOTHING),
        ("lowercase", ("\u5f7c\u306f\u6765\u305f\u3002", "He came."), ("\u5f7c\u306f\u6765\u305f", "He came")),
        ("lowercase", ("wait", "Attends"), NOTHING),
        ("lowercase", PAIRS[0], ("the door is open", "la porte est ouverte")),
        ("lowercase", PAIRS[1], ("tom saw mary in paris", "Tom a vu Marie à Paris")),
        ("lowercase", ("two", "deux"), NOTHING),
        ("lowercase", ("?!", "…"), NOTHING),
        ("title", ("where does John live?", "où vit John ?"), ("Where Does John Live", "où vit John")),
        ("title", ("a " * 20, "un " * 20), NOTHING),
        (
            "typographic",
            ('It\'s "open", he said...', "C'est."),
            ("It\u2019s \u201copen\u201d, he said\u2026", "C'est."),
        ),
        ("typographic", ("The boys' 'car'", "x"), ("The boys\u2019 \u2018car\u2019", "x")),
        ("typographic", ("He said: 'I don't know.'", "x"), ("He said: \u2018I don\u2019t know.\u2019", "x")),
        ("typographic", PAIRS[0], NOTHING),
        ("numbers", PAIRS[0], NOTHING),
        ("numbers", ("On May 21st, at 10th Street", "Am 21. Mai, 10. Stra\u00dfe"), NOTHING),
        ("numbers", ("The 3rd", "The 3rd"), NOTHING),
        ("numbers", ("He has 3 sons.", "Il a trois fils."), NOTHING),
        ("numbers", ("1 of 2", "1 sur 2, 2"), NOTHING),
    ],
)
def test_what_becomes_of_a_pair(variant: str, pair: tuple[str, str], expected: tuple[str, str]) -> None:
    assert made(variant, pair) == expected


@pytest.mark.parametrize(
    ("before", "pair", "expected"),
    [
        (["Ja, ich bin da."], ("I am here.", "Ich bin da."), "ich bin da"),
        (["Do you know that I am here?", "You and I."], ("Ich bin's.", "I'm here."), "I'm here"),
        (["Alle Kinder schlafen."], ("Children play.", "Kinder spielen."), "Kinder spielen"),
        (["Er sagt: Ich bin da. Ich komme.", "Er sagt, ich sei da."], ("I am here.", "Ich bin da."), "ich bin da"),
        (["Tom ist in Rom."], ("In 1999 I was in Rome.", "In Rom war ich 1999."), "in Rom war ich 1999"),
        (["Die neuen EU-Mittel."], ("Countries of the EU.", "EU-Mitglieder."), "EU-Mitglieder"),
    ],
)
def test_lowercase_leaves_what_is_always_written_with_a_capital(
    before: list[str], pair: tuple[str, str], expected: str
) -> None:
    *_, (_, target) = varied([*(("", text) for text in before), pair], "lowercase")
    assert target == expected


def test_numbers_are_the_same_on_both_sides_and_others_than_before() -> None:
    for seed in range(50):
        filler = [("", "")] * seed  # another line, another number
        source, target = list(varied([*filler, PAIRS[2]], "numbers"))[-1]
        sons, year = re.fullmatch(r"He has (\d+) sons since (\d{4})\.", source).groups()  # type: ignore[union-attr]
        assert target == f"Depuis {year}, il a {sons} fils."
        assert int(sons) >= 2, "one son would be another word"
    assert len({list(varied([("", "")] * seed + [PAIRS[2]], "numbers"))[-1] for seed in range(50)}) > 20


def test_a_group_of_thousands_stays_one() -> None:
    source, target = made("numbers", PAIRS[3])
    found = re.fullmatch(r"It costs (\d+),(\d{3}) euros\.", source)
    assert found
    assert target == f"Cela coûte {found[1]} {found[2]} euros."
    assert made("numbers", ("1 of 0.50", "1 de 0,50"))[0].startswith("1 of 0.")


@pytest.mark.parametrize("variant", MAKERS)
@given(source=TEXTS, target=TEXTS)
def test_any_text_gives_a_pair_or_nothing(variant: str, source: str, target: str) -> None:
    found = made(variant, (source, target))
    assert found == NOTHING or found[0] != source or variant == "numbers", "one source, two translations"
    assert not any(character in side for side in found for character in "\n\r\t")


@given(source=TEXTS, target=TEXTS, line=st.integers(0, 20))
def test_a_copy_stands_on_both_sides(source: str, target: str, line: int) -> None:
    before = [(f"some words come before line {i}", "") for i in range(line)]
    found_source, found_target = list(varied([*before, (source, target)], "copies"))[-1]
    if found_source == found_target and not (source.strip() and source == target):
        assert found_source.strip()  # the copy alone
        return
    added = set(found_source.split()) & set(found_target.split())
    assert added, (found_source, found_target)


@pytest.mark.parametrize("variant", MAKERS)
def test_prepared_again_it_is_the_same(variant: str) -> None:
    random.seed(1)
    first = list(varied(PAIRS * 20, variant))
    random.seed(2)
    assert list(varied(PAIRS * 20, variant)) == first
    assert len(first) == len(PAIRS) * 20  # a line each, so that messages name the right one


def test_a_corpus_of_variants_beside_its_corpus(tmp_path: Path, tokenizer: Tokenizer) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_text("".join(f"{source}\t{target}\n" for source, target in PAIRS), encoding="utf-8")
    plain = CorpusConfig(name="plain", tsv=str(file))
    numbers = CorpusConfig(name="numbers", tsv=str(file), variant="numbers", max_length_ratio=50)
    assert list(read_pairs(plain)) == PAIRS
    assert [pair != NOTHING for pair in read_pairs(numbers)] == [False, False, True, True, False]
    counts: Counter[str] = Counter()
    dropped: list[tuple[int, str]] = []
    kept = list(fit_pairs(read_pairs(numbers), numbers, tokenizer, counts, lambda *what: dropped.append(what)))
    assert len(kept) == counts["kept"] == 2
    assert counts["no_variant"] == 3
    assert dropped == [(1, "no_variant"), (2, "no_variant"), (5, "no_variant")]
    assert fingerprint(plain, tokenizer) != fingerprint(numbers, tokenizer)


def test_a_corpus_without_any_variant_is_not_said_to_have_no_text(tmp_path: Path) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_text("\u5f7c\u306f\u6765\u305f\u3002\tHe came.\n", encoding="utf-8")
    corpus = CorpusConfig(name="loud", tsv=str(file), variant="capitals")
    with pytest.raises(CorpusError, match="'loud': .* nothing of which variant capitals makes a pair in .*pairs.tsv"):
        sample_pairs(corpus, 10, random.Random(1))


def test_an_unknown_variant_is_named() -> None:
    with pytest.raises(
        TrainingConfigError,
        match=r"variant \('upper'\) must be capitals, lowercase, title, typographic, numbers, copies",
    ):
        CorpusConfig(name="a", tsv="a.tsv", variant="upper")
