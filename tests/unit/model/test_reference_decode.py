"""The oracle against something slower still: every possible translation, scored."""

import itertools
import math

import pytest
import torch

from model.config import ModelConfig
from model.reference_decode import batch_greedy, beam_search, greedy_search
from model.transformer import Transformer

PAD, END, VOCAB = 1, 2, 5


@pytest.fixture
def model() -> Transformer:
    config = ModelConfig(
        vocab_size=VOCAB, model_width=16, num_heads=2, feed_forward_width=32, num_encoder_layers=1, num_decoder_layers=1
    )
    model = Transformer(config).eval()
    with torch.no_grad():  # spread the distribution, so that searches differ
        model.source_embedding.weight *= 4
    return model


def score_of(model: Transformer, source: list[int], ids: tuple[int, ...], length_penalty: float) -> float:
    logits = model(torch.tensor([source]), torch.tensor([len(source)]), torch.tensor([[END, *ids[:-1]]]))
    log_probabilities = logits[0].float().log_softmax(dim=-1)
    total = sum(float(log_probabilities[place, token]) for place, token in enumerate(ids))
    return total / len(ids) ** length_penalty


def every_translation(max_length: int) -> list[tuple[int, ...]]:
    """All sequences that end with the end token, or are max_length long without it."""
    others = [token for token in range(VOCAB) if token != END]
    found = []
    for length in range(1, max_length + 1):
        for body in itertools.product(others, repeat=length - 1):
            found += [(*body, last) for last in (range(VOCAB) if length == max_length else (END,))]
    return found


@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("source", [[3, 4, END], [4, 0, 3, END]])
@torch.inference_mode()
def test_wide_beam_finds_the_best_of_all(model: Transformer, source: list[int], length_penalty: float) -> None:
    max_length, width = 3, VOCAB**3
    scored = sorted((score_of(model, source, ids, length_penalty), ids) for ids in every_translation(max_length))
    found = beam_search(model, source, END, END, max_length, width, length_penalty)
    for hypothesis, (score, ids) in zip(found[:5], reversed(scored), strict=False):
        assert tuple(hypothesis.ids) == ids
        assert hypothesis.score == pytest.approx(score, abs=1e-5)


@torch.inference_mode()
def test_greedy_takes_the_most_probable_token_each_time(model: Transformer) -> None:
    source = [3, 4, 0, END]
    found = greedy_search(model, source, END, END, max_length=6)
    prefix = [END]
    for token in found.ids:
        logits = model(torch.tensor([source]), torch.tensor([4]), torch.tensor([prefix]))
        assert token == int(logits[0, -1].argmax())
        prefix.append(token)
    assert len(found.ids) == 6 or found.ids[-1] == END
    assert found.score == pytest.approx(score_of(model, source, tuple(found.ids), 1.0), abs=1e-5)


@torch.inference_mode()
def test_hypotheses_are_sorted_distinct_and_scored_as_defined(model: Transformer) -> None:
    source = [4, 3, END]
    found = beam_search(model, source, END, END, max_length=8, num_beams=4, length_penalty=0.8)
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    assert len({tuple(h.ids) for h in found}) == len(found) == 4
    for hypothesis in found:
        assert END not in hypothesis.ids[:-1]
        assert hypothesis.score == pytest.approx(score_of(model, source, tuple(hypothesis.ids), 0.8), abs=1e-5)
        assert math.isfinite(hypothesis.score)


@torch.inference_mode()
def test_batch_of_different_lengths_equals_one_at_a_time(model: Transformer) -> None:
    sources = [[3, END], [4, 3, 0, 3, END], [0, 4, END]]
    alone = [greedy_search(model, source, END, END, 7).ids for source in sources]
    expected = [[token for token in ids if token not in (PAD, END)] for ids in alone]
    assert batch_greedy(model, sources, PAD, END, END, 7) == expected
