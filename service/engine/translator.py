"""Texts in, translations out: the engine as a Python object, without gRPC.

Knows: how a text becomes sentences and token ids and back. Does not know: how sentences are scheduled or searched for.
The CLI, the batch jobs and the gRPC servicer all use this class and nothing below it.
"""

import functools
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from service.decoding.options import DecodeOptions
from service.engine.aligner import TextAlignment
from service.engine.engine import Engine, threads_per_worker
from service.engine.given_pairs import GivenPair, OnPair
from service.engine.languages import LanguageChoice, choose_languages
from service.engine.model_options import ModelOptions
from service.engine.observer import EngineObserver, SilentObserver, SubmissionWatch
from service.engine.pending_text import OnText, PendingText
from service.engine.placement import choose_precision, settle_device
from service.engine.request import ModelInfo, Priority, Sentence, TextAnswer, TextFormat, TextResult, check_format
from service.engine.scorer import Scorer
from service.engine.scoring import Pair
from service.engine.settings import EngineSettings
from service.errors import BundleError, InvalidRequest, RequestError
from service.runtime.bundle import Bundle, Golden
from service.runtime.piece_tokenizer import tokenizer_of
from service.runtime.score_session import ScoreSession
from service.text.html_text import HtmlText
from service.text.splitter import DividedText, TextSplitter


class Ticket:
    """A submitted request: its texts' sentences, or its pairs."""

    def __init__(self, sentences: Sequence[Sentence]) -> None:
        self.sentences = sentences

    def cancel(self) -> None:
        """Frees the request's rows within one step. Texts not answered yet are answered with Cancelled. Idempotent."""
        for sentence in self.sentences:
            sentence.cancelled = True


class Translator:
    """One loaded model and its engine.

    Attributes:
        info: what the model says of itself. engine: what decodes; its ``failed`` event is set when it cannot go on.
    """

    def __init__(self, bundle: Bundle, settings: EngineSettings) -> None:
        manifest = bundle.manifest
        settings = settle_device(bundle, settings)
        precision = choose_precision(bundle, settings)
        self.tokenizer = tokenizer_of(bundle)
        self.manifest, self.info = manifest, ModelInfo.of(manifest, precision, settings.device)
        self.settings = settings
        self.splitters: dict[str, TextSplitter] = {}
        score_graph = bundle.path(bundle.graphs(precision).score)
        with ThreadPoolExecutor(1) as loader:  # beside the engine's graphs: a third of the time of loading less
            session = loader.submit(ScoreSession, score_graph, self.tokenizer.start, threads_per_worker(settings))
            self.engine = Engine.load(bundle, precision, self.tokenizer, settings, SilentObserver())
        try:
            self.scorer = Scorer(session.result(), settings, self.engine.fail)
        except BaseException:  # nobody else knows of what the engine holds of a device's memory
            self.engine.sessions.close(has_failed=False)
            raise
        max_beams = min(self.engine.max_rows, max(bundle.graphs(precision).decoder))
        own, limit = manifest.decoding, manifest.max_target_tokens
        self.model_options = ModelOptions(own, limit, max_beams, settings.default_max_length)

    @classmethod
    def load(
        cls, bundle: Path, settings: EngineSettings | None = None, observer: EngineObserver | None = None
    ) -> "Translator":
        """Loads, checks and warms up a bundle: its golden translations must come out as they were written.

        Raises:
            BundleError: the bundle is damaged, has not the wanted precision, or translates otherwise than it says.
            ConfigurationError: the model cannot run on the device of the settings.
        """
        opened = Bundle.open(bundle)
        try:
            translator = cls(opened, settings or EngineSettings())
        finally:
            opened.close()
        translator.scorer.start()
        try:
            translator.engine.start()
            translator.replay(opened.manifest.golden, str(bundle))
        except BaseException:
            translator.close()
            raise
        if observer:  # not before: nobody asked for the golden translations
            translator.engine.observe(observer)
            translator.scorer.observe(observer)
        return translator

    def replay(self, golden: Sequence[Golden], where: str) -> None:
        for example in golden:
            if example.precision != self.info.precision or example.num_beams > self.model_options.max_beams:
                continue
            languages = (self.info.source_language, self.info.target_language)
            result = self.translate([example.source], DecodeOptions(num_beams=example.num_beams), languages)[0]
            if result.alternatives[0].token_ids != example.ids:
                raise BundleError(
                    f"{where}: golden translation {example.source!r} with {example.num_beams} beams came out otherwise "
                    "than the manifest says: the graphs are not what was exported, or this machine computes differently"
                )

    def splitter(self, languages: LanguageChoice) -> TextSplitter:
        code, room = languages.source.code, self.info.max_source_tokens - 1 - len(languages.prefix)
        key = f"{code} {room}"
        if key not in self.splitters:
            read, encode = languages.reading.read, self.tokenizer.encode
            self.splitters[key] = TextSplitter(code, room, lambda sentences: encode([read(one) for one in sentences]))
        return self.splitters[key]

    def submit(
        self,
        texts: Sequence[str],
        options: DecodeOptions,
        on_text: OnText,
        *,
        languages: tuple[str, str] = ("", ""),
        priority: Priority = Priority.INTERACTIVE,
        deadline: float | None = None,
        alignment: bool = False,
        text_format: TextFormat = TextFormat.PLAIN,
        watch: SubmissionWatch | None = None,
        is_counted: bool = True,
    ) -> Ticket:
        """Queues all texts or none, and returns at once.

        Args:
            languages: codes of source and target, of ``info.sources`` and ``info.targets``; needed where the model has
                several.
            on_text: called exactly once per text with its index, in any order, from the engine's thread, from this one
                or from one that calls close(); must not block or raise.
            deadline: time.monotonic() seconds. alignment: whether results carry theirs, which takes a pass more.
            text_format: of texts and translations; HTML goes with one alternative and without alignment.
            watch: follows the submission; what its counted() raises is raised. is_counted: as RequestQueue.check().

        Raises:
            Overloaded: there is no room for all sentences of all texts. Draining: drain() was called.
            InvalidRequest: several texts can never fit together, an option is more than the model can give or does not
                go with the format, or it has several languages and none was chosen.
        """
        check_format(text_format, options, alignment)
        self.check(options, priority, deadline, is_counted)
        options = self.model_options.completed(options)
        started = time.monotonic()
        chosen = choose_languages(self.manifest, *languages)
        divided = self.divided(texts, chosen, text_format)
        handling = (options, self.tokenizer, on_text, watch, chosen.reading)
        pending = [PendingText(index, text, *handling) for index, text in enumerate(divided)]
        sentences: list[Sentence] = []
        for text in pending:
            own = self.sentences_of(text, options, chosen, priority, deadline)
            if alignment or text.split.needs_looks:
                text.align = TextAlignment(text, own, len(chosen.prefix), self.tokenizer, self.scorer).start
            sentences += own
        if len(texts) > 1:  # one by itself may be any size: it is taken while nothing waits
            self.check_room(sentences, "texts")
        for text in pending:
            text.prepare_s = time.monotonic() - started
        if watch:
            watch.counted(sum(len(sentence.source) for sentence in sentences))
        self.engine.submit(sentences, is_counted)
        for text in pending:
            if not text.answers:
                text.complete()
        return Ticket(sentences)

    def divided(self, texts: Sequence[str], languages: LanguageChoice, text_format: TextFormat) -> list[DividedText]:
        split = self.splitter(languages).split
        return [HtmlText(text, split) if text_format is TextFormat.HTML else split(text) for text in texts]

    def submit_pairs(
        self,
        pairs: Sequence[tuple[str, str]],
        length_penalty: float,
        on_pair: OnPair,
        *,
        languages: tuple[str, str] = ("", ""),
        priority: Priority = Priority.INTERACTIVE,
        deadline: float | None = None,
        watch: SubmissionWatch | None = None,
    ) -> Ticket:
        """Scores given translations, (source, target) each; a sentence is not divided. As submit() in all else.

        A pair that is too long, or has nothing to read, is answered with InvalidRequest.
        """
        chosen = choose_languages(self.manifest, *languages)
        taken: list[Pair] = []
        refused: list[tuple[int, RequestError]] = []
        for index, texts in enumerate(pairs):
            try:
                given = GivenPair.read(index, texts, self.tokenizer, chosen, self.info)
            except InvalidRequest as error:
                refused.append((index, error))
            else:
                on_answer = functools.partial(on_pair, index)
                taken.append(given.pair(length_penalty, priority, deadline, self.tokenizer, on_answer))
        self.check_room(taken, "pairs")
        if watch:
            watch.counted(sum(len(pair.source) for pair in taken))
        self.scorer.submit(taken)
        for index, refusal in refused:
            on_pair(index, refusal)
        return Ticket(taken)

    def check(
        self, options: DecodeOptions, priority: Priority, deadline: float | None, is_counted: bool = True
    ) -> None:
        """Whether submit() would take a short text now, at once; ``is_counted``: as RequestQueue.check().

        Raises as submit().
        """
        self.model_options.check(options)
        self.engine.check(priority, deadline, is_counted)

    def check_room(self, sentences: Sequence[Sentence], field: str) -> None:
        for what, count, limit in (
            ("sentences", len(sentences), self.settings.max_queue_sentences),
            ("tokens", sum(len(sentence.source) for sentence in sentences), self.settings.max_queue_tokens),
        ):
            if count > limit:
                many = f"{count} {what} are more than the {limit} that may ever wait"
                raise InvalidRequest(field, f"{many}; send fewer {field} at a time", value=count, max=limit)

    def sentences_of(
        self,
        text: PendingText,
        options: DecodeOptions,
        languages: LanguageChoice,
        priority: Priority,
        deadline: float | None,
    ) -> list[Sentence]:
        encoded = [[*languages.prefix, *ids] for ids in text.split.tokens]
        text.num_source_tokens = sum(map(len, encoded)) + len(encoded)  # end tokens counted
        return [
            Sentence(
                source=(*ids, self.tokenizer.end),
                options=options,
                max_length=self.model_options.max_length(len(ids) + 1, options),
                on_done=text.receiver(place),
                priority=priority,
                deadline=deadline,
                first=languages.target.first,
                stop_repetition=self.settings.stop_repetition,
            )
            for place, ids in enumerate(encoded)
        ]

    def translate(
        self,
        texts: Sequence[str],
        options: DecodeOptions | None = None,
        languages: tuple[str, str] = ("", ""),
        text_format: TextFormat = TextFormat.PLAIN,
    ) -> list[TextResult]:
        """Blocks until every text is translated; the first error in the order of the texts is raised.

        Raises:
            TypeError: ``texts`` is one text. RequestError: a text failed, or submit() refused them all.
        """
        if isinstance(texts, str):
            raise TypeError("texts must be a list of texts, not one text")
        answers: dict[int, TextAnswer] = {}
        complete = threading.Event()

        def on_text(index: int, answer: TextAnswer) -> None:
            answers[index] = answer
            if len(answers) == len(texts):
                complete.set()

        if not texts:
            return []
        chosen = options or DecodeOptions()
        ticket = self.submit(texts, chosen, on_text, languages=languages, text_format=text_format)
        try:
            complete.wait()
        except BaseException:
            ticket.cancel()
            raise
        results: list[TextResult] = []
        for index in range(len(texts)):
            answer = answers[index]
            if isinstance(answer, RequestError):
                raise answer
            results.append(answer)
        return results

    def turns(self) -> list[float | None]:
        """When each worker, and at the end the scorer, began what it does now; None: it waits for work."""
        return [*self.engine.turns(), self.scorer.turn_at]

    def drain(self, timeout_s: float) -> bool:
        """Takes nothing new and waits for what was taken; True if all of it was answered in time."""
        until = time.monotonic() + timeout_s
        is_idle = self.engine.drain(timeout_s)
        return self.scorer.drain(max(0.0, until - time.monotonic())) and is_idle

    def close(self, timeout_s: float | None = None) -> bool:
        """Stops after the present step; texts not answered yet are answered with Draining.

        Returns False where that step outlasts ``timeout_s``.
        """
        is_ended = self.engine.close(timeout_s)
        return self.scorer.close(timeout_s) and is_ended
