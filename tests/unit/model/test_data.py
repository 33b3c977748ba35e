"""Batches: every pair once an epoch, none above the limit, the same after a resume."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.config import CorpusConfig
from model.data import Batch, BatchStream, SpecialTokens, cut_by_tokens, make_batch, validation_batches
from model.token_store import TokenStore, prepare
from service.runtime.tokenizer import Tokenizer

SPECIAL = SpecialTokens(pad=1, start=2, end=2)


@pytest.fixture(scope="module")
def store(corpus: CorpusConfig, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    return prepare(corpus, tokenizer, tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def small_store(corpus_file: Path, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    config = CorpusConfig(name="small", tsv=str(corpus_file), max_pairs=100)
    return prepare(config, tokenizer, tmp_path_factory.mktemp("small"))


def same(one: Batch, other: Batch) -> bool:
    names = ("source", "source_lengths", "target_in", "target_out")
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)


def test_batch_layout() -> None:
    """The example of Batch's own docstring."""
    batch = make_batch([np.array([5, 6]), np.array([7])], [np.array([8, 9]), np.array([4])], SPECIAL)
    assert batch.source.tolist() == [[5, 6, 2], [7, 2, 1]]
    assert batch.source_lengths.tolist() == [3, 2]
    assert batch.target_in.tolist() == [[2, 8, 9], [2, 4, 1]]
    assert batch.target_out.tolist() == [[8, 9, 2], [4, 2, 1]]
    assert batch.num_target_tokens == 5


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=80), st.integers(10, 200))
def test_groups_hold_every_pair_once_within_the_limit(lengths: list[tuple[int, int]], max_tokens: int) -> None:
    array = np.array(lengths)
    groups = cut_by_tokens(array, max_tokens)
    assert sorted(int(i) for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) >= 1
        assert len(group) == 1 or (array[group].max() + 1) * len(group) <= max_tokens


def test_every_pair_once_an_epoch(store: TokenStore, small_store: TokenStore) -> None:
    stream = BatchStream([store, small_store], [1.0, 1.0], SPECIAL, 300, seed=3)
    per_chunk = int(stream.pairs_per_chunk[1])
    chunks = -(-2 * len(small_store) // per_chunk)
    seen = [pair for chunk in range(chunks) for pair in stream.pairs_of_chunk(chunk) if pair[0] == 1]
    first, second = seen[: len(small_store)], seen[len(small_store) : 2 * len(small_store)]
    assert sorted(first) == sorted(second) == [(1, pair) for pair in range(len(small_store))]
    assert first != second


def test_weights_decide_the_share(store: TokenStore, small_store: TokenStore) -> None:
    stream = BatchStream([store, small_store], [1.0, 3.0], SPECIAL, 300, seed=3)
    counts = Counter(corpus for chunk in range(4) for corpus, _ in stream.pairs_of_chunk(chunk))
    assert counts[1] == pytest.approx(3 * counts[0], rel=0.01)


def test_batches_of_a_chunk_are_its_pairs(store: TokenStore) -> None:
    stream = BatchStream([store], [1.0], SPECIAL, 300, seed=3)
    batches = stream.batches_of_chunk(0)
    assert sorted(pair for batch in batches for pair in batch) == sorted(stream.pairs_of_chunk(0))
    sizes = [max(int(store.lengths[pair].max()) + 1 for _, pair in batch) * len(batch) for batch in batches]
    assert max(sizes) <= 300
    lengths = [int(store.lengths[batch[0][1]].max()) for batch in batches]
    assert lengths != sorted(lengths), "batches come in random order"


def test_iteration_hands_out_every_pair_of_a_chunk(small_store: TokenStore) -> None:
    stream = BatchStream([small_store], [1.0], SPECIAL, 150, seed=5)
    num_rows = 0
    for batch in stream:
        if stream.chunk == 1:
            break
        num_rows += len(batch.source)
    assert num_rows == len(small_store)


def test_resume_from_any_position_gives_the_same_batches(small_store: TokenStore) -> None:
    stream = BatchStream([small_store], [1.0], SPECIAL, 150, seed=5)
    batches = iter(stream)
    positions, seen = [], []
    for _ in range(30):  # more than one chunk
        positions.append(stream.position())
        seen.append(next(batches))
    assert positions[-1]["chunk"] >= 1
    for number in (0, 1, 7, 15, 29):
        again = BatchStream([small_store], [1.0], SPECIAL, 150, seed=5)
        again.seek(positions[number])
        resumed = iter(again)
        assert all(same(next(resumed), batch) for batch in seen[number:])


def test_processes_share_the_batches(small_store: TokenStore) -> None:
    """Two processes make together what one makes, in turn, and stand at the same place."""
    alone = BatchStream([small_store], [1.0], SPECIAL, 150, seed=5)
    shares = [BatchStream([small_store], [1.0], SPECIAL, 150, seed=5, process=n, num_processes=2) for n in (0, 1)]
    whole, first, second = iter(alone), iter(shares[0]), iter(shares[1])
    for _ in range(20):  # more than one chunk
        assert same(next(first), next(whole))
        assert same(next(second), next(whole))
        assert shares[0].position() == shares[1].position() == alone.position()
    assert alone.position()["chunk"] >= 1


def test_another_seed_gives_another_order(small_store: TokenStore) -> None:
    one, other = (BatchStream([small_store], [1.0], SPECIAL, 150, seed=seed).pairs_of_chunk(0) for seed in (1, 2))
    assert one != other


def test_validation_reads_everything_once(small_store: TokenStore) -> None:
    batches = list(validation_batches([small_store], SPECIAL, 150))
    assert sum(len(batch.source) for batch in batches) == len(small_store)
    assert sum(batch.num_target_tokens for batch in batches) == int(small_store.lengths[:, 1].sum()) + len(small_store)
