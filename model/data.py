"""Batches of token ids for training and validation.

Knows: mixing corpora by weight, shuffling, batching by length, padding, where it stands. Does not know: text, models.

The stream is cut into chunks. Chunk c is a pure function of (seed, c): which pairs it holds, how they are batched and
in what order. A position is (chunk, batch in it), so a run that resumes sees exactly the batches it would have seen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.permutation import permuted
from model.subword_dropout import SubwordDropout
from model.token_store import TokenStore

PAIRS_PER_CHUNK = 50_000


@dataclass(frozen=True, slots=True)
class Batch:
    """Token ids of B pairs, padded to the longest.

    source (B, S): tokens and end token. target_in (B, T): start token and tokens. target_out (B, T): tokens and end
    token, the labels. source_lengths (B,): real tokens of each source. Example, with start 2, end 2, pad 1:

        source      [[5, 6, 2], [7, 2, 1]]      source_lengths [3, 2]
        target_in   [[2, 8, 9], [2, 4, 1]]      target_out     [[8, 9, 2], [4, 2, 1]]
    """

    source: Tensor
    source_lengths: Tensor
    target_in: Tensor
    target_out: Tensor
    num_target_tokens: int
    name: str = ""

    def to(self, device: torch.device) -> "Batch":
        arrays = (self.source, self.source_lengths, self.target_in, self.target_out)
        source, lengths, target_in, target_out = (array.to(device, non_blocking=True) for array in arrays)
        return Batch(source, lengths, target_in, target_out, self.num_target_tokens, self.name)


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Ids of the tokens that stand for no text."""

    pad: int
    start: int
    end: int


def make_batch(
    sources: Sequence[NDArray[np.generic]],
    targets: Sequence[NDArray[np.generic]],
    special: SpecialTokens,
    name: str = "",
) -> Batch:
    width_in = max(map(len, sources)) + 1
    width_out = max(map(len, targets)) + 1
    source = np.full((len(sources), width_in), special.pad, np.int64)
    target_in = np.full((len(sources), width_out), special.pad, np.int64)
    target_out = np.full_like(target_in, special.pad)
    for row, (source_ids, target_ids) in enumerate(zip(sources, targets, strict=True)):
        source[row, : len(source_ids)] = source_ids
        source[row, len(source_ids)] = special.end
        target_in[row, 0] = special.start
        target_in[row, 1 : len(target_ids) + 1] = target_ids
        target_out[row, : len(target_ids)] = target_ids
        target_out[row, len(target_ids)] = special.end
    lengths = np.array([len(ids) + 1 for ids in sources])
    return Batch(
        source=torch.from_numpy(source),
        source_lengths=torch.from_numpy(lengths),
        target_in=torch.from_numpy(target_in),
        target_out=torch.from_numpy(target_out),
        num_target_tokens=sum(len(ids) + 1 for ids in targets),
        name=name,
    )


def cut_by_tokens(lengths: NDArray[np.integer], max_tokens: int) -> list[NDArray[np.intp]]:
    """Groups of indices of similar length; a group's padded size, on either side, is at most ``max_tokens``.

    Args:
        lengths: (N, 2) tokens of source and target. A pair longer than max_tokens makes a group of its own.
    """
    order = np.lexsort((lengths[:, 0], lengths[:, 1]))
    groups, start, longest = [], 0, 0
    for end, pair in enumerate(order):
        longest_with = max(longest, int(lengths[pair].max()) + 1)
        if end > start and longest_with * (end - start + 1) > max_tokens:
            groups.append(order[start:end])
            start, longest_with = end, int(lengths[pair].max()) + 1
        longest = longest_with
    groups.append(order[start:])
    return groups


class BatchStream:
    """An endless, resumable stream of training batches from several corpora.

    Args:
        stores: the corpora.
        weights: how many pairs to take from each, relative to one another.
        max_tokens: padded tokens of a batch on either side.
        process, num_processes: of every ``num_processes`` batches in a row, this stream makes number ``process``; its
            position moves over all of them, so it is the same in every process.
        subword_dropout: cuts words anew in each batch; batches are still planned by the lengths in the stores.
    """

    def __init__(
        self,
        stores: Sequence[TokenStore],
        weights: Sequence[float],
        special: SpecialTokens,
        max_tokens: int,
        seed: int,
        process: int = 0,
        num_processes: int = 1,
        subword_dropout: SubwordDropout | None = None,
    ) -> None:
        self.process, self.num_processes = process, num_processes
        self.subword_dropout = subword_dropout
        self.stores, self.special, self.max_tokens, self.seed = stores, special, max_tokens, seed
        size = min(PAIRS_PER_CHUNK, sum(len(store) for store in stores))
        shares = np.asarray(weights, float) / sum(weights)
        self.pairs_per_chunk = np.maximum(1, np.round(shares * size)).astype(int)
        self.chunk = 0
        self.batch = 0

    def position(self) -> dict[str, int]:
        return {"chunk": self.chunk, "batch": self.batch}

    def seek(self, position: dict[str, int]) -> None:
        self.chunk, self.batch = position["chunk"], position["batch"]

    def pairs_of_chunk(self, chunk: int) -> list[tuple[int, int]]:
        """(corpus, pair) of the chunk: each corpus is read in a new random order every epoch, none left out."""
        chosen: list[tuple[int, int]] = []
        for corpus, (store, count) in enumerate(zip(self.stores, self.pairs_per_chunk, strict=True)):
            first = chunk * int(count)
            for epoch in range(first // len(store), (first + int(count) - 1) // len(store) + 1):
                begin = max(first - epoch * len(store), 0)
                end = min(first + int(count) - epoch * len(store), len(store))
                order = permuted(np.arange(begin, end), len(store), [self.seed, corpus, epoch])
                chosen.extend((corpus, pair) for pair in order.tolist())
        return chosen

    def batches_of_chunk(self, chunk: int) -> list[list[tuple[int, int]]]:
        pairs = self.pairs_of_chunk(chunk)
        lengths = np.array([self.stores[corpus].lengths[pair] for corpus, pair in pairs])
        groups = cut_by_tokens(lengths, self.max_tokens)
        order = np.random.default_rng([self.seed, 1 << 20, chunk]).permutation(len(groups))
        return [[pairs[i] for i in groups[g]] for g in order]

    def references(self) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
        """Chunk, number in it and (corpus, pair) of every batch, for all processes."""
        while True:
            batches = self.batches_of_chunk(self.chunk)
            while self.batch < len(batches):
                number = self.batch
                self.batch += 1  # before the batch is handed out: the position is that of the next one
                yield self.chunk, number, batches[number]
            self.chunk, self.batch = self.chunk + 1, 0

    def cut_anew(
        self, sequences: list[NDArray[np.generic]], chunk: int, number: int, side: int
    ) -> list[NDArray[np.generic]]:
        """The sequences of one side of a batch after subword dropout: again a pure function of seed and batch."""
        if self.subword_dropout is None:
            return sequences
        return self.subword_dropout(sequences, np.random.default_rng([self.seed, 1 << 21, chunk, number, side]))

    def __iter__(self) -> Iterator[Batch]:
        references = self.references()
        while True:
            chunk, number, pairs = list(islice(references, self.num_processes))[self.process]
            sources = [self.stores[corpus].source(pair) for corpus, pair in pairs]
            targets = [self.stores[corpus].target(pair) for corpus, pair in pairs]
            corpus, pair = pairs[0]
            yield make_batch(
                self.cut_anew(sources, chunk, number, 0),
                self.cut_anew(targets, chunk, number, 1),
                self.special,
                f"chunk {chunk} batch {number} (corpus {corpus}, pair {pair} and others)",
            )


def validation_batches(stores: Sequence[TokenStore], special: SpecialTokens, max_tokens: int) -> Iterator[Batch]:
    """Every pair of every store once, in batches of similar length."""
    for store in stores:
        for group in cut_by_tokens(np.asarray(store.lengths), max_tokens):
            yield make_batch([store.source(i) for i in group], [store.target(i) for i in group], special)
