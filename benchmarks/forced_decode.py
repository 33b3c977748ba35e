"""One worker of the engine on sentences of a fixed length: what is timed is the machine, not the model's mind.

Knows: the engine's worker. Does not know: what is done with the times.

The worker is told that the end token is one that no vocabulary has, so every sentence runs to its max_length.
"""

import time
from dataclasses import dataclass, field

import numpy as np

from service.decoding.options import DecodeOptions
from service.engine.observer import SilentObserver
from service.engine.request import Sentence, SentenceAnswer, SentenceResult
from service.engine.request_queue import RequestQueue
from service.engine.worker import Worker
from service.runtime.bundle import Bundle
from service.runtime.session import Sessions

NO_TOKEN = -1
START_TOKEN = 2  # any would do
FIRST_WORD = 4  # the ids before it are padding, start, end and unknown


@dataclass(slots=True)
class Run:
    """One batch from queue to answers. steps_s: each decoder step with its search; encode_s: the encoder."""

    total_s: float = 0.0
    encode_s: float = 0.0
    steps_s: list[float] = field(default_factory=list)
    num_tokens: int = 0


class Stopwatch(SilentObserver):
    """Keeps the durations the worker reports."""

    def __init__(self) -> None:
        self.run = Run()

    def encoded(self, num_sentences: int, num_tokens: int, padded_tokens: int, duration_s: float) -> None:
        self.run.encode_s += duration_s

    def step(self, num_rows: int, padding_ratio: float, duration_s: float) -> None:
        self.run.steps_s.append(duration_s)


class ForcedDecode:
    """A worker with room for ``max_rows`` rows, driven by hand.

    Raises:
        BundleError: the bundle has not this precision.
    """

    def __init__(self, bundle: Bundle, precision: str, num_threads: int, max_rows: int) -> None:
        manifest = bundle.manifest
        self.sessions = Sessions(bundle, precision, num_threads)
        self.vocab_size = manifest.shape.vocab_size
        self.cache = self.sessions.make_cache(max_rows, manifest.max_source_tokens, manifest.max_target_tokens)
        self.stopwatch = Stopwatch()
        self.queue = RequestQueue(1 << 20, 1 << 30, 1, self.stopwatch)
        self.worker = Worker(0, self.sessions, self.cache, self.queue, (START_TOKEN, NO_TOKEN), self.stopwatch)

    def decode(self, num_sentences: int, num_beams: int, source_tokens: int, target_tokens: int, seed: int = 1) -> Run:
        """Translates random sentences, all of the same lengths and all at once."""
        rng = np.random.default_rng(seed)
        sources = rng.integers(FIRST_WORD, self.vocab_size, (num_sentences, source_tokens))
        answers: list[SentenceAnswer] = []
        options = DecodeOptions(num_beams=num_beams)
        sentences = [
            Sentence(tuple(row), options, target_tokens, answers.append, stop_repetition=False)
            for row in sources.tolist()
        ]
        self.stopwatch.run = run = Run()
        started = time.perf_counter()
        self.queue.submit(sentences)
        while len(answers) < num_sentences:
            self.worker.turn()
        run.total_s = time.perf_counter() - started
        for answer in answers:
            if not isinstance(answer, SentenceResult):
                raise answer
            run.num_tokens += len(answer.hypotheses[0].ids)
        if run.num_tokens != num_sentences * target_tokens:
            raise RuntimeError(f"{run.num_tokens} tokens came out of {num_sentences} sentences of {target_tokens}")
        return run
