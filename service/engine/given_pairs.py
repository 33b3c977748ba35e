"""Given translations: from texts to what the scorer takes, and back.

Knows: tokens and their places, the model's limits. Does not know: threads, ONNX, gRPC.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from service.decoding.options import DecodeOptions
from service.engine.languages import LanguageChoice
from service.engine.request import ModelInfo, Priority
from service.engine.scoring import Pair, PairAnswer, PairResult, ScoredAnswer, TokenScore, links
from service.errors import EngineFailure, InvalidRequest, RequestError
from service.runtime.score_session import Scored
from service.runtime.tokenizer import Tokenizer

log = logging.getLogger(__name__)

OnPair = Callable[[int, PairAnswer], None]


@dataclass(frozen=True, slots=True)
class GivenPair:
    """One text and a given translation of it, as the model reads them, and their tokens."""

    source: str
    target: str
    source_ids: tuple[int, ...]
    target_ids: tuple[int, ...]
    languages: LanguageChoice

    @classmethod
    def read(
        cls, index: int, texts: tuple[str, str], tokenizer: Tokenizer, languages: LanguageChoice, info: ModelInfo
    ) -> "GivenPair":
        """Raises InvalidRequest: there is nothing to score, or it is longer than the model takes."""
        source, target = languages.reading.read(texts[0]), languages.reading.read_target(*texts)
        [source_ids], [target_ids] = tokenizer.encode([source]), tokenizer.encode_target([target])
        if not source_ids:
            raise InvalidRequest(f"pairs[{index}].source", "holds nothing that a model could read")
        ids = (*languages.prefix, *source_ids, tokenizer.end)
        wanted = (*languages.target.first, *target_ids, tokenizer.end)
        for field, count, limit in (
            ("source", len(ids), info.max_source_tokens),
            ("target", len(wanted), info.max_target_tokens),
        ):
            if count > limit:
                name = f"pairs[{index}].{field}"
                raise InvalidRequest(name, f"number of tokens ({count}) must be <= {limit}", value=count, max=limit)
        return cls(source, target, ids, wanted, languages)

    def pair(
        self,
        length_penalty: float,
        priority: Priority,
        deadline: float | None,
        tokenizer: Tokenizer,
        on_pair: Callable[[PairAnswer], None],
    ) -> Pair:
        """What the scorer takes; ``on_pair`` is called exactly once with what comes of it."""

        def receive(pair: Pair, scored: ScoredAnswer) -> None:
            answer: PairAnswer
            try:
                answer = scored if isinstance(scored, RequestError) else self.result(pair, scored, tokenizer)
            except Exception:
                log.exception("a score could not be put together")
                answer = EngineFailure()
            on_pair(answer)

        return Pair(
            source=self.source_ids,
            options=DecodeOptions(num_beams=1, length_penalty=length_penalty),
            max_length=len(self.target_ids),
            on_done=lambda _: None,
            priority=priority,
            deadline=deadline,
            target=self.target_ids,
            on_scored=receive,
        )

    def result(self, pair: Pair, scored: Scored, tokenizer: Tokenizer) -> PairResult:
        """Tokens that the model demands at the start of every translation are left out and cost nothing, but they count
        in the length, as in the search: a translation has the score that it was found with."""
        ended, skip = time.monotonic(), len(self.languages.target.first)
        values = scored.log_probabilities[skip:].tolist()
        spans = [*tokenizer.target_spans(self.target), (len(self.target), len(self.target))]
        source_spans = [(0, 0)] * len(self.languages.prefix) + tokenizer.spans(self.source)
        total = sum(values)
        tokens = zip(self.target_ids[skip:], values, spans, strict=True)
        return PairResult(
            score=total / len(self.target_ids) ** pair.options.length_penalty,
            log_probability=total,
            tokens=tuple(TokenScore(token, value, span) for token, value, span in tokens),
            alignment=tuple(links(scored.alignment[skip:], source_spans, spans)),
            queue_s=pair.started_at - pair.submitted_at,
            score_s=ended - pair.started_at,
        )
