"""Slow, obvious greedy and beam search: the oracle that everything faster is compared with.

Knows: the definition of the search. No cache, one sentence at a time, plain Python lists; with the PyTorch model the
whole prefix is computed anew at every step. If the engine and this disagree, the engine is wrong.

The definition (that of Transformers' ``generate`` with ``early_stopping=False``, and of Marian's normalisation):

- A hypothesis that ends has score = sum of its tokens' log-probabilities / length ** length_penalty, the end token
  counted in both.
- Each step extends the K live hypotheses by every token and ranks all extensions by their sum. Of the best 2K, those
  that end and stand among the best K are finished; the best K that do not end live on.
- The best K finished ones are kept. The search ends when there are K of them and the best live hypothesis, scored as
  if it ended at its present length, would not beat the worst of them; or at max_length, where the best K extensions
  count as finished, ended or not.
- Where ``source`` is given, a search also ends when its only, or best live, hypothesis loops. It is the answer then,
  unless beam search has a finished one.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from model.transformer import Transformer


class Hypothesis(NamedTuple):
    """Token ids without start token, with the end token where it was reached; its normalised score."""

    ids: list[int]
    score: float


Extend = Callable[[list[int], int], tuple[Tensor, Tensor]]
"""(target ids so far, n) -> log-probabilities and ids of the n best next tokens, best first."""


def constrained(
    extend: Extend, first: Sequence[int] = (), banned: Sequence[int] = (), last: int | None = None, max_length: int = 0
) -> Extend:
    """``extend``, but translations begin with ``first``, never hold ``banned``, and end with ``last`` at max_length.

    A token that must come costs nothing; what is banned keeps its probability, which nothing gets. So does
    Transformers' ``generate``.
    """

    def chosen(ids: list[int], count: int) -> tuple[Tensor, Tensor]:
        place = len(ids)
        forced = last if last is not None and place + 1 == max_length else first[place] if place < len(first) else None
        if forced is not None:
            return torch.zeros(1), torch.tensor([forced])
        values, tokens = extend(ids, count + len(banned))
        allowed = ~torch.isin(tokens, torch.tensor(list(banned), dtype=tokens.dtype))
        return values[allowed][:count], tokens[allowed][:count]

    return chosen


def extend_with(model: Transformer, source: Sequence[int], start: int) -> Extend:
    """Next tokens by the PyTorch model. ``source`` has its end token."""
    lengths = torch.tensor([len(source)])
    with torch.inference_mode():
        memory = model.encode(torch.tensor([list(source)]), lengths)

    @torch.inference_mode()
    def extend(ids: list[int], count: int) -> tuple[Tensor, Tensor]:
        states = model.decode(torch.tensor([[start, *ids]]), memory, lengths)
        log_probabilities = model.project(states[0, -1]).float().log_softmax(dim=-1)
        values, tokens = log_probabilities.topk(min(count, len(log_probabilities)))
        return values, tokens

    return extend


def run_length(ids: Sequence[int], period: int) -> int:
    """How many of the last ids are one n-gram of ``period`` tokens again and again."""
    length = min(period, len(ids))
    while length < len(ids) and ids[-length - 1] == ids[-length - 1 + period]:
        length += 1
    return length


def is_looping(ids: Sequence[int], source: Sequence[int]) -> bool:
    """At every eighth token: the last 16 or more are one n-gram of up to 16, four times or more, and more than twice as
    many as in any such run of the source, where two times are enough. Never with an empty source."""
    if len(ids) % 8 or not source:
        return False
    run = max((n for p in range(1, 17) if (n := run_length(ids, p)) >= max(16, 4 * p)), default=0)
    prefixes = [source[:n] for n in range(len(source) + 1)]
    in_source = max((n for s in prefixes for p in range(1, 17) if (n := run_length(s, p)) >= 2 * p), default=0)
    return run > 2 * in_source


def search_greedily(extend: Extend, end: int, max_length: int, source: Sequence[int] = ()) -> Hypothesis:
    """The most probable token at each step, until the end token, ``max_length`` tokens or a loop."""
    ids: list[int] = []
    total = torch.tensor(0.0)
    while len(ids) < max_length and (not ids or (ids[-1] != end and not is_looping(ids, source))):
        values, tokens = extend(ids, 1)
        ids = [*ids, int(tokens[0])]
        total = total + values[0]
    return Hypothesis(ids, float(total) / len(ids))


def search_beams(
    extend: Extend,
    end: int,
    max_length: int,
    num_beams: int,
    length_penalty: float = 1.0,
    source: Sequence[int] = (),
    stop_at_beams: bool = False,
) -> list[Hypothesis]:
    """Up to ``num_beams`` hypotheses, best first; ``stop_at_beams``: the search ends with so many finished ones."""
    live: list[tuple[Tensor, list[int]]] = [(torch.tensor(0.0), [])]
    finished: list[Hypothesis] = []
    for length in range(1, max_length + 1):
        extensions = []
        for total, ids in live:
            values, tokens = extend(ids, 2 * num_beams)
            extensions += [(total + v, [*ids, int(t)]) for v, t in zip(values, tokens, strict=True)]
        extensions.sort(key=lambda extension: -float(extension[0]))
        extensions = extensions[: 2 * num_beams]
        for total, ids in extensions[:num_beams]:
            if ids[-1] == end or length == max_length:
                finished.append(Hypothesis(ids, float(total) / length**length_penalty))
        finished = sorted(finished, key=lambda hypothesis: -hypothesis.score)[:num_beams]
        live = [(total, ids) for total, ids in extensions if ids[-1] != end][:num_beams]
        if not live:  # a vocabulary so small that every extension kept has ended
            break
        best_live = float(live[0][0]) / length**length_penalty
        if is_looping(live[0][1], source):
            return finished or [Hypothesis(live[0][1], best_live)]
        if len(finished) == num_beams and (stop_at_beams or best_live <= finished[-1].score):
            break
    return finished


def greedy_search(model: Transformer, source: Sequence[int], start: int, end: int, max_length: int) -> Hypothesis:
    """Greedy search with the PyTorch model. ``source`` has its end token."""
    return search_greedily(extend_with(model, source, start), end, max_length, source)


def beam_search(
    model: Transformer,
    source: Sequence[int],
    start: int,
    end: int,
    max_length: int,
    num_beams: int,
    length_penalty: float = 1.0,
) -> list[Hypothesis]:
    """Beam search with the PyTorch model. ``source`` has its end token."""
    return search_beams(extend_with(model, source, start), end, max_length, num_beams, length_penalty, source)


@torch.inference_mode()
def batch_greedy(
    model: Transformer,
    sources: Sequence[Sequence[int]],
    pad: int,
    start: int,
    end: int,
    max_length: int,
    first: Sequence[int] = (),
) -> list[list[int]]:
    """Greedy ids, end token left out, of many sources at once: for looking at translations while training.

    Args:
        first: token ids that every translation begins with.
    """
    lengths = torch.tensor([len(ids) for ids in sources])
    source = torch.full((len(sources), int(lengths.max())), pad)
    for row, ids in enumerate(sources):
        source[row, : len(ids)] = torch.tensor(list(ids))
    device = model.positions.device
    lengths = lengths.to(device)
    memory = model.encode(source.to(device), lengths)
    target = torch.tensor([[start, *first]] * len(sources), device=device)
    ended = torch.zeros(len(sources), dtype=torch.bool, device=device)
    while target.shape[1] <= max_length and not bool(ended.all()):
        best = model.project(model.decode(target, memory, lengths)[:, -1]).argmax(dim=-1)
        target = torch.cat([target, best.masked_fill(ended, pad)[:, None]], dim=1)
        ended |= best == end
    return [[int(t) for t in row if t not in (pad, end)] for row in target[:, 1:].tolist()]


def with_penalties(
    extend: Extend, end: int, vocab_size: int, ngram_size: int = 0, repetition_penalty: float = 1.0, min_length: int = 0
) -> Extend:
    """``extend`` with what service/decoding/penalties.py defines, applied to the whole vocabulary."""

    def penalized(ids: list[int], count: int) -> tuple[Tensor, Tensor]:
        best, tokens = extend(ids, vocab_size)
        values = torch.empty(vocab_size)
        values[tokens] = best
        for token in set(ids):
            values[token] *= repetition_penalty
        seen = [ids[i : i + ngram_size] for i in range(len(ids) - ngram_size + 1)] if ngram_size else []
        for token in range(vocab_size):
            if [*ids, token][-ngram_size:] in seen or (token == end and len(ids) < min_length):
                values[token] = -torch.inf
        result = values.topk(min(count, vocab_size))
        return result.values, result.indices

    return penalized
