"""Steps of a batch that stays as it is: between two of them there is one call of the library in C; or nothing, where
the graph is a chain (export/chain.py), which makes that call itself and goes on.

Knows: what the searches, the batch and the cache have in arrays, and the structures in C that point to them
(service/runtime/kernels/search.c). Does not know: which sentences come and go (worker.py).

What the call computes is what BeamSearch, GreedySearch and RunningBatch.reorder say, which take its place where there
is no library, on other devices than CPUs, and where options or the model ask for more than it does. In Python a step of
one row took half as long again as its graph, and other workers of the process waited meanwhile.
"""

import ctypes
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.decoding.beam import BeamSearch
from service.decoding.greedy import GreedySearch
from service.decoding.repetition import CHECK_EVERY, MAX_PERIOD, MIN_LOOP_TOKENS, MIN_REPEATS
from service.engine.running_batch import Group
from service.runtime import kernels
from service.runtime.kv_cache import KVCache
from service.runtime.session import BoundShape, address

log = logging.getLogger(__name__)

SOME_DONE: Final = 1
SOME_LOOP: Final = 2
SOME_MOVED: Final = 4
# A chain goes on by itself for so long, and so many steps, while what comes waits.
RUN_S, MAX_STEPS = 0.001, 64


def structure(name: str, numbers: str, pointers: str) -> type[ctypes.Structure]:
    fields = [(field, ctypes.c_int64) for field in numbers.split()] + [(f, ctypes.c_void_p) for f in pointers.split()]
    return type(name, (ctypes.Structure,), {"_fields_": fields})


_Searches: Any = structure(
    "Searches",
    "num_sentences num_beams max_tokens end stops_at_beams loops_from loops_every loops_period loops_repeats",
    "rows slots lengths min_lengths max_lengths ids length_penalties totals "
    "finished_lengths finished_ids finished_scores finished_totals done failed",
)
_Step: Any = structure(
    "Step",
    "num_rows num_candidates num_groups num_banned places num_blocks max_rows num_heads capacity position_bytes "
    "most_steps until num_steps found",
    "candidate_ids banned log_probabilities tokens query_rows row_queries cached scratch cache moments groups",
)


class Calls(NamedTuple):
    """advance: all searches, after a step. repeat: before a run of the graph, that it may do that and go on itself."""

    advance: Callable[[int], int]
    repeat: Callable[[int], None]


@cache
def library_calls() -> Calls | None:
    """Calls of the library; None where it is not to be used."""
    if (library := kernels.library()) is None:
        return None
    loaded = ctypes.CDLL(str(library))
    try:
        sizes = loaded.dragoman_sizes()
    except AttributeError:
        sizes = 0
    if sizes != ctypes.sizeof(_Searches) << 16 | ctypes.sizeof(_Step):
        log.warning(
            "%s was made of another version's source and advances no searches: install the package anew", library
        )
        return None
    advance, repeat = loaded.dragoman_advance, loaded.dragoman_repeat
    advance.argtypes, advance.restype = [ctypes.c_void_p], ctypes.c_int64
    repeat.argtypes, repeat.restype = [ctypes.c_void_p], None
    return Calls(advance, repeat)


class Memory:
    """What every run of one bound shape has in the same places, and where they are."""

    def __init__(self, shape: BoundShape, cache: KVCache, banned: Sequence[int]) -> None:
        candidates, block = shape.candidates, cache.blocks["self"]
        scratch = np.empty(shape.decoder.num_beams * cache.max_target_tokens, np.int32)
        numbers = (*candidates.ids.shape, 0, len(banned), shape.decoder.num_beams)
        of_cache = (len(block), *block.shape[1:4], block.shape[4] * block.itemsize)
        self.moments: NDArray[np.int64] = np.empty(MAX_STEPS, np.int64)
        arrays: list[NDArray[Any]] = [candidates.ids, np.array(banned, np.int64), candidates.log_probabilities]
        arrays += [shape.tokens, shape.query_rows, shape.row_queries, cache.lengths, scratch, block, self.moments]
        self.step = _Step(*numbers, *of_cache, *[0] * 4, *map(address, arrays), 0)
        # Kept while their addresses are; but the cache's block, which is the shape's only as long as the cache has it.
        self.arrays = [array for array in arrays if array is not block]


class UnchangedSteps:
    """Steps of the rows of ``groups``, which may not change otherwise while this is used.

    Attributes:
        done, failed: of each group's sentences, as search.Advance has them, after the last step.
    """

    def __init__(self, shape: BoundShape, cache: KVCache, groups: Iterable[Group], banned: Sequence[int] = ()) -> None:
        """banned: tokens that never stand in a translation, always the same; as many candidates are there more."""
        calls = library_calls()
        if calls is None:
            raise RuntimeError("there is no library to advance searches. This is a bug.")
        self.shape, self.groups = shape, list(groups)
        self.done = [np.zeros(len(group.members), bool) for group in self.groups]
        self.failed = [np.zeros(len(group.members), bool) for group in self.groups]
        self.searches = (_Searches * len(self.groups))(*map(self.described, range(len(self.groups))))
        if shape.memory is None:
            shape.memory = Memory(shape, cache, banned)
        self.memory: Memory = shape.memory
        self.step = self.memory.step
        self.step.num_groups, self.step.groups = len(self.groups), ctypes.addressof(self.searches)
        self.place, self.calls = ctypes.addressof(self.step), calls

    def described(self, number: int) -> Any:
        group = self.groups[number]
        search = group.search
        numbers: list[int] = [len(search), search.num_beams]
        if isinstance(search, BeamSearch):
            search.live = np.ascontiguousarray(search.live)
            totals, finished = search.live, search.finished
            at_end: list[NDArray[Any]] = [finished.lengths, finished.ids, finished.scores, finished.totals]
            stops, end = search.stop_at_beams, search.end
        elif isinstance(search, GreedySearch):
            totals, at_end, stops, end = search.totals, [], False, search.end
        else:
            raise RuntimeError(f"the library knows no {type(search).__name__}. This is a bug.")
        numbers += [search.ids.shape[-1], end, stops, MIN_LOOP_TOKENS, CHECK_EVERY, MAX_PERIOD, MIN_REPEATS]
        arrays: list[NDArray[Any]] = [group.rows, group.slots, search.lengths, search.penalties.min_lengths]
        arrays += [search.max_lengths, search.ids, search.length_penalties, totals]
        places = [*map(address, arrays), *(map(address, at_end) if at_end else [0] * 4)]
        return _Searches(*numbers, *places, address(self.done[number]), address(self.failed[number]))

    def run(self, most: int, moments: list[float]) -> int:
        """A step; several where the graph is a chain, at most ``most``, in RUN_S, up to one that leaves things to do.

        ``moments`` gets when each of them ended. Returns what there is to look at: SOME_DONE, SOME_LOOP, SOME_MOVED.
        """
        step = self.step
        step.most_steps, step.until = min(most, MAX_STEPS), int((moments[-1] + RUN_S) * 1e9)
        step.num_steps = step.found = 0
        self.calls.repeat(self.place)
        try:
            self.shape.run()
        finally:
            if not step.num_steps:
                self.calls.repeat(0)
        if not step.num_steps:
            step.found = self.calls.advance(self.place)
            moments.append(time.monotonic())
        else:
            moments += [moment * 1e-9 for moment in self.memory.moments[: step.num_steps].tolist()]
        return int(step.found)
