"""Alignment of finished translations: which part of the source each part of the translation looked at, told to the
caller or, in HTML, used to put tags around the right words.

Knows: the scorer, and where sentences stand in their texts. Does not know: how a translation was searched for.
"""

import functools
import logging
import time
from collections.abc import Callable, Sequence

from service.decoding.options import DecodeOptions
from service.engine.gathering import Gathering
from service.engine.pending_text import PendingText
from service.engine.request import AlignmentLink, Sentence, SentenceResult, TextAnswer, TextResult
from service.engine.scorer import Scorer
from service.engine.scoring import Pair, ScoredAnswer, links
from service.errors import EngineFailure, RequestError
from service.runtime.spans import Span
from service.runtime.tokenizer import Tokenizer
from service.text.html_text import HtmlText
from service.text.placement import Look

log = logging.getLogger(__name__)


class TextAlignment(Gathering[ScoredAnswer]):
    """Aligns one text: every sentence with its best hypothesis, all of them through the scorer at once.

    Args:
        sentences: as they went to the engine. num_prefix: their first tokens that stand for no text.
    """

    def __init__(
        self, text: PendingText, sentences: Sequence[Sentence], num_prefix: int, tokenizer: Tokenizer, scorer: Scorer
    ) -> None:
        super().__init__(len(sentences))
        self.text, self.sentences, self.num_prefix = text, sentences, num_prefix
        self.tokenizer, self.scorer = tokenizer, scorer

    def start(self, result: TextResult, on_text: Callable[[TextAnswer], None]) -> None:
        """Calls ``on_text`` exactly once, now or from the scorer's thread; never raises."""
        self.result, self.on_text, self.started = result, on_text, time.monotonic()
        hypotheses = [answer.hypotheses[0] for answer in self.text.answers if isinstance(answer, SentenceResult)]
        self.ids = [hypothesis.ids for hypothesis in hypotheses]
        pairs = [
            Pair(
                source=sentence.source,
                options=DecodeOptions(num_beams=1),  # it takes one place of a batch, however wide the search was
                max_length=len(ids),
                on_done=sentence.on_done,
                priority=sentence.priority,
                deadline=sentence.deadline,
                target=ids,
                on_scored=functools.partial(self.receive_pair, place),
                translated=sentence,
            )
            for place, (sentence, ids) in enumerate(zip(self.sentences, self.ids, strict=True))
        ]
        try:
            self.scorer.submit(pairs)
        except RequestError as error:
            on_text(error)

    def receive_pair(self, place: int, _: Pair, answer: ScoredAnswer) -> None:
        self.receive(place, answer)

    def complete(self) -> None:
        answer: TextAnswer
        try:
            answer = self.aligned()
        except Exception:
            log.exception("a text could not be aligned")
            answer = EngineFailure()
        self.on_text(answer)

    def aligned(self) -> TextAnswer:
        split, found = self.text.split, list[AlignmentLink]()
        texts = self.text.translations(self.ids)
        starts = split.starts(texts)
        for answer, sentence, ids, start in zip(self.answers, split.sentences, self.ids, starts, strict=True):
            if answer is None or isinstance(answer, RequestError):
                return answer or EngineFailure()
            spans = self.tokenizer.spans(self.text.reading.read(sentence))
            source_spans: list[Span] = [(0, 0)] * self.num_prefix + spans
            found += links(answer.alignment, source_spans, self.tokenizer.decoded_spans(ids), start)
        timings = self.result.timings._replace(align_s=time.monotonic() - self.started)
        if isinstance(split, HtmlText):
            looks = [
                Look(link.source_start, link.source_end, link.target_start, link.target_end, link.weight)
                for link in found
            ]
            best = self.result.alternatives[0]._replace(text=split.join(texts, looks))
            return self.result._replace(alternatives=(best,), timings=timings)
        return self.result._replace(alignment=tuple(found), timings=timings)
