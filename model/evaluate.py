"""How good translations are: sacreBLEU and chrF, with the signatures that make a number comparable.

Knows: hypotheses and references. Does not know: what translated them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF


@dataclass(frozen=True, slots=True)
class Scores:
    """Corpus scores of one set of translations, both from 0 to 100, higher is better."""

    bleu: float
    """sacreBLEU (Post 2018): 13a tokens, cased, on detokenised text."""
    chrf: float
    """chrF2 (Popovic 2015): F-score of character n-grams."""
    bleu_signature: str
    """How bleu was counted, in sacreBLEU's words."""
    chrf_signature: str
    """How chrf was counted."""
    num_sentences: int
    """Lines compared."""


def score(hypotheses: Sequence[str], references: Sequence[str]) -> Scores:
    """Scores of translations against one reference each.

    Raises:
        ValueError: there are none, or not as many of one as of the other.
    """
    if len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses)} translations for {len(references)} references")
    if not hypotheses:
        raise ValueError("there is nothing to score")
    bleu, chrf = BLEU(), CHRF()
    bleu_score = bleu.corpus_score(list(hypotheses), [list(references)]).score
    chrf_score = chrf.corpus_score(list(hypotheses), [list(references)]).score
    signatures = str(bleu.get_signature()), str(chrf.get_signature())
    return Scores(float(bleu_score), float(chrf_score), *signatures, num_sentences=len(hypotheses))
