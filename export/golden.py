"""Golden translations: what a bundle must say again on every machine, chosen so that rounding cannot change them.

Knows: how clear a search's decisions were. Does not know: files, verification.
"""

from collections.abc import Sequence

from torch import Tensor

from export.graph_runner import GraphRunner
from model.reference_decode import Extend, constrained, search_beams, search_greedily, with_penalties
from service.runtime.bundle import Decoding, Golden, Language
from service.runtime.tokenizer import Tokenizer
from service.text.capitals import is_in_capitals
from service.text.reading import Reading
from service.text.splitter import TextSplitter

NUM_BEAMS, MAX_GOLDEN, MAX_LENGTH = 4, 4, 60
# Natural logarithms. Another processor's rounding moves int8 log-probabilities by a few hundredths.
GREEDY_MARGIN, BEAM_MARGIN = 0.25, 0.05


class ClearestGap:
    """Wraps an Extend and remembers the smallest gap between the best and the second-best token."""

    def __init__(self, extend: Extend) -> None:
        self.extend, self.smallest = extend, float("inf")

    def __call__(self, ids: list[int], count: int) -> tuple[Tensor, Tensor]:
        values, tokens = self.extend(ids, max(count, 2))
        self.smallest = min(self.smallest, float(values[0] - values[1]))
        return values[:count], tokens[:count]


def extend_with_penalties(
    runner: GraphRunner, source: Sequence[int], length: int, end: int, decoding: Decoding
) -> Extend:
    """Next tokens of ``source`` by the graphs, for at most ``length`` tokens, with what the model's authors chose of
    no_repeat_ngram_size and min_length."""
    extend: Extend = runner.extend_with(source, length)
    ngram, least = decoding.no_repeat_ngram_size, decoding.min_length
    return with_penalties(extend, end, runner.shape.vocab_size, ngram, 1.0, least) if ngram or least else extend


def single_sentences(texts: Sequence[str], tokenizer: Tokenizer, language: str, max_tokens: int) -> list[str]:
    """Those of ``texts`` that the service takes for one sentence, of at most ``max_tokens``, with nothing around it: of
    others a bundle cannot say what the service will answer. None in capitals: some models read these otherwise."""
    splitter = TextSplitter(language, max_tokens, tokenizer.encode)
    return [text for text in texts if splitter.split(text).sentences == (text,) and not is_in_capitals(text)]


def golden_translations(
    runner: GraphRunner,
    tokenizer: Tokenizer,
    precision: str,
    texts: Sequence[str],
    max_target_tokens: int,
    languages: tuple[Language, Language],
    decoding: Decoding,
) -> list[Golden]:
    """Up to MAX_GOLDEN texts whose greedy and beam translations are clear, with their token ids.

    Args:
        texts: single_sentences(). languages: source and target, the model's first. decoding: what the model demands of
            every search.
    """
    golden: list[Golden] = []
    last = tokenizer.end if decoding.force_end else None
    prefix = [*languages[1].prefix, *languages[0].prefix]
    reading = Reading(plain_quotes=decoding.plain_quotes)
    for text, ids in zip(texts, tokenizer.encode([reading.read(text) for text in texts]), strict=True):
        source = [*prefix, *ids, tokenizer.end]
        length = min(decoding.max_length or 3 * len(source) + 16, max_target_tokens)
        rules = (languages[1].first, decoding.banned, last, length)
        gap = ClearestGap(extend_with_penalties(runner, source, length, tokenizer.end, decoding))
        greedy = search_greedily(constrained(gap, *rules), tokenizer.end, length, source)
        extend = constrained(extend_with_penalties(runner, source, length, tokenizer.end, decoding), *rules)
        stop = decoding.stop_at_beams
        beams = search_beams(extend, tokenizer.end, length, NUM_BEAMS, source=source, stop_at_beams=stop)
        ended = greedy.ids[-1] == beams[0].ids[-1] == tokenizer.end and len(greedy.ids) <= MAX_LENGTH
        clear = gap.smallest > GREEDY_MARGIN and len(beams) > 1 and beams[0].score - beams[1].score > BEAM_MARGIN
        if ended and clear:
            golden.append(Golden(precision, text, 1, tuple(greedy.ids)))
            golden.append(Golden(precision, text, NUM_BEAMS, tuple(beams[0].ids)))
        if len(golden) >= 2 * MAX_GOLDEN:
            break
    return golden
