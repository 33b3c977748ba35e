"""The rows and sentences a worker is decoding, and how they are laid out.

Knows: which rows of the cache belong to which beam of which sentence. Does not know: ONNX, queues, threads.

A sentence has one slot (its cross-attention keys and values) and one row per beam. Slots in use are 0 to N-1 and rows
0 to R-1; holes that finished sentences leave are filled by new ones, or by the last ones, which move.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.decoding.options import MAX_BEAMS
from service.decoding.search import Search
from service.engine.request import Sentence


@dataclass(slots=True, eq=False)
class Active:
    """A sentence being decoded, and when its stages began (monotonic seconds)."""

    sentence: Sentence
    admitted_at: float
    encoded_at: float


@dataclass(slots=True)
class Group:
    """Sentences of one beam width K. rows (n, K): the row of each beam; slots (n,): the slot of each sentence."""

    search: Search
    members: list[Active]
    rows: NDArray[np.intp]
    slots: NDArray[np.intp]

    def first(self) -> list[tuple[int, ...]]:
        """Of each sentence, the tokens that its translation must begin with."""
        return [member.sentence.first for member in self.members]


@dataclass(frozen=True, slots=True)
class Moves:
    """Copies that the cache must make: ``sources`` to ``targets``, which share no element."""

    sources: NDArray[np.intp]
    targets: NDArray[np.intp]


PLACES = [np.arange(beams) for beams in range(MAX_BEAMS + 1)]
NO_MOVES = Moves(np.zeros(0, np.intp), np.zeros(0, np.intp))


class RunningBatch:
    """All groups of a worker."""

    def __init__(self, max_rows: int) -> None:
        self.max_rows = max_rows
        self.groups: dict[int, Group] = {}
        self.row_used = np.zeros(max_rows, bool)
        self.slot_used = np.zeros(max_rows, bool)
        self.has_holes = False

    @property
    def num_rows(self) -> int:
        return sum(group.rows.size for group in self.groups.values())

    @property
    def num_sentences(self) -> int:
        return sum(len(group.members) for group in self.groups.values())

    @property
    def end_slot(self) -> int:
        """All slots from this one on are free."""
        return int(self.slot_used.nonzero()[0].max(initial=-1)) + 1 if self.has_holes else self.num_sentences

    def add(self, search: Search, members: list[Active]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Gives new sentences rows (m, K) and slots (m,), the lowest free ones, and returns them."""
        beams = search.num_beams
        rows = self.lowest_free(self.row_used, self.num_rows, len(members) * beams).reshape(-1, beams)
        slots = self.lowest_free(self.slot_used, self.num_sentences, len(members))
        asked = [member.sentence for member in members]
        sources = [s.source if s.stop_repetition else () for s in asked]
        search.admit([s.options for s in asked], [s.max_length for s in asked], sources)
        if (group := self.groups.get(beams)) is None:
            self.groups[beams] = Group(search, list(members), rows, slots)
        else:
            group.members += members
            group.rows, group.slots = np.concatenate([group.rows, rows]), np.concatenate([group.slots, slots])
        return rows, slots

    def lowest_free(self, used: NDArray[np.bool_], num_used: int, count: int) -> NDArray[np.intp]:
        """Takes the ``count`` lowest ones that are not ``used``, of which ``num_used`` are."""
        if num_used + count > self.max_rows:
            raise RuntimeError("more sentences were admitted than there are rows. This is a bug.")
        free = np.flatnonzero(~used)[:count] if self.has_holes else np.arange(num_used, num_used + count)
        used[free] = True
        return free

    def drop(self, beams: int, which: NDArray[np.bool_]) -> None:
        """Frees the rows and slots of the sentences of group ``beams`` for which ``which`` (n,) is true."""
        group = self.groups[beams]
        self.has_holes = True
        kept = (~which).nonzero()[0]
        if not len(kept):
            self.row_used[group.rows] = self.slot_used[group.slots] = False
            del self.groups[beams]
            return
        self.row_used[group.rows[which]] = self.slot_used[group.slots[which]] = False
        group.search.keep(kept)
        group.members = [group.members[sentence] for sentence in kept.tolist()]
        group.rows, group.slots = group.rows.take(kept, axis=0), group.slots.take(kept)

    def compact(self) -> tuple[Moves, Moves]:
        """Moves the last rows and slots into the holes; returns the copies to make for rows and for slots."""
        if not self.has_holes:
            return NO_MOVES, NO_MOVES
        self.has_holes = False
        if not self.groups:
            return NO_MOVES, NO_MOVES
        row_moves, slot_moves = self.close_holes(self.row_used), self.close_holes(self.slot_used)
        for moves, name in ((row_moves, "rows"), (slot_moves, "slots")):
            if len(moves.sources):
                place = np.arange(self.max_rows)
                place[moves.sources] = moves.targets
                for group in self.groups.values():
                    setattr(group, name, place[getattr(group, name)])
        return row_moves, slot_moves

    @staticmethod
    def close_holes(used: NDArray[np.bool_]) -> Moves:
        count = int(used.sum())
        targets = np.flatnonzero(~used[:count])
        sources = np.flatnonzero(used[count:]) + count
        used[targets], used[sources] = True, False
        return Moves(sources, targets)

    def layout(self, width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How cross-attention finds its queries when each sentence has ``width`` places for beams.

        Returns:
            query_rows (N * width,): the row at each place; a sentence of fewer beams repeats its first.
            row_queries (R,): the place of each row.
        """
        query_rows = np.empty((self.num_sentences, width), np.int64)
        row_queries = np.empty(self.num_rows, np.int64)
        for beams, group in self.groups.items():
            query_rows[group.slots, :beams] = group.rows
            if beams < width:
                query_rows[group.slots, beams:] = group.rows[:, :1]
            row_queries[group.rows] = group.slots[:, None] * width + PLACES[beams]
        return query_rows.reshape(-1), row_queries

    @staticmethod
    def reorder(group: Group, parents: NDArray[np.intp]) -> Moves | None:
        """Gives every beam a row that will hold its parent's past, with as few copies as possible.

        The first child of a parent keeps the parent's row; further children get rows whose beams have no child.
        Example: rows [10, 11, 12, 13], parents [0, 0, 1, 2] -> rows [10, 13, 11, 12], one copy, 10 to 13.

        Returns:
            None where every beam keeps its row.
        """
        # Lists: up to 30 sentences of 4 beams that is faster than array operations, of which it takes a dozen.
        beams = group.rows.shape[1]
        itself = list(range(beams))
        wanted = parents.tolist()
        if all(own == itself for own in wanted):
            return None
        sources: list[int] = []
        targets: list[int] = []
        new = group.rows.tolist()
        for sentence, own in enumerate(wanted):
            if own == itself:
                continue
            rows, spare = new[sentence], [beam for beam in itself if beam not in own]
            new[sentence] = [rows[parent] for parent in own]
            if not spare:
                continue
            with_child: set[int] = set()
            for beam, parent in enumerate(own):
                if parent in with_child:
                    sources.append(rows[parent])
                    new[sentence][beam] = rows[spare.pop(0)]
                    targets.append(new[sentence][beam])
                with_child.add(parent)
        group.rows = np.array(new, np.intp)
        return Moves(np.array(sources, np.intp), np.array(targets, np.intp)) if sources else NO_MOVES
