"""The float16 graphs for CUDA, made of a bundle's int8 weights: for a machine with a GPU and no checkpoint.

Knows: how weights are named in a bundle's graphs, and what of the model's configuration shows there. Does not know: how
graphs are made (write_bundle.py). The numbers are those of the int8 graphs without the rounding of their inputs, so
translations are nearer to the checkpoint's than the int8 graphs' are.
"""

import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from export.calibrate import OUTPUT, last_norm
from export.graph_runner import GraphRunner
from export.matrices import Array, Float16
from export.write_bundle import ExportError, whole_or_nothing, write_graphs, write_manifest
from model.config import ModelConfig
from model.transformer import Transformer
from service.runtime.bundle import Bundle, Manifest

SOURCE, TARGET = "cpu-int8", "cuda-fp16"
# The int8 graphs differ from float32 by 0.03 to 0.08 on average (verify.py); any structural mistake by several.
MEAN_TOLERANCE = 0.5


def bundle_weights(bundle: Bundle, precision: str) -> tuple[dict[str, Array], list[onnx.NodeProto]]:
    """All tensors of a precision by name, and the nodes of its score graph, which uses all of them but positions."""
    graphs = bundle.graphs(precision)
    model = onnx.load(str(bundle.path(graphs.score)))
    tensors = {tensor.name: np.asarray(numpy_helper.to_array(tensor)) for tensor in model.graph.initializer}
    return tensors, list(model.graph.node)


def state_of(tensors: dict[str, Array]) -> dict[str, Array]:
    """float32 weights under PyTorch's names; matrices that were multiplied side by side are apart again."""
    state: dict[str, Array] = {}
    for name, values in tensors.items():
        stem, _, kind = name.rpartition(".")
        if name.startswith("const_") or kind in ("scale", "divisor"):
            continue
        if kind == "int8":
            scales = np.asarray(tensors[f"{stem}.scale"], np.float32)
            if stem.endswith("_embedding"):
                state[f"{stem}.weight"] = values.astype(np.float32) * scales[:, None]
                continue
            values, kind = (values.astype(np.float32) * scales).T, "weight"
            values = values * np.asarray(tensors.get(f"{stem}.divisor", np.ones(1)), np.float32)  # of its inputs
        parts = stem.split("+") if stem else [stem]
        for part, piece in zip(parts, np.split(values, len(parts), axis=0), strict=True):
            state[f"{part}.{kind}" if part else name] = np.ascontiguousarray(piece)
    state.setdefault("target_embedding.weight", state["source_embedding.weight"])
    return state


def config_of(manifest: Manifest, state: dict[str, Array], nodes: list[onnx.NodeProto]) -> ModelConfig:
    """What of the configuration the graphs depend on."""
    kinds = {node.op_type for node in nodes}
    epsilon = next(
        onnx.helper.get_node_attr_value(node, "epsilon") for node in nodes if node.op_type == "LayerNormalization"
    )
    shape, width = manifest.shape, manifest.shape.model_width
    vocab_sizes = [len(state[f"{side}_embedding.weight"]) for side in ("source", "target")]
    is_tied = state["source_embedding.weight"] is state["target_embedding.weight"]
    return ModelConfig(
        vocab_size=shape.vocab_size,
        model_width=width,
        num_heads=shape.num_heads,
        feed_forward_width=len(state["decoder.0.feed_forward.inner.bias"]),
        num_encoder_layers=shape.num_encoder_layers,
        num_decoder_layers=shape.num_decoder_layers,
        # The int8 product clips what a ReLU would, so that one may not be there; the others always are.
        activation="gelu" if "Gelu" in kinds else "silu" if "Sigmoid" in kinds else "relu",
        norm="pre" if "decoder_norm.weight" in state else "post",
        norm_epsilon=float(str(np.float32(epsilon))),  # 1e-05, not 9.99999975e-06
        max_positions=len(state["positions"]),
        scale_embeddings=scales_embeddings(nodes, width),
        tie_embeddings=is_tied,
        output_bias="output_bias" in state,
        source_vocab_size=0 if is_tied or vocab_sizes[0] == vocab_sizes[1] else vocab_sizes[0],
    )


def scales_embeddings(nodes: list[onnx.NodeProto], width: int) -> bool:
    """Whether anything is multiplied by sqrt(M), as nothing else than embeddings is."""
    root = f"const_float32__{np.float32(width**0.5).tobytes().hex()}"
    return any(node.op_type == "Mul" and root in node.input for node in nodes)


class NamedWeights:
    """What write_graphs needs of a model: its configuration."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config


def pytorch_model(bundle: Bundle, precision: str) -> Transformer:
    """The PyTorch model with exactly a precision's weights: what graphs derived from them are compared with."""
    tensors, nodes = bundle_weights(bundle, precision)
    state = state_of(tensors)
    config = config_of(bundle.manifest, state, nodes)
    state = as_trained(state, config)
    model = Transformer(replace(config, output_bias="output_bias" in state)).eval()
    model.load_state_dict({name: torch.tensor(state[name]) for name in model.state_dict()})
    model.positions = torch.tensor(state["positions"])
    return model


def as_trained(state: dict[str, Array], config: ModelConfig) -> dict[str, Array]:
    """The state with one matrix for the target's embedding and the last product: what calibration moved into the latter
    goes back to the normalisation before it (calibrate.py). What pads the vocabulary is left out."""
    found, size = dict(state), config.vocab_size
    embedding = np.asarray(found["target_embedding.weight"][:size], np.float32)
    output = np.asarray(found.pop(f"{OUTPUT}.weight", embedding)[:size], np.float32)
    squares = np.square(embedding).sum(axis=0)
    factors = np.where(squares > 0, (output * embedding).sum(axis=0) / np.where(squares > 0, squares, 1), 1)
    for name in last_norm(config, "decoder"):
        found[name] = np.asarray(found[name], np.float32) * factors
    bias = found.pop(f"{OUTPUT}.bias", found.pop("output_bias", np.zeros(size)))[:size]
    if bias.any():
        found["output_bias"] = bias
    if config.tie_embeddings:
        found["source_embedding.weight"] = embedding
    return found | {"target_embedding.weight": embedding}


def derive_cuda(source: Path, folder: Path) -> Manifest:
    """Writes a bundle like ``source`` with graphs for CUDA beside its own; ``folder`` appears whole or not at all.

    Raises:
        BundleError: ``source`` is no whole bundle, or has no int8 graphs. ExportError: ``folder`` is something else.
    """
    if folder.exists():
        raise ExportError(f"{folder} exists; choose another place or remove it")
    if folder.resolve().is_relative_to(source.resolve()):
        raise ExportError(f"{folder} is inside {source}, which would be copied into itself; choose another place")
    with closing(Bundle.open(source)) as bundle:
        tensors, nodes = bundle_weights(bundle, SOURCE)
        state = state_of(tensors)
        model: Any = NamedWeights(config_of(bundle.manifest, state, nodes))
        with whole_or_nothing(folder) as partial:
            shutil.copytree(bundle.root, partial, dirs_exist_ok=True, ignore=shutil.ignore_patterns(TARGET))
            graphs = write_graphs(model, state, Float16(), partial, TARGET)
            check(bundle, GraphRunner(partial, graphs, bundle.manifest.shape, start=0))
            precisions = {**bundle.manifest.precisions, TARGET: graphs}
            manifest = replace(bundle.manifest, precisions=precisions)
            write_manifest(partial, manifest)
    return manifest


def check(bundle: Bundle, derived: GraphRunner) -> None:
    """The derived graphs say nearly what the int8 graphs say, for token ids as good as any."""
    runner = GraphRunner(bundle.root, bundle.graphs(SOURCE), bundle.manifest.shape, start=0)
    rng = np.random.default_rng(3)
    sources = [rng.integers(0, derived.shape.vocab_size, n).tolist() for n in (3, 9, 17)]
    targets = [rng.integers(0, derived.shape.vocab_size, n).tolist() for n in (5, 11, 8)]
    gaps = []
    pairs = zip(derived.score(sources, targets)[0], runner.score(sources, targets)[0], targets, strict=True)
    for found, wanted, target in pairs:
        gaps.append(np.abs(np.asarray(found, float) - np.asarray(wanted, float))[: len(target)])
    mean = float(np.concatenate(gaps).mean())
    if not mean <= MEAN_TOLERANCE:
        raise ExportError(f"the derived graphs differ from the int8 graphs by {mean:.2g} on average. This is a bug.")
