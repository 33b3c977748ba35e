"""Are the exported graphs the PyTorch model? Checked at every export, and by ``dragoman verify --checkpoint``.

Knows: what must be equal and how nearly. Does not know: how graphs are made or stored.

For float32 everything is compared with PyTorch within a tolerance, and searches token for token. For int8 and float16
the numbers differ by design: there the mean difference of log-probabilities is bounded, which any structural mistake (a
wrong mask, shifted positions, swapped heads) exceeds many times. Everything else must hold bit for bit in those that
serve on a CPU: cached step by step = alone = in a batch = in any beam's place. What is for CUDA is checked on the CPU,
whose float16 softmax depends in its last bit on how far a row is padded: there a bound takes the place of equality.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from export.graph_runner import GraphRunner
from model.machine import one_thread
from model.reference_decode import extend_with, search_beams, search_greedily
from model.transformer import Transformer

Array = NDArray[np.generic]
NUM_SENTENCES, LONGEST, SEARCH_LENGTH, NUM_BEAMS = 6, 24, 24, 4
# Largest difference of log-probabilities in float32 (measured: 2e-5); mean difference in int8 (measured: 0.01 to 0.08,
# and 0.4 for random weights four times as large as usual; structural mistakes: several).
FLOAT32_TOLERANCE, INT8_MEAN_TOLERANCE, TIE = 1e-3, 0.5, 1e-4
# Mean difference in float16 (measured: 0.015 for random weights four times as large as usual).
FLOAT16_MEAN_TOLERANCE = 0.1
# Mean difference between a sentence alone and in a batch where the CPU computes in float16.
FLOAT16_BATCH_TOLERANCE = 0.02  # measured: 3e-4, with models of width 256 and 512


class Tolerance(NamedTuple):
    """How far the largest or the mean difference of log-probabilities may go."""

    kind: str
    limit: float


class VerificationError(Exception):
    """The graphs do not compute what the PyTorch model does; the message says which check failed, by how much."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured: differences of log-probabilities against PyTorch, and searches compared."""

    step_difference: float
    score_difference: float
    searches: int
    how_same: str

    def __str__(self) -> str:
        return (
            f"log-probabilities differ by {self.step_difference:.1e} (steps) and {self.score_difference:.1e} (score); "
            f"{self.searches} searches equal; alone = batched = any beam, {self.how_same}"
        )


def random_sources(model: Transformer, end: int, seed: int = 7) -> list[list[int]]:
    """Random token ids of ragged lengths: every language and vocabulary has them."""
    rng = np.random.default_rng(seed)
    lengths = np.linspace(2, min(LONGEST, model.config.max_positions - 1), NUM_SENTENCES).astype(int)
    size = min(model.config.vocab_size, model.config.source_vocab_size or model.config.vocab_size)
    first = min(size - 1, 260)  # past special and byte pieces, where there are so many
    return [[*rng.integers(first, size, n).tolist(), end] for n in lengths]


@torch.inference_mode()
def expected(model: Transformer, source: Sequence[int], target: Sequence[int], start: int) -> tuple[Array, Array]:
    """PyTorch's log-probabilities (T, V) after each position, and those of the target's own tokens (T,)."""
    lengths = torch.tensor([len(source)])
    logits = model(torch.tensor([list(source)]), lengths, torch.tensor([[start, *target[:-1]]]))
    values = logits[0].float().log_softmax(dim=-1).numpy()
    return values, values[np.arange(len(target)), list(target)]


def verify(model: Transformer, runner: GraphRunner, end: int, exact: bool) -> Report:
    """Compares the graphs of one precision with ``model``.

    Args:
        exact: the graphs are float32; else int8 or float16.

    Raises:
        VerificationError: a check failed.
    """
    sources = random_sources(model, end)
    targets = [list(reversed(source[:-1])) + [end] for source in sources]
    wanted = [expected(model, s, t, runner.start) for s, t in zip(sources, targets, strict=True)]
    tolerance = tolerance_of(runner, exact)
    step_difference = check_steps(runner, sources, targets, [values for values, _ in wanted], tolerance)
    score_difference = check_score(runner, sources, targets, [picked for _, picked in wanted], tolerance)
    check_beam_places(runner, sources, targets)
    length = min(SEARCH_LENGTH, model.config.max_positions)
    with one_thread():
        searches = check_searches(model, runner, sources, end, length)[0] if exact else 0
    how_same = "nearly" if runner.dtype == np.float16 else "bit for bit"
    return Report(step_difference, score_difference, searches, how_same)


def require(condition: bool, message: str) -> None:
    if not condition:
        raise VerificationError(message)


def require_same(runner: GraphRunner, first: Array, second: Array, message: str) -> None:
    """Bit for bit, unless the states are float16."""
    if bool((first == second).all()):
        return
    gap = float(np.abs(np.asarray(first, float) - np.asarray(second, float)).mean())
    limit = FLOAT16_BATCH_TOLERANCE if runner.dtype == np.float16 else 0.0
    require(gap <= limit, f"{message}, by {gap:.1e}")


def tolerance_of(runner: GraphRunner, exact: bool) -> Tolerance:
    if exact:
        return Tolerance("largest", FLOAT32_TOLERANCE)
    is_half = runner.dtype == np.float16
    return Tolerance("mean", FLOAT16_MEAN_TOLERANCE if is_half else INT8_MEAN_TOLERANCE)


def difference(actual: Array, wanted: Array, tolerance: Tolerance, what: str) -> float:
    found, right = np.asarray(actual, float), np.asarray(wanted, float)
    gaps = np.zeros(right.shape)  # equal infinities differ by nothing: tokens of no probability at all
    np.subtract(found, right, out=gaps, where=found != right)
    gaps = np.abs(gaps)
    kind, limit = tolerance
    value = float(gaps.max() if kind == "largest" else gaps.mean())
    require(value <= limit, f"{what}: the {kind} difference from PyTorch is {value:.2e}, more than {limit:.0e}")
    return value


def run_steps(runner: GraphRunner, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> list[Array]:
    """Log-probabilities (T, V) of each sentence, decoded side by side; ended ones leave, as when serving."""
    vocab = runner.shape.vocab_size
    cross, lengths = runner.encode(sources)
    cache = runner.empty(len(sources), max(map(len, targets)))
    rows, results = list(range(len(sources))), [[] for _ in sources]  # type: list[int], list[list[Array]]
    for position in range(max(map(len, targets))):
        stays = [place for place, row in enumerate(rows) if position < len(targets[row])]
        rows = [rows[place] for place in stays]
        cache = {name: values[stays] for name, values in cache.items()}
        tokens = [targets[row][position - 1] if position else runner.start for row in rows]
        here = {name: values[rows] for name, values in cross.items()}
        ids, values, cache = runner.step(
            1, np.array(tokens), np.full(len(rows), position), cache, here, lengths[rows], 1, vocab
        )
        for place, row in enumerate(rows):
            ordered = np.empty(vocab, np.float32)
            ordered[ids[place]] = values[place]
            results[row].append(ordered)
    return [np.stack(rows_of_one) for rows_of_one in results]


def check_steps(
    runner: GraphRunner,
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    wanted: Sequence[Array],
    tolerance: Tolerance,
) -> float:
    batched = run_steps(runner, sources, targets)
    for source, target, together in zip(sources, targets, batched, strict=True):
        alone = run_steps(runner, [source], [target])[0]
        require_same(runner, alone, together, f"a sentence of {len(source)} tokens computes otherwise in a batch")
    return difference(np.concatenate(batched), np.concatenate(wanted), tolerance, "decoder steps")


def check_score(
    runner: GraphRunner,
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    wanted: Sequence[Array],
    tolerance: Tolerance,
) -> float:
    values, alignment = runner.score(sources, targets)
    for row, (source, target) in enumerate(zip(sources, targets, strict=True)):
        weights = np.asarray(alignment[row, : len(target)], float)
        require(
            np.allclose(weights.sum(axis=1), 1, atol=1e-4), "alignment: the weights of a target token do not sum to 1"
        )
        require(bool((weights[:, len(source) :] == 0).all()), "alignment: there is weight on padding")
    picked = np.concatenate([values[row, : len(target)] for row, target in enumerate(targets)])
    return difference(picked, np.concatenate(wanted), tolerance, "score")


def check_beam_places(runner: GraphRunner, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> None:
    """A prefix must give the same bits in every beam's place of every decoder graph, beside other prefixes."""
    cross, lengths = runner.encode(sources[:2])
    prefixes = [[runner.start, *target[:-1]] for target in targets[-2:]]
    size = min(map(len, prefixes))
    alone: dict[tuple[int, int], Array] = {}
    for beams in runner.graphs.decoder:
        cache = runner.empty(2 * beams, size)
        for position in range(size):
            tokens = [prefixes[(n + k) % 2][position] for n in range(2) for k in range(beams)]
            past = np.full(2 * beams, position)
            _, values, cache = runner.step(beams, np.array(tokens), past, cache, cross, lengths, beams, 8)
        for n in range(2):
            for k in range(beams):
                first = alone.setdefault((n, (n + k) % 2), values[n * beams + k])
                otherwise = f"the decoder for {beams} beams computes beam {k} otherwise than another decoder"
                require_same(runner, first, values[n * beams + k], otherwise)


def check_searches(
    model: Transformer, runner: GraphRunner, sources: Sequence[Sequence[int]], end: int, max_length: int
) -> tuple[int, int]:
    """Greedy and beam search over the graphs find PyTorch's token ids, but for hypotheses that tie.

    Returns:
        How many searches were compared, and how many of them found another hypothesis of the same score.
    """
    count = ties = 0
    for source in sources:
        torch_extend = extend_with(model, source, runner.start)
        onnx_extend = runner.extend_with(source, max_length)
        for beams in (1, NUM_BEAMS):
            if beams == 1:
                found = search_greedily(onnx_extend, end, max_length)
                right = search_greedily(torch_extend, end, max_length)
            else:
                found = search_beams(onnx_extend, end, max_length, beams)[0]
                right = search_beams(torch_extend, end, max_length, beams)[0]
            same = found.ids == right.ids
            tie = abs(found.score - right.score) < TIE
            require(same or tie, f"search with {beams} beams: {found} is not PyTorch's {right}")
            count, ties = count + 1, ties + (not same)
    return count, ties
