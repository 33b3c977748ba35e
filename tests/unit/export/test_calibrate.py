"""Equalization changes nothing in float32, and brings the error of fixed scales down to that of scales per row."""

import numpy as np
import pytest
import torch

from export.calibrate import (
    MADE,
    OUTPUT,
    Recorder,
    cached_layers,
    equalize,
    record,
    sites,
)
from export.input_scales import InputScale, choose, columns_quantized
from export.write_bundle import state_arrays
from model.transformer import Transformer
from service.runtime.tokenizer import Tokenizer
from tests.conftest import END, random_model, sentences

CHANGES = [{}, {"norm": "post", "activation": "silu"}, {"activation": "gelu"}, {"output_bias": False}]


@pytest.mark.parametrize("changes", CHANGES)
def test_an_equalized_model_computes_the_same(changes: dict[str, object], nonsense_tokenizer: Tokenizer) -> None:
    model = random_model(**changes)
    tokenizer = nonsense_tokenizer
    sources = [[*ids, tokenizer.end] for ids in tokenizer.encode(sentences(12))]
    recorders = record(model, sources, tokenizer.pad, tokenizer.start, tokenizer.end)
    state, scales, caches = equalize(model, state_arrays(model), recorders)
    assert set(caches) == set(cached_layers(model))
    layers = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert set(scales) == {*layers, OUTPUT}, "every product has a fixed scale"
    divided = {reader for site in sites(model) if not site.makers for reader in site.readers}
    assert {name for name, scale in scales.items() if scale.factors is not None} <= divided
    other = Transformer(model.config).eval()
    names = other.state_dict().keys()
    other.load_state_dict({name: torch.from_numpy(np.asarray(state[name], np.float32)) for name in names})
    source, lengths = torch.tensor([sources[0]]), torch.tensor([len(sources[0])])
    target = torch.tensor([[tokenizer.start, 270, 280, 290]])
    with torch.inference_mode():
        wanted = model(source, lengths, target)
        states = other.decode(target, other.encode(source, lengths), lengths)
        found = states @ torch.from_numpy(np.asarray(state[f"{OUTPUT}.weight"].T, np.float32))
        found = found + torch.from_numpy(np.asarray(state[f"{OUTPUT}.bias"], np.float32))
    assert torch.allclose(found, wanted, atol=2e-3, rtol=1e-4)


def test_channels_of_very_different_size_share_one_scale_after_equalization() -> None:
    rng = np.random.default_rng(2)
    spread = 10.0 ** rng.uniform(-2, 2, 32)
    x = (rng.standard_normal((400, 32)) * spread).astype(np.float32)
    weight = (rng.standard_normal((32, 24)) / spread[:, None]).astype(np.float32)  # every channel counts alike
    recorder = Recorder()
    recorder.add(x)
    factors, scale = choose(*recorder.ends(), recorder.sample(), weight)
    exact = x @ weight
    equalized = scale.value(scale.rounded(x / factors)) @ columns_quantized(weight * factors[:, None])
    one = InputScale.spanning(float(x.max()), float(-x.min()))
    plain = one.value(one.rounded(x)) @ columns_quantized(weight)
    size = np.square(exact).mean()
    assert np.square(equalized - exact).mean() / size < 1e-3
    assert np.square(equalized - exact).mean() < np.square(plain - exact).mean() / 100


@pytest.mark.parametrize(
    ("above", "below", "zero_point"), [(255.0, 0.0, 0), (0.0, 51.0, 255), (3.0, 3.0, 128), (4, 1, 51)]
)
def test_eight_bits_reach_from_end_to_end(above: float, below: float, zero_point: int) -> None:
    scale = InputScale.spanning(above, below)
    assert scale.zero_point == zero_point
    x = np.linspace(-below, above, 1001, dtype=np.float32)
    assert np.abs(scale.value(scale.rounded(x)) - x).max() <= 0.51 * scale.scale
    beyond = scale.value(scale.rounded(np.array([above + 9, -below - 9], np.float32)))
    assert np.allclose(beyond, [above, -below], atol=0.51 * scale.scale)


def test_what_was_recorded_keeps_both_ends_of_each_channel() -> None:
    recorder = Recorder()
    for rows in ([[1, -2, 3], [0, -1, 5]], [[-4, -3, 1]]):
        recorder.add(np.array(rows, np.float32))
    above, below = recorder.ends()
    assert above.tolist() == [1, 0, 5]
    assert below.tolist() == [4, 3, 0]
    assert recorder.top().tolist() == [4, 3, 5]


@torch.inference_mode()
def test_eight_bits_hold_every_key_and_value_that_was_seen(nonsense_tokenizer: Tokenizer) -> None:
    """And a little more; channels of keys are equally large, so that none of them loses its bits to another."""
    model, tokenizer = random_model(), nonsense_tokenizer
    model.decoder[0].cross_attention.key.weight[3] *= 50
    sources = [[*ids, tokenizer.end] for ids in tokenizer.encode(sentences(12))]
    arguments = (sources, tokenizer.pad, tokenizer.start, tokenizer.end)
    state, _, caches = equalize(model, state_arrays(model), record(model, *arguments))
    other = Transformer(model.config).eval()
    other.load_state_dict({name: torch.from_numpy(np.asarray(state[name], np.float32)) for name in other.state_dict()})
    recorders = record(other, *arguments)
    for name in (name for name in caches if "cross" in name):  # what follows from the source alone
        scale = caches[name]
        steps = recorders[MADE.format(name)].top() / scale
        assert 100 < steps.max() < 110, name
        if name.endswith("key"):
            assert np.allclose(steps, steps[0], rtol=0.01), name


@pytest.mark.parametrize("length", [42, 43, 95, 96])
def test_translations_that_never_end_stay_within_the_models_positions(
    length: int, nonsense_tokenizer: Tokenizer
) -> None:
    model, tokenizer = random_model(), nonsense_tokenizer
    assert model.output_bias is not None
    with torch.no_grad():
        model.output_bias[END] = -1e6
    source = [*(270 + number % 40 for number in range(length - 1)), tokenizer.end]
    recorders = record(model, [source], tokenizer.pad, tokenizer.start, tokenizer.end)
    made = sum(map(len, recorders[OUTPUT].samples))
    assert made == min(2 * length + 10, model.config.max_positions - 1) + 1, "and the start token"
