"""The score graph: how probable given translations are, and what each of their tokens looked at.

Knows: ONNX Runtime, the graph's inputs and outputs (export/graphs.py). Does not know: texts, queues, threads.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.runtime.session import check_names, load_session


class Scored(NamedTuple):
    """log_probabilities (T,) of a pair's target tokens; alignment (T, S): their cross-attention, each row sums to 1."""

    log_probabilities: NDArray[np.float32]
    alignment: NDArray[np.float32]


class ScoreSession:
    """Scores pairs of a source and a given target in one run."""

    def __init__(self, path: Path, start: int, num_threads: int) -> None:
        """Raises BundleError: ONNX Runtime cannot load the graph, or it is another one."""
        self.session = load_session(path, num_threads)
        self.start = start
        inputs = {"source", "source_lengths", "target_in", "target_out"}
        check_names(self.session, path, inputs, {"log_probabilities", "alignment"})

    def run(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> list[Scored]:
        """One result a pair. sources end with the end token; targets begin without start token and are not empty."""
        lengths = np.array([len(ids) for ids in sources], np.int64)
        source = np.full((len(sources), int(lengths.max())), self.start, np.int64)  # padding: any valid id
        target_in = np.full((len(targets), max(map(len, targets))), self.start, np.int64)
        target_out = np.full_like(target_in, self.start)
        for row, (ids, wanted) in enumerate(zip(sources, targets, strict=True)):
            source[row, : len(ids)] = ids
            target_in[row, 1 : len(wanted)] = wanted[:-1]
            target_out[row, : len(wanted)] = wanted
        feeds = {"source": source, "source_lengths": lengths, "target_in": target_in, "target_out": target_out}
        values, alignment = self.session.run(["log_probabilities", "alignment"], feeds)
        return [
            Scored(values[row, : len(wanted)], alignment[row, : len(wanted), : len(ids)])
            for row, (ids, wanted) in enumerate(zip(sources, targets, strict=True))
        ]
