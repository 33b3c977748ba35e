"""What is asked of the engine and what it answers. Plain data: no arrays, no gRPC, no ONNX.

A request is one call. It holds texts; each text becomes sentences (what the engine decodes); each sentence is searched
for by one or more rows.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from service.decoding.options import DecodeOptions
from service.errors import InvalidRequest, RequestError
from service.runtime.bundle import Manifest


class Priority(enum.IntEnum):
    """Lower goes first; batch work is not starved (service/engine/request_queue.py)."""

    INTERACTIVE = 0
    BATCH = 1


class TextFormat(enum.Enum):
    """What of a text is for readers. HTML: all but its tags; it comes back as HTML (service/text/html_text.py)."""

    PLAIN = "plain"
    HTML = "html"


def check_format(text_format: TextFormat, options: DecodeOptions, alignment: bool) -> None:
    """Raises InvalidRequest where something is asked for that HTML has not: it is aligned for its own sake, with its
    best translation only, and characters are counted without tags."""
    if text_format is TextFormat.HTML and options.num_alternatives > 1:
        count = options.num_alternatives
        raise InvalidRequest("options.num_alternatives", f"{count} must be 1 with HTML", value=count, max=1)
    if text_format is TextFormat.HTML and alignment:
        raise InvalidRequest("include_alignment", "must be false with HTML")


class FinishReason(enum.Enum):
    """Why a sentence's decoding ended with an answer."""

    END_TOKEN = "end_token"
    LENGTH_LIMIT = "length_limit"
    REPETITION = "repetition"


class Hypothesis(NamedTuple):
    """One translation of a sentence.

    Attributes:
        ids: target token ids, without start token; the end token is last where finish_reason is END_TOKEN.
        log_probability: sum over ids, in nats. score: log_probability / len(ids) ** length_penalty.
    """

    ids: tuple[int, ...]
    log_probability: float
    score: float
    finish_reason: FinishReason


class Timings(NamedTuple):
    """Seconds spent in each stage, by the monotonic clock.

    Attributes:
        prepare_s: dividing all texts of the request into sentences and tokens. finish_s: putting this text together.
        align_s: from there until its alignment was there; 0 where none was asked for.
    """

    queue_s: float = 0.0
    encode_s: float = 0.0
    decode_s: float = 0.0
    prepare_s: float = 0.0
    finish_s: float = 0.0
    align_s: float = 0.0


class SentenceResult(NamedTuple):
    """Hypotheses of one sentence, best first, num_alternatives of them where the search found so many."""

    hypotheses: tuple[Hypothesis, ...]
    timings: Timings


SentenceAnswer = SentenceResult | RequestError


@dataclass(slots=True, eq=False)
class Sentence:
    """One unit of the engine's work.

    Attributes:
        source: token ids with the end token last; 1 < len <= the model's max_source_tokens.
        max_length: target tokens at most, already resolved (never 0).
        deadline: monotonic seconds after which nobody waits for the answer; None: no deadline.
        first: target tokens that the translation must begin with.
        stop_repetition: a translation that begins to repeat itself ends there (service/decoding/repetition.py).
        on_done: called exactly once, on the engine's thread or on one that closes the engine; it must not block and
            must not raise.
        cancelled: set from any thread (a plain bool: one writer, one reader that polls once a step).
    """

    source: tuple[int, ...]
    options: DecodeOptions
    max_length: int
    on_done: Callable[[SentenceAnswer], None]
    priority: Priority = Priority.INTERACTIVE
    deadline: float | None = None
    cancelled: bool = False
    submitted_at: float = 0.0
    first: tuple[int, ...] = ()
    stop_repetition: bool = True

    @property
    def is_cancelled(self) -> bool:
        """Whether the caller has gone."""
        return self.cancelled


class AlignmentLink(NamedTuple):
    """A part of the source that a part of the target looked at, in characters.

    Attributes:
        weight: share of the target token's cross-attention on it, 0 to 1.
    """

    source_start: int
    source_end: int
    target_start: int
    target_end: int
    weight: float


class Alternative(NamedTuple):
    """One of several translations of a text: text, token ids of all its sentences in turn, score."""

    text: str
    token_ids: tuple[int, ...]
    score: float


class TextResult(NamedTuple):
    """The translation of one text.

    Attributes:
        alternatives: the best first; ``text`` and ``score`` are those of the first. A text of several sentences
            combines the i-th hypothesis of each sentence (its best where it has fewer). Score: summed
            log-probabilities of all sentences / (summed lengths) ** length_penalty; 0 for a text without anything to
            translate.
        finish_reason: the worst of its sentences': REPETITION, then LENGTH_LIMIT, then END_TOKEN.
        num_sentences: units that were translated. split: at least one sentence was longer than the model's limit and
            was cut at the best place inside it; each part was translated on its own.
        timings: of the slowest sentence. alignment: of ``text``; empty where it was not asked for.
        length_limited, repetition_found: at least one sentence ended with LENGTH_LIMIT, with REPETITION.
    """

    alternatives: tuple[Alternative, ...]
    finish_reason: FinishReason
    num_source_tokens: int
    num_target_tokens: int
    num_sentences: int
    split: bool
    timings: Timings
    length_limited: bool = False
    repetition_found: bool = False
    alignment: tuple[AlignmentLink, ...] = ()

    @property
    def text(self) -> str:
        return self.alternatives[0].text

    @property
    def score(self) -> float:
        return self.alternatives[0].score


TextAnswer = TextResult | RequestError


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a loaded model says of itself: the source of ListModels and of the model_info metric.

    Attributes:
        source_languages, target_languages: those to choose from; empty: source_language and target_language are the
            only ones, else they are the first.
    """

    name: str
    version: str
    source_language: str
    target_language: str
    precision: str
    device: str
    max_source_tokens: int
    max_target_tokens: int
    source_languages: tuple[str, ...] = ()
    target_languages: tuple[str, ...] = ()

    @classmethod
    def of(cls, manifest: Manifest, precision: str, device: str) -> "ModelInfo":
        """What the manifest says of a model that runs so."""
        same = ("name", "version", "source_language", "target_language", "max_source_tokens", "max_target_tokens")
        return cls(
            precision=precision,
            device=device,
            source_languages=tuple(language.code for language in manifest.source_languages),
            target_languages=tuple(language.code for language in manifest.target_languages),
            **{name: getattr(manifest, name) for name in same},
        )

    @property
    def sources(self) -> tuple[str, ...]:
        """Every language it translates from."""
        return self.source_languages or (self.source_language,)

    @property
    def targets(self) -> tuple[str, ...]:
        """Every language it translates to."""
        return self.target_languages or (self.target_language,)

    @property
    def pairs(self) -> str:
        """Its languages in words."""
        return f"{' or '.join(self.sources)} to {' or '.join(self.targets)}"
