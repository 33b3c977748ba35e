"""What is asked of the scorer and what it answers: given translations and what each of their tokens looked at.

Knows: pairs, spans, attention. Does not know: threads, ONNX, gRPC.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.engine.request import AlignmentLink, Sentence
from service.errors import RequestError
from service.runtime.score_session import Scored
from service.runtime.spans import Span

# A share of attention below this is no link, unless it is a token's largest: the rest is spread over all tokens.
MIN_WEIGHT = 0.1

ScoredAnswer = Scored | RequestError


@dataclass(slots=True, eq=False)
class Pair(Sentence):
    """A source and a given target on their way through the scorer; as a Sentence it waits in a RequestQueue.

    Attributes:
        target: token ids, never empty. on_scored: called exactly once with this pair, on the scorer's thread or on one
            that closes it, instead of on_done, which nobody calls. started_at: when its batch began, monotonic seconds.
            translated: the sentence whose translation is to be aligned; who cancels it waits for neither.
    """

    target: tuple[int, ...] = ()
    on_scored: Callable[["Pair", ScoredAnswer], None] = print
    started_at: float = 0.0
    translated: Sentence | None = None

    @property
    def is_cancelled(self) -> bool:
        return self.cancelled or (self.translated is not None and self.translated.cancelled)


@dataclass(frozen=True, slots=True)
class TokenScore:
    """One token of a given translation: its log-probability in nats, and where it stands in the target."""

    id: int
    log_probability: float
    span: Span


@dataclass(frozen=True, slots=True)
class PairResult:
    """How probable a given translation is.

    Attributes:
        score: log_probability / length ** length_penalty, as the search counts it: with the tokens that the model puts
            before every translation. tokens: of the target without these, the end token last.
        queue_s, score_s: seconds from submission to the start of its batch, and from there to its end.
    """

    score: float
    log_probability: float
    tokens: tuple[TokenScore, ...]
    alignment: tuple[AlignmentLink, ...]
    queue_s: float
    score_s: float


PairAnswer = PairResult | RequestError


def links(
    alignment: NDArray[np.float32],
    source_spans: Sequence[Span],
    target_spans: Sequence[Span],
    starts: tuple[int, int] = (0, 0),
) -> list[AlignmentLink]:
    """What each target token looked at: every part of the source with at least MIN_WEIGHT, the heaviest in any case.

    Args:
        alignment: (T, S), its first rows and columns in the order of the spans.
        starts: where the sentences stand in their texts, in characters.

    Tokens without characters (the end token, a lone space) have no links.
    """
    found = []
    source, target = starts
    visible = [place for place, (start, end) in enumerate(source_spans) if end > start]
    for row, (start, end) in zip(alignment, target_spans, strict=False):
        if end <= start or not visible:
            continue
        heaviest = max(visible, key=lambda place: float(row[place]))
        found += [
            AlignmentLink(
                source + source_spans[place][0],
                source + source_spans[place][1],
                target + start,
                target + end,
                float(row[place]),
            )
            for place in visible
            if row[place] >= MIN_WEIGHT or place == heaviest
        ]
    return found
