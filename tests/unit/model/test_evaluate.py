"""Scores that are known."""

import pytest

from model.evaluate import score


def test_perfect() -> None:
    lines = ["Le chat est sur le tapis .", "Il pleut depuis ce matin ."]
    scores = score(lines, lines)
    assert scores.bleu == pytest.approx(100)
    assert scores.chrf == pytest.approx(100)
    assert scores.num_sentences == 2


def test_signatures_tell_how() -> None:
    scores = score(["a b c d e"], ["a b c d f"])
    assert "tok:13a" in scores.bleu_signature
    assert "case:mixed" in scores.bleu_signature
    assert "version:" in scores.bleu_signature
    assert "nc:6|nw:0" in scores.chrf_signature


def test_bleu_by_hand() -> None:
    """One of five words is wrong: precisions 4/5, 3/4, 2/3, 1/2, no brevity penalty."""
    expected = 100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert score(["a b c d e"], ["a b c d f"]).bleu == pytest.approx(expected)


def test_nothing_or_not_as_many() -> None:
    with pytest.raises(ValueError, match="nothing to score"):
        score([], [])
    with pytest.raises(ValueError, match="1 translations for 2 references"):
        score(["a"], ["a", "b"])
