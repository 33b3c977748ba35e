"""What the benchmarks time is what they say they time."""

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import random_model
from benchmarks.forced_decode import ForcedDecode
from benchmarks.open_loop import Outcome, arrivals
from benchmarks.products import Product, Products, products_of
from model.config import ModelConfig
from model.reference_decode import beam_search, greedy_search
from model.transformer import Transformer
from service.runtime.bundle import Bundle
from service.runtime.tokenizer import Tokenizer
from tests.conftest import random_model as nonsense_model
from tests.conftest import sentences

SMALL = ModelConfig(
    vocab_size=64, model_width=32, num_heads=2, feed_forward_width=48, num_encoder_layers=1, num_decoder_layers=1
)


@pytest.mark.parametrize("precision", ["cpu-fp32", "cpu-int8", "calibrated cpu-int8"])
def test_products_are_all_those_of_the_step(
    random_transformer: Transformer,
    nonsense_bundle: Path,
    make_bundle: Callable[..., Path],
    tmp_path: Path,
    precision: str,
) -> None:
    if precision.startswith("calibrated"):
        texts, precision = tuple(sentences(40)), "cpu-int8"
        nonsense_bundle = make_bundle(
            random_transformer, tmp_path / "bundle", precisions=(precision,), calibration_texts=texts
        )
    bundle = Bundle.open(nonsense_bundle)
    path = bundle.path(bundle.graphs(precision).decoder[4])
    layer = [(32, 96), (32, 32), (32, 32), (32, 32), (32, 64), (64, 32)]
    wanted = [Product(*shape, is_int8="int8" in precision) for shape in (*layer, *layer, (32, 318))]
    assert products_of(path) == wanted
    assert len(Products(path, 1).times_s(num_rows=3, repeats=2)) == 2


@pytest.mark.parametrize("beams", [1, 4])
def test_forced_sentences_have_their_length(nonsense_bundle: Path, beams: int) -> None:
    rig = ForcedDecode(Bundle.open(nonsense_bundle), "cpu-fp32", 1, max_rows=3 * beams)
    for _ in range(2):
        run = rig.decode(3, beams, source_tokens=5, target_tokens=9)
        assert run.num_tokens == 3 * 9
        assert len(run.steps_s) == 9


@pytest.mark.parametrize("changes", [{}, {"norm": "post", "activation": "silu", "output_bias": True}], ids=str)
def test_random_model_never_ends_a_sentence(changes: dict[str, Any]) -> None:
    tokenizer = random_model.numbered_words(SMALL.vocab_size)
    model = random_model.random_transformer(replace(SMALL, **changes), tokenizer.end, seed=1)
    [text] = random_model.texts(1, 7, SMALL.vocab_size, seed=1)
    [ids] = tokenizer.encode([text])
    assert [random_model.word(i) for i in ids] == text.split()
    assert tokenizer.decode([ids]) == [text]
    source = [*ids, tokenizer.end]
    found = greedy_search(model, source, tokenizer.start, tokenizer.end, 12).ids
    beams = beam_search(model, source, tokenizer.start, tokenizer.end, 12, 4)
    assert len(found) == 12
    assert tokenizer.end not in found
    assert {len(hypothesis.ids) for hypothesis in beams} == {12}


def test_arrivals_are_random_and_repeatable() -> None:
    times = arrivals(50.0, 100.0, seed=1)
    assert times == arrivals(50.0, 100.0, seed=1) != arrivals(50.0, 100.0, seed=2)
    assert 4700 < len(times) < 5300
    gaps = torch.tensor(times).diff()
    assert 0.9 < float(gaps.std() / gaps.mean()) < 1.1  # an exponential's spread is its mean


def test_a_call_without_answer_counts_against_the_objective() -> None:
    outcome = Outcome(rate=10.0, duration_s=10.0, num_sent=100, latencies_s=[0.1] * 98)
    assert outcome.percentile_s(0.5) == 0.1
    assert outcome.percentile_s(0.99) == float("inf")
    assert outcome.goodput(0.2) == 9.8
    assert outcome.goodput(0.05) == 0.0


@pytest.mark.skipif(
    importlib.util.find_spec("ctranslate2") is None,
    reason="compares with CTranslate2, which the extra 'peers' installs",
)
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "changes",
    [{}, {"norm": "post", "position_formula": "paper", "position_offset": 0, "activation": "gelu"},
     {"tie_embeddings": False, "activation": "silu", "scale_embeddings": False}],
)  # fmt: skip
def test_ctranslate2_gets_the_same_model(
    changes: dict[str, object], nonsense_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    from benchmarks.ctranslate2_model import Vocabulary, load, write_ctranslate2

    model, tokenizer = nonsense_model(**changes), nonsense_tokenizer
    write_ctranslate2(model, Vocabulary.of(tokenizer), tmp_path / "model")
    peer = load(tmp_path / "model", "float32", 1, 1)
    processor = tokenizer.processor
    for text in sentences(4):
        [pieces] = processor.encode([text], out_type=str)
        source = [*tokenizer.encode([text])[0], tokenizer.end]
        pieces.append(processor.id_to_piece(tokenizer.end))
        [result] = peer.translate_batch(
            [pieces], beam_size=1, max_decoding_length=15, min_decoding_length=0, return_end_token=True
        )
        right = greedy_search(model, source, tokenizer.start, tokenizer.end, 15).ids
        assert [processor.piece_to_id(piece) for piece in result.hypotheses[0]] == right
