"""The plain loop is the same network with the same loss, and so is every loop with a part put back."""

import sys
from pathlib import Path

import pytest
import torch

from benchmarks import out_of_core, training, training_loops
from benchmarks.plain_loop import PlainLoop, PlainModel
from benchmarks.training_loops import PAD, Contender, OurLoop, Setup, cut_in_order, made_up_batches, put_back
from model import objective, transformer
from model.config import ModelConfig
from model.transformer import Transformer

SMALL = Setup(
    precision="fp32",
    vocab_size=200,
    model_width=32,
    feed_forward_width=64,
    num_encoder_layers=2,
    num_decoder_layers=2,
    max_tokens=300,
    threads=1,
)
pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")


def small_model(norm: str = "pre") -> Transformer:
    torch.manual_seed(3)
    model = Transformer(ModelConfig(200, 32, 4, 64, 2, 3, norm=norm, dropout=0.0))
    with torch.no_grad():  # biases and norms begin at zero and one, where a wrong place would not be seen
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_plain_model_holds_our_weights(norm: str) -> None:
    ours = small_model(norm)
    batch = next(made_up_batches(SMALL.changed(by_length=False)))
    wanted = ours(batch.source, batch.source_lengths, batch.target_in)
    found = PlainModel(ours, PAD)(batch.source, batch.target_in)
    assert (batch.target_out == PAD).any()
    real = batch.target_out != PAD
    assert torch.allclose(found[real], wanted[real], atol=1e-4)


@pytest.mark.parametrize(
    "changes", [{}, {"loss": "whole"}, {"attention": "fused"}, {"residual": "fp32"}, {"optimizer": "default adam"}]
)
def test_losses_are_the_plain_loops(changes: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((objective, "smoothed_cross_entropy"), (transformer, "scaled_dot_product_attention")):
        monkeypatch.setattr(module, name, getattr(module, name))  # so that what put_back does is undone
    monkeypatch.setattr(Transformer, "embed", Transformer.embed)
    put_back(SMALL.changed(**changes))
    plain = PlainLoop(small_model(), PAD, 0.1, "fp32")
    ours = OurLoop(small_model(), SMALL.changed(**changes))
    batches = made_up_batches(SMALL)
    losses = [(ours.step(batch, 1e-3), plain.step(batch, 1e-3)) for batch, _ in zip(batches, range(6), strict=False)]
    assert all(a == pytest.approx(b, rel=1e-4) for a, b in losses)
    assert losses[-1][0] < losses[0][0]


def test_batches_are_the_same_for_the_same_seed_and_within_the_limit() -> None:
    for setup in (SMALL, SMALL.changed(by_length=False)):
        for one, other, _ in zip(made_up_batches(setup), made_up_batches(setup), range(20), strict=False):
            assert torch.equal(one.target_out, other.target_out)
            assert max(one.source.numel(), one.target_in.numel()) <= setup.max_tokens
    lengths = training_loops.np.array([[3, 2], [5, 5], [1, 1], [9, 2]])
    assert [group.tolist() for group in cut_in_order(lengths, 12)] == [[0, 1], [2], [3]]


def test_batches_by_length_have_less_padding() -> None:
    def fill(setup: Setup) -> float:
        batches = [batch for batch, _ in zip(made_up_batches(setup), range(30), strict=False)]
        return sum(b.num_target_tokens for b in batches) / sum(b.target_in.numel() for b in batches)

    assert fill(SMALL) > 1.3 * fill(SMALL.changed(by_length=False))


def test_a_contender_steps_when_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    contender = Contender(SMALL)
    try:
        first, second = contender.step(), contender.step()
    finally:
        contender.close()
    assert not contender.process.is_alive()
    expected = [timing.loss for timing, _ in zip(training_loops.steps(SMALL), range(2), strict=False)]
    assert [first.loss, second.loss] == pytest.approx(expected, rel=1e-5)
    assert first.tokens_per_s > 0


def test_a_loss_that_is_no_number_is_no_agreement(monkeypatch: pytest.MonkeyPatch) -> None:
    curves = [[1.0] * 20, [1.0] * 10 + [float("nan")] * 10]
    timings = tuple([training_loops.Timing(1.0, 1.0, loss) for loss in curve] for curve in curves)
    monkeypatch.setattr(training, "compare", lambda *_: timings)
    assert training.beside_plain_loop(SMALL, 18, 2)["largest_loss_difference"] == float("inf")


def test_ratios_are_seen_from_the_right_side() -> None:
    row = {"tokens_per_s": 10.0, "other_tokens_per_s": 20.0, "ratio": 0.5, "ratio_quartiles": [0.4, 0.8]}
    turned = training.turned(row | {"ratio_by_cpu_time": 0.5})
    assert (turned["tokens_per_s"], turned["ratio"], turned["ratio_quartiles"]) == (20.0, 2.0, [1.25, 2.5])
    assert training.smoothed([float(n) for n in range(25)]) == [4.5, 14.5]


def test_memory_of_small_corpora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [out_of_core.measure(size, tmp_path) for size in (500, 1500)]
    assert [row["pairs"] for row in found] == [row["kept"] for row in found] == [500, 1500]
    assert all(row["preparing_mb"] >= row["before_mb"] > 1 for row in found)
    assert (tmp_path / "pairs.tsv").read_text().count("\n") == 1500
    # What grows is seen: an array of the size of a gigabyte would fail the command.
    rows = [found[0], found[1] | {"reading_mb": found[0]["reading_mb"] + 300}]
    assert out_of_core.growth(rows) == pytest.approx(300)
    monkeypatch.setattr(out_of_core, "measure_alone", lambda size, _: rows.pop(0))
    out = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["out_of_core.py", "--pairs", "500,1500", "--out", str(out)])
    assert out_of_core.main() == 1
    assert out.exists()
