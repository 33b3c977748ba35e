"""What goes into each product and each cache of a model on real text, and how to make 8 bits of it unseen.

Knows: the network's parts, activations, quantization error. Does not know: ONNX.

Per-row scales must be computed for every row at every product, which costs more than the product where matrices are
small. Here the scale of each product's input is fixed once, on calibration text. What that would lose, equalization
gives back (Xiao et al. 2023, SmoothQuant, arXiv:2211.10438): channel k of the input is divided by c_k, row k of the
matrix multiplied by it. The division costs nothing where whatever makes the input can do it: the layer normalisation
before it, the value projection (a context is an average of values), or the first feed-forward matrix (ReLU(x / c) =
ReLU(x) / c). Where something else reads the same input (a post-norm model adds it to what follows), and after SiLU and
GELU, the graph divides as it rounds.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from export.byte_products import together
from export.input_scales import SMALLEST, InputScale, choose
from model.config import ModelConfig
from model.machine import one_thread
from model.reference_decode import batch_greedy
from model.transformer import Transformer

Array = NDArray[np.float32]
State = dict[str, NDArray[Any]]

MAX_SAMPLES = 768
# Keys and values beyond the largest seen are clipped: room for them makes steps a fifth larger. A channel of keys that
# was hardly ever used may be used by other text.
CACHE_ROOM, LEAST_SHARE = 1.2, 0.01
BATCH_SENTENCES = 32
OUTPUT = "output_projection"
MADE = "{}, what it makes"  # of a linear layer's name: its output, where that goes to a cache


@dataclass(slots=True)
class Recorder:
    """Keeps the ends of each channel of an input and a sample of its rows.

    Attributes:
        above, below: how far each channel went above zero and below it, at least 0; None before the first rows.
    """

    above: Array | None = None
    below: Array | None = None
    samples: list[Array] = field(default_factory=list)

    def add(self, rows: Array) -> None:
        above, below = self.ends() if self.samples else (np.zeros(rows.shape[1], np.float32),) * 2
        self.above, self.below = np.maximum(above, rows.max(axis=0)), np.maximum(below, -rows.min(axis=0))
        self.samples.append(rows[:: max(1, len(rows) // 64)])

    def ends(self) -> tuple[Array, Array]:
        """How far each channel went above zero and below it."""
        if self.above is None or self.below is None:
            raise RuntimeError("what was to be recorded never came. This is a bug.")
        return self.above, self.below

    def top(self) -> Array:
        """The largest absolute value of each channel."""
        return np.maximum(*self.ends())

    def sample(self) -> Array:
        rows = np.concatenate(self.samples)
        return rows[:: max(1, len(rows) // MAX_SAMPLES)]


@dataclass(frozen=True, slots=True)
class Site:
    """One input, what makes it and which products read it.

    Attributes:
        readers: names of the linear layers (or OUTPUT) that read it. makers: names of weights and biases whose output
            channels are the input's channels; none: the graph divides by c_k.
    """

    readers: tuple[str, ...]
    makers: tuple[str, ...] = ()

    @property
    def inputs_may_move(self) -> bool:
        """Whether its channels may stand in any order, and are mostly zero: those between feed-forward matrices."""
        return bool(self.makers) and self.readers[0].endswith("feed_forward.outer")


def sites(model: Transformer) -> list[Site]:
    """The inputs of all products."""
    config, found = model.config, []
    pre = config.norm == "pre"

    def normed(name: str) -> tuple[str, ...]:
        return norm_of(f"{name}_residual.norm") if pre else ()

    for stack, count in (("encoder", config.num_encoder_layers), ("decoder", config.num_decoder_layers)):
        for i in range(count):
            names = ["self_attention"] if stack == "encoder" else ["self_attention", "cross_attention"]
            for name in (f"{stack}.{i}.{name}" for name in names):
                found.append(Site((f"{name}.output",), (f"{name}.value.weight", f"{name}.value.bias")))
                parts = ("query", "key", "value") if "self" in name else ("query",)
                found.append(Site(tuple(f"{name}.{part}" for part in parts), normed(name)))
            name = f"{stack}.{i}.feed_forward"
            found.append(Site((f"{name}.inner",), normed(name)))
            makers = (f"{name}.inner.weight", f"{name}.inner.bias") if config.activation == "relu" else ()
            found.append(Site((f"{name}.outer",), makers))
    crossed = (
        f"decoder.{i}.cross_attention.{part}" for i in range(config.num_decoder_layers) for part in ("key", "value")
    )
    found.append(Site(tuple(crossed), last_norm(config, "encoder")))
    found.append(Site((OUTPUT,), last_norm(config, "decoder")))
    return found


def last_norm(config: ModelConfig, stack: str) -> tuple[str, str]:
    """Weight and bias of the normalisation that a stack's last states come out of; nothing but products reads those."""
    count = config.num_encoder_layers if stack == "encoder" else config.num_decoder_layers
    return norm_of(f"{stack}_norm" if config.norm == "pre" else f"{stack}.{count - 1}.feed_forward_residual.norm")


def norm_of(name: str) -> tuple[str, str]:
    return f"{name}.weight", f"{name}.bias"


@torch.inference_mode()
@one_thread()
def record(
    model: Transformer,
    sources: Sequence[Sequence[int]],
    pad: int,
    start: int,
    end: int,
    first: Sequence[int] = (),
) -> dict[str, Recorder]:
    """Runs the model on ``sources`` and its own translations of them; what each product was given, by its name, and
    what the decoder's keys and values were, by MADE.

    Args:
        first: token ids that every translation begins with.
    """
    # Sentences of like length together: a batch goes on until its longest translation ends.
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    found: dict[int, list[int]] = {}
    for place in range(0, len(order), BATCH_SENTENCES):
        some = order[place : place + BATCH_SENTENCES]
        limit = min(2 * len(sources[some[-1]]) + 10, model.config.max_positions - 1)  # the start token is a position
        batch = batch_greedy(model, [sources[i] for i in some], pad, start, end, limit, first)
        found |= zip(some, batch, strict=True)
    targets = [found[i] for i in range(len(sources))]
    with listening(model) as recorders:
        for source, target in zip(sources, targets, strict=True):  # one at a time: no padding among the samples
            lengths = torch.tensor([len(source)])
            memory = model.encode(torch.tensor([list(source)]), lengths)
            states = model.decode(torch.tensor([[start, *target]]), memory, lengths)
            recorders[OUTPUT].add(states[0].float().numpy())
    return recorders


@contextmanager
def listening(model: Transformer) -> Iterator[dict[str, Recorder]]:
    """Recorders that hear, inside the block, what every linear layer is given, and what the cached ones make of it."""
    recorders: dict[str, Recorder] = {OUTPUT: Recorder()}
    cached = cached_layers(model)
    handles = []

    def listen(name: str, layer: nn.Linear) -> None:
        given = recorders[name] = Recorder()
        handles.append(layer.register_forward_pre_hook(lambda _, inputs: given.add(inputs[0][0].float().numpy())))
        if name in cached:
            made = recorders[MADE.format(name)] = Recorder()
            handles.append(layer.register_forward_hook(lambda _, inputs, output: made.add(output[0].float().numpy())))

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            listen(name, module)
    try:
        yield recorders
    finally:
        for handle in handles:
            handle.remove()


def cached_layers(model: Transformer) -> list[str]:
    """The layers whose outputs are kept while a sentence is decoded: the decoder's keys and values."""
    return [
        f"decoder.{i}.{kind}_attention.{part}"
        for i in range(model.config.num_decoder_layers)
        for kind in ("self", "cross")
        for part in ("key", "value")
    ]


def scale_caches(model: Transformer, state: State, largest: Mapping[str, Array]) -> dict[str, float]:
    """Makes the channels of all keys equally large, and returns the scale of each cached layer's signed 8-bit numbers.

    A key's channel may be divided by what its query's is multiplied by: scores are sums of their products.

    Args:
        largest: of each channel (M,) of each cached layer, as ``state`` gives it.
    """
    scales = {}
    for name in cached_layers(model):
        steps = np.maximum(largest[name] * CACHE_ROOM / 127, SMALLEST)
        if name.endswith("key"):
            factors = np.maximum(steps / steps.mean(), LEAST_SHARE)
            for layer, each in ((name, 1 / factors), (name.removesuffix("key") + "query", factors)):
                state[f"{layer}.weight"] = state[f"{layer}.weight"] * each[:, None]
                state[f"{layer}.bias"] = state[f"{layer}.bias"] * each
            steps = steps / factors
        scales[name] = float(steps.max())
    return scales


def equalize(
    model: Transformer, state: Mapping[str, Any], recorders: Mapping[str, Recorder]
) -> tuple[State, dict[str, InputScale], dict[str, float]]:
    """A state that computes the same in float32, the input scale of every product, and the scale of every cached
    layer's signed 8-bit numbers.

    OUTPUT's matrix becomes an entry of its own, for the embedding must stay as it is.
    """
    changed: State = dict(state)
    changed[f"{OUTPUT}.weight"] = changed["target_embedding.weight"]
    vocab_size = model.config.vocab_size
    changed[f"{OUTPUT}.bias"] = changed.get("output_bias", np.zeros(vocab_size, np.float32))
    scales: dict[str, InputScale] = {}
    largest = {name: recorders[MADE.format(name)].top() for name in cached_layers(model)}
    for site in sites(model):
        weight = np.concatenate([changed[f"{reader}.weight"].T for reader in site.readers], axis=1)
        recorder = recorders[site.readers[0]]
        factors, scale = choose(*recorder.ends(), recorder.sample(), weight)
        if not site.makers:
            scales |= dict.fromkeys(site.readers, replace(scale, factors=None if (factors == 1).all() else factors))
            continue
        order: Any = slice(None)
        if site.inputs_may_move:
            order = together(scale.rounded(recorder.sample() / factors) != scale.zero_point)
        for maker in site.makers:
            values = changed[maker]
            changed[maker] = (values / (factors[:, None] if values.ndim == 2 else factors))[order]
            if (name := maker.removesuffix(".weight")) in largest:
                largest[name] = largest[name] / factors
        for reader in site.readers:
            changed[f"{reader}.weight"] = (changed[f"{reader}.weight"] * factors)[:, order]
            scales[reader] = scale
    return changed, scales, scale_caches(model, changed, largest)
