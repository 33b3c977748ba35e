"""A thousand sentences of all lengths: token for token and bit for bit the same, whoever else is there.

The bundle is the shipped one, or the one that DRAGOMAN_BUNDLE names, in every CPU precision it has. Sentences come from
DRAGOMAN_DATA: news, speeches and everyday talk.
"""

import functools
import os
import random
import threading
from pathlib import Path

import pytest

from service.decoding.options import DecodeOptions
from service.engine.request import TextAnswer, TextResult, Timings
from service.engine.settings import EngineSettings
from service.engine.translator import Translator
from service.model_store import SHIPPED_BUNDLE
from service.runtime.bundle import Bundle

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(3600)]
BUNDLE = Path(os.environ.get("DRAGOMAN_BUNDLE", SHIPPED_BUNDLE))
NUM_SENTENCES = 1_000
# Every sentence greedily and with four beams; the others for each fourth.
OPTIONS = [DecodeOptions(num_beams=1), DecodeOptions(num_beams=4, num_alternatives=4)]
MORE_OPTIONS = [
    DecodeOptions(num_beams=2, length_penalty=0.0),
    DecodeOptions(num_beams=6, length_penalty=1.5, no_repeat_ngram_size=3),
    DecodeOptions(num_beams=1, repetition_penalty=1.3, min_length=12),
]
# Workers, threads of each, rows of each: few rows, so that sentences come and go at each other's sides.
WAYS = [(1, 1, 48), (1, 2, 128), (2, 1, 128)]

Job = tuple[str, DecodeOptions]


def precisions() -> list[str]:
    names = Bundle.open(BUNDLE).manifest.precisions
    return sorted(name.removeprefix("cpu-") for name in names if name.startswith("cpu-"))


@pytest.fixture(scope="module")
def jobs() -> list[Job]:
    if "DRAGOMAN_DATA" not in os.environ:
        pytest.skip("DRAGOMAN_DATA must name the folder with the test sets")
    from benchmarks import texts

    sources = texts.choose("mixed", NUM_SENTENCES, seed=1).sources
    jobs = [(text, options) for text in sources for options in OPTIONS]
    return jobs + [(text, options) for text in sources[::4] for options in MORE_OPTIONS]


def bare(answer: TextAnswer) -> TextAnswer:
    """Without what may differ: how long it took."""
    return answer._replace(timings=Timings()) if isinstance(answer, TextResult) else answer


def all_at_once(translator: Translator, jobs: list[Job]) -> dict[Job, TextAnswer]:
    """Every job a submission of its own, and all of them before the first is waited for."""
    answers: dict[Job, TextAnswer] = {}
    done = threading.Semaphore(0)

    def receive(job: Job, _: int, answer: TextAnswer) -> None:
        answers[job] = bare(answer)
        done.release()

    for job in jobs:
        translator.submit([job[0]], job[1], functools.partial(receive, job))
    for _ in jobs:
        assert done.acquire(timeout=600)
    return answers


@pytest.mark.parametrize("precision", precisions())
def test_alone_and_in_every_company_it_is_the_same(precision: str, jobs: list[Job]) -> None:
    alone = Translator.load(BUNDLE, EngineSettings(precision=precision, num_workers=1, threads_per_worker=1))
    try:
        wanted = {job: bare(alone.translate([job[0]], job[1])[0]) for job in jobs}
    finally:
        alone.close()
    for number, (workers, threads, rows) in enumerate(WAYS):
        settings = EngineSettings(
            precision=precision,
            num_workers=workers,
            threads_per_worker=threads,
            max_rows=rows,
            max_queue_sentences=100_000,
            max_queue_tokens=10_000_000,
        )
        translator = Translator.load(BUNDLE, settings)
        try:
            found = all_at_once(translator, random.Random(number).sample(jobs, len(jobs)))
        finally:
            translator.close()
        different = [job for job in wanted if found[job] != wanted[job]]
        assert not different, f"{len(different)} of {len(wanted)} differ with {workers} workers of {threads} threads"
