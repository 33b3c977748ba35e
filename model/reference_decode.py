"""Slow, obvious greedy and beam search: the oracle that everything faster is compared with.

Knows: the model, and the definition of the search. No cache, one sentence at a time, the whole prefix computed anew at
every step, plain Python lists. If the engine and this disagree, the engine is wrong.

The definition (that of Transformers' ``generate`` with ``early_stopping=False``, and of Marian's normalisation):

- A hypothesis that ends has score = sum of its tokens' log-probabilities / length ** length_penalty, the end token
  counted in both.
- Each step extends the K live hypotheses by every token and ranks all extensions by their sum. Of the best 2K, those
  that end and stand among the best K are finished; the best K that do not end live on.
- The best K finished ones are kept. The search ends when there are K of them and the best live hypothesis, scored as
  if it ended at its present length, would not beat the worst of them; or at max_length, where the best K extensions
  count as finished, ended or not.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from model.transformer import Transformer


class Hypothesis(NamedTuple):
    """Token ids without start token, with the end token where it was reached; its normalised score."""

    ids: list[int]
    score: float


def next_log_probabilities(model: Transformer, memory: Tensor, source_length: int, prefix: list[int]) -> Tensor:
    """Log-probabilities (V,) of the token after ``prefix``."""
    lengths = torch.tensor([source_length])
    states = model.decode(torch.tensor([prefix]), memory, lengths)
    return model.project(states[0, -1]).float().log_softmax(dim=-1)


@torch.inference_mode()
def greedy_search(model: Transformer, source: Sequence[int], start: int, end: int, max_length: int) -> Hypothesis:
    """The most probable token at each step, up to the end token or ``max_length``. ``source`` has its end token."""
    memory = model.encode(torch.tensor([list(source)]), torch.tensor([len(source)]))
    ids: list[int] = []
    total = torch.tensor(0.0)
    while len(ids) < max_length and (not ids or ids[-1] != end):
        log_probabilities = next_log_probabilities(model, memory, len(source), [start, *ids])
        ids.append(int(log_probabilities.argmax()))
        total = total + log_probabilities[ids[-1]]
    return Hypothesis(ids, float(total) / len(ids))


@torch.inference_mode()
def beam_search(
    model: Transformer,
    source: Sequence[int],
    start: int,
    end: int,
    max_length: int,
    num_beams: int,
    length_penalty: float = 1.0,
) -> list[Hypothesis]:
    """Up to ``num_beams`` hypotheses, best first. ``source`` has its end token."""
    memory = model.encode(torch.tensor([list(source)]), torch.tensor([len(source)]))
    live: list[tuple[Tensor, list[int]]] = [(torch.tensor(0.0), [])]
    finished: list[Hypothesis] = []
    for length in range(1, max_length + 1):
        extensions = []
        for total, ids in live:
            log_probabilities = next_log_probabilities(model, memory, len(source), [start, *ids])
            values, tokens = log_probabilities.topk(min(2 * num_beams, len(log_probabilities)))
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
        if len(finished) == num_beams and best_live <= finished[-1].score:
            break
    return finished


@torch.inference_mode()
def batch_greedy(
    model: Transformer, sources: Sequence[Sequence[int]], pad: int, start: int, end: int, max_length: int
) -> list[list[int]]:
    """Greedy ids, end token left out, of many sources at once: for looking at translations while training."""
    lengths = torch.tensor([len(ids) for ids in sources])
    source = torch.full((len(sources), int(lengths.max())), pad)
    for row, ids in enumerate(sources):
        source[row, : len(ids)] = torch.tensor(list(ids))
    device = model.positions.device
    lengths = lengths.to(device)
    memory = model.encode(source.to(device), lengths)
    target = torch.full((len(sources), 1), start, device=device)
    ended = torch.zeros(len(sources), dtype=torch.bool, device=device)
    while target.shape[1] <= max_length and not bool(ended.all()):
        best = model.project(model.decode(target, memory, lengths)[:, -1]).argmax(dim=-1)
        target = torch.cat([target, best.masked_fill(ended, pad)[:, None]], dim=1)
        ended |= best == end
    return [[int(t) for t in row if t not in (pad, end)] for row in target[:, 1:].tolist()]
