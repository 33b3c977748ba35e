"""One text between its sentences' answers and its own.

Knows: how sentences' hypotheses become a text's translations. Does not know: who decodes them, who waits.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence

from service.decoding.options import DecodeOptions
from service.engine.gathering import Gathering
from service.engine.observer import SubmissionWatch
from service.engine.request import (
    Alternative,
    FinishReason,
    Hypothesis,
    SentenceAnswer,
    SentenceResult,
    TextAnswer,
    TextResult,
    Timings,
)
from service.errors import EngineFailure, RequestError
from service.runtime.tokenizer import Tokenizer
from service.text.reading import Reading
from service.text.splitter import DividedText

SEVERITY = (FinishReason.END_TOKEN, FinishReason.LENGTH_LIMIT, FinishReason.REPETITION)

AS_THEY_ARE = Reading()

log = logging.getLogger(__name__)

OnText = Callable[[int, TextAnswer], None]
Align = Callable[[TextResult, Callable[[TextAnswer], None]], None]


class PendingText(Gathering[SentenceAnswer]):
    """One text on its way: collects the answers of its sentences; the last one completes it.

    Attributes:
        prepare_s: seconds that dividing the request's texts took. align: takes over a translation that is done and
            calls its second argument with the aligned one, or with an error; None: no alignment is wanted.
    """

    def __init__(
        self,
        index: int,
        split: DividedText,
        options: DecodeOptions,
        tokenizer: Tokenizer,
        on_text: OnText,
        watch: SubmissionWatch | None = None,
        reading: Reading = AS_THEY_ARE,
    ) -> None:
        super().__init__(len(split.sentences))
        self.watch, self.reading = watch, reading
        self.index, self.split, self.options, self.tokenizer, self.on_text = index, split, options, tokenizer, on_text
        self.prepare_s = 0.0
        self.align: Align | None = None
        self.num_source_tokens = 0

    def receive(self, place: int, answer: SentenceAnswer) -> None:
        if self.watch and isinstance(answer, SentenceResult):
            self.watch.decoded(answer.timings)
        super().receive(place, answer)

    def complete(self) -> None:
        """Gives the text its one answer, whatever goes wrong on the way."""
        began_at = time.monotonic()
        try:
            answer = self.assemble()
        except Exception:
            log.exception("a text could not be put together from its sentences")
            answer = EngineFailure()
        if self.watch:
            self.watch.assembled(began_at, time.monotonic())
        align, self.align = self.align, None  # it holds the sentences, and they this text
        if align is None or not isinstance(answer, TextResult) or not self.answers:
            self.on_text(self.index, answer)
        else:
            align(answer, lambda aligned: self.on_text(self.index, aligned))

    def assemble(self) -> TextAnswer:
        started = time.monotonic()
        results: list[SentenceResult] = []
        for answer in self.answers:
            if isinstance(answer, RequestError):
                return answer
            if answer is None:
                raise RuntimeError("a text was completed without all its sentences. This is a bug.")
            results.append(answer)
        best = [result.hypotheses[0] for result in results]
        reasons = {hypothesis.finish_reason for hypothesis in best}
        count = max((len(result.hypotheses) for result in results), default=1)
        first, *others = (self.alternative(results, rank) for rank in range(count))
        return TextResult(
            alternatives=each_text_once((first, *sorted(others, key=lambda other: -other.score))),
            finish_reason=max(reasons, key=SEVERITY.index, default=FinishReason.END_TOKEN),
            num_source_tokens=self.num_source_tokens,
            num_target_tokens=sum(len(hypothesis.ids) for hypothesis in best),
            num_sentences=len(results),
            split=self.split.was_cut,
            timings=Timings(
                queue_s=max((r.timings.queue_s for r in results), default=0.0),
                encode_s=max((r.timings.encode_s for r in results), default=0.0),
                decode_s=max((r.timings.decode_s for r in results), default=0.0),
                prepare_s=self.prepare_s,
                finish_s=time.monotonic() - started,
            ),
            length_limited=FinishReason.LENGTH_LIMIT in reasons,
            repetition_found=FinishReason.REPETITION in reasons,
        )

    def alternative(self, results: Sequence[SentenceResult], rank: int) -> Alternative:
        chosen: list[Hypothesis] = [r.hypotheses[rank if rank < len(r.hypotheses) else 0] for r in results]
        ids = tuple(token for hypothesis in chosen for token in hypothesis.ids)
        if len(chosen) == 1:
            score = chosen[0].score
        else:
            total = sum(hypothesis.log_probability for hypothesis in chosen)
            score = total / len(ids) ** self.options.length_penalty if ids else 0.0
        texts = self.translations([hypothesis.ids for hypothesis in chosen])
        return Alternative(self.split.join(texts), ids, score)

    def translations(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """What each sentence's token ids say, as it is answered."""
        decoded = zip(self.split.sentences, self.tokenizer.decode(ids), strict=True)
        return [self.reading.written(sentence, translation) for sentence, translation in decoded]


def each_text_once(alternatives: Iterable[Alternative]) -> tuple[Alternative, ...]:
    """Without those that show a text again: other tokens may make the same text, which to a reader is no other."""
    by_text: dict[str, Alternative] = {}
    for alternative in alternatives:
        by_text.setdefault(alternative.text, alternative)
    return tuple(by_text.values())
