"""Windows from Ray Data: an actor pool of engines, on this machine or on a cluster.

Ray's read tasks read the same files again, each a contiguous part of the rows, and give texts to the actors; outcomes
come back in order, and this process puts them to the rows that it reads itself. So everything but the translating is as
in a job without Ray: the same rows, windows, checkpoints and bytes. Knows: Ray. Does not know: forms, checkpoints.
"""

import json
import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from service.decoding.options import DecodeOptions
from service.engine.request import TextFormat, TextResult
from service.engine.settings import EngineSettings
from service.errors import ConfigurationError, DragomanError
from service.jobs.arrow import arrow
from service.jobs.outcome_cache import OutcomeCache
from service.jobs.rows import NOTHING_TO_DO, Outcome, failed, outcome_of
from service.jobs.source import Source, shard_rows
from service.jobs.text_engine import EmbeddedEngine, model_of
from service.jobs.windows import Window, cut_windows

BATCH_ROWS: Final = 1024
# Read tasks for each actor: each reads past the rows before its own, which costs little beside translating.
TASKS_PER_ACTOR: Final = 4
# What an actor's engine may have at once; below the engine's own bound, so that it never refuses.
_IN_ACTOR_SETTINGS: Final = {"max_queue_sentences": 1 << 20, "max_queue_tokens": 1 << 26}


@dataclass(frozen=True, slots=True)
class RayOptions:
    """How much of a cluster a job takes.

    Raises:
        ValueError: a value is out of its range.
    """

    actors: int = 2
    """Engines in the pool; at least 1."""
    cpus: float = 1.0
    """CPUs of each, for Ray's book-keeping and for the engine's threads; fractions count as one thread. Above 0."""
    gpus: float = 0.0
    """GPUs of each; fractions share one. At least 0."""

    def __post_init__(self) -> None:
        if self.actors < 1 or not self.cpus > 0 or not self.gpus >= 0:
            raise ValueError(f"actors ({self.actors}) must be >= 1, cpus ({self.cpus}) > 0, gpus ({self.gpus}) >= 0")


@dataclass(frozen=True, slots=True)
class EngineRecipe:
    """What an actor makes its engine of; the bundle must be at the same path on every machine."""

    bundle: Path
    settings: EngineSettings
    source: str | None
    target: str
    options: DecodeOptions
    text_format: TextFormat = TextFormat.PLAIN


class RayWindows:
    """As Pipeline, with the texts translated by Ray's actors.

    Raises:
        BundleError: the bundle cannot be used. ConfigurationError: it is of other languages, or Ray is not installed.
    """

    def __init__(self, source: Source, recipe: EngineRecipe, options: RayOptions) -> None:
        if source.files.is_standard_input:
            raise ConfigurationError("Ray's tasks read the input again: it must be files")
        self._ray = _ray()
        self._source, self._recipe, self._options = source, recipe, options
        self._stopped = threading.Event()
        self.model = model_of(recipe.bundle, recipe.settings, recipe.source, recipe.target)

    def stop(self) -> None:
        self._stopped.set()

    def check_model(self) -> None:
        """Nothing: a bundle's files have checksums."""

    def close(self) -> None:
        self._ray.shutdown()

    def completed(self, first: int, last: int | None) -> Iterator[Window]:
        last = self._source.count() if last is None else last
        if first > last:
            return
        outcomes = self._outcomes(first, last)
        for rows in cut_windows(self._source.rows(first, last)):
            self._source.files.check_unchanged()
            window = Window(rows, self._source.files.position(), self._source.state())
            for place, row in enumerate(rows):
                number, window.outcomes[place] = next(outcomes, (0, None))
                if number != row.number:
                    raise DragomanError(f"Ray gave row {number} where {row.number} was next. This is a bug.")
            yield window
            if self._stopped.is_set():
                return

    def _outcomes(self, first: int, last: int) -> Iterator[tuple[int, Outcome]]:
        ray = self._ray
        if not ray.is_initialized():
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        num_tasks = min(self._options.actors * TASKS_PER_ACTOR, -(-(last - first + 1) // BATCH_ROWS))
        data = ray.data.read_datasource(
            row_datasource(self._source.elsewhere(), first, last), override_num_blocks=num_tasks
        ).map_batches(
            RowTranslator,
            fn_constructor_args=(self._recipe, self._options),
            batch_size=BATCH_ROWS,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=self._options.actors),
            num_cpus=self._options.cpus,
            num_gpus=self._options.gpus or None,
        )
        for batch in data.iter_batches(batch_size=None, batch_format="pyarrow"):
            for number, outcome in zip(batch["number"].to_pylist(), batch["outcome"].to_pylist(), strict=True):
                yield number, _outcome(json.loads(outcome))


class RowTranslator:
    """An actor: an engine, and what it has translated before."""

    def __init__(self, recipe: EngineRecipe, options: RayOptions) -> None:
        values = asdict(recipe.settings) | _IN_ACTOR_SETTINGS
        if recipe.settings.device == "cpu":
            values |= {"num_workers": max(1, int(options.cpus)), "threads_per_worker": 1}
        self._engine = EmbeddedEngine(
            recipe.bundle, EngineSettings(**values), recipe.source, recipe.target, recipe.options, recipe.text_format
        )
        self._cache = OutcomeCache()

    def __call__(self, batch: Any) -> Any:
        """Columns number and outcome of a batch with columns number, text and reason."""
        texts, reasons = batch["text"].to_pylist(), batch["reason"].to_pylist()
        found = self._translate({text for text in texts if text is not None})
        outcomes = [
            found[text] if text is not None else failed(reason) if reason else NOTHING_TO_DO
            for text, reason in zip(texts, reasons, strict=True)
        ]
        packed = [json.dumps(asdict(outcome)) for outcome in outcomes]
        return arrow().table({"number": batch["number"], "outcome": arrow().array(packed, arrow().string())})

    def _translate(self, texts: set[str]) -> dict[str, Outcome]:
        found = {text: outcome for text in texts if (outcome := self._cache.get(text)) is not None}
        missing = sorted(texts - found.keys(), key=len, reverse=True)
        answers: dict[str, TextResult | DragomanError] = {}
        is_complete = threading.Event()

        def receiver(text: str) -> Any:
            def receive(answer: TextResult | DragomanError) -> None:
                answers[text] = answer
                if len(answers) == len(missing):
                    is_complete.set()

            return receive

        for text in missing:
            self._engine.submit(text, receiver(text))
        while missing and not is_complete.wait(1.0):
            if (failure := self._engine.failure) is not None:
                raise failure
        for text in missing:
            found[text] = outcome_of(answers[text])
            if not found[text].reason:
                self._cache.put(text, found[text])
        return found


def row_datasource(source: Source, first: int, last: int) -> Any:
    """Ray's view of the rows ``first`` to ``last``: read tasks that give tables of number, text and reason."""
    ray = _ray()
    from ray.data.block import BlockMetadata

    class RowDatasource(ray.data.Datasource):  # type: ignore[misc, name-defined]
        """Made here, because its base is there only where Ray is."""

        def estimate_inmemory_data_size(self) -> int:
            return source.files.num_bytes

        def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[Any]:
            tasks = []
            for shard in range(parallelism):
                start, end = shard_rows(last - first + 1, shard, parallelism)
                num_bytes = source.files.num_bytes // parallelism
                metadata = BlockMetadata(
                    num_rows=end - start + 1, size_bytes=num_bytes, input_files=None, exec_stats=None
                )
                tasks.append(ray.data.ReadTask(ReadRows(source, first + start - 1, first + end - 1), metadata))
            return tasks

    return RowDatasource()


@dataclass(frozen=True, slots=True)
class ReadRows:
    """What one of Ray's read tasks does."""

    source: Source
    first: int
    last: int

    def __call__(self) -> Iterator[Any]:
        pa = arrow()
        rows = []
        for row in self.source.rows(self.first, self.last):
            rows.append(row)
            if len(rows) == BATCH_ROWS or row.number == self.last:
                yield pa.table({
                    "number": pa.array([row.number for row in rows], pa.int64()),
                    "text": pa.array([row.text for row in rows], pa.string()),
                    "reason": pa.array([row.reason for row in rows], pa.string()),
                })  # fmt: skip
                rows = []


def _outcome(values: dict[str, Any]) -> Outcome:
    values["flags"] = tuple(values["flags"])
    values["alternatives"] = tuple((text, score) for text, score in values["alternatives"])
    return Outcome(**values)


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        import ray
        import ray.data
    except ImportError:
        raise ConfigurationError("--engine ray needs more packages: pip install 'dragoman[ray]'") from None
    return ray
