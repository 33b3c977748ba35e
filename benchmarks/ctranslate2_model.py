"""A checkpoint as a CTranslate2 model, from the same weights and with nothing lost on the way.

Knows: the names of CTranslate2's specification. Does not know: how it is measured (systems.py).
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ctranslate2
import numpy as np
from ctranslate2.converters import utils
from ctranslate2.specs import common_spec, transformer_spec

from model.transformer import EncoderLayer, MultiHeadAttention, Transformer
from service.runtime.piece_tokenizer import PieceTokenizer
from service.runtime.tokenizer import Tokenizer

ACTIVATIONS = {"relu": "RELU", "gelu": "GELU", "silu": "SWISH"}
Spec = Any


class Vocabulary(NamedTuple):
    """The name of every id, all different: what CTranslate2 takes and gives instead of ids."""

    source: list[str]
    target: list[str]
    start: int
    end: int
    unknown: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Vocabulary":
        ids = (tokenizer.start, tokenizer.end, tokenizer.unknown)
        if isinstance(tokenizer, PieceTokenizer):
            sides = (tokenizer.table.source, tokenizer.table.target)
            source, target = ([piece or f"<no piece {i}>" for i, piece in enumerate(side)] for side in sides)
            return cls(source, target, *ids)
        pieces = [tokenizer.processor.id_to_piece(i) for i in range(tokenizer.vocab_size)]
        return cls(pieces, pieces, *ids)


def array(tensor: Any) -> "np.ndarray[Any, np.dtype[np.float32]]":
    values: np.ndarray[Any, np.dtype[np.float32]] = tensor.detach().float().numpy()
    return values


def fill_linear(spec: Spec, module: Any) -> None:
    spec.weight, spec.bias = array(module.weight), array(module.bias)


def fill_norm(spec: Spec, module: Any) -> None:
    spec.gamma, spec.beta = array(module.weight), array(module.bias)


def fill_attention(specs: Sequence[Spec], attention: MultiHeadAttention, is_self: bool) -> None:
    """Query, key and value in one product for self-attention; key and value in one for cross-attention."""
    linears = [common_spec.LinearSpec() for _ in range(3)]
    for linear, module in zip(linears, (attention.query, attention.key, attention.value), strict=True):
        fill_linear(linear, module)
    if is_self:
        utils.fuse_linear(specs[0], linears)
    else:
        utils.fuse_linear(specs[0], linears[:1])
        utils.fuse_linear(specs[1], linears[1:])
    fill_linear(specs[-1], attention.output)


def fill_layer(spec: Spec, layer: Any) -> None:
    fill_attention(spec.self_attention.linear, layer.self_attention, is_self=True)
    fill_norm(spec.self_attention.layer_norm, layer.self_attention_residual.norm)
    if not isinstance(layer, EncoderLayer):
        fill_attention(spec.attention.linear, layer.cross_attention, is_self=False)
        fill_norm(spec.attention.layer_norm, layer.cross_attention_residual.norm)
    fill_linear(spec.ffn.linear_0, layer.feed_forward.inner)
    fill_linear(spec.ffn.linear_1, layer.feed_forward.outer)
    fill_norm(spec.ffn.layer_norm, layer.feed_forward_residual.norm)


def specification(model: Transformer, vocabulary: Vocabulary) -> Spec:
    """All weights in CTranslate2's terms."""
    config, is_pre = model.config, model.config.norm == "pre"
    activation = getattr(common_spec.Activation, ACTIVATIONS[config.activation])
    layers = (config.num_encoder_layers, config.num_decoder_layers)
    spec = transformer_spec.TransformerSpec.from_config(
        layers, config.num_heads, pre_norm=is_pre, no_final_norm=not is_pre, activation=activation
    )
    sides = ((spec.encoder, model.encoder, "source"), (spec.decoder, model.decoder, "target"))
    for side, modules, name in sides:
        side.scale_embeddings = config.model_width**0.5 if config.scale_embeddings else 1.0
        side.position_encodings.encodings = array(model.positions)
        embedding = side.embeddings[0] if name == "source" else side.embeddings
        embedding.weight = array(getattr(model, f"{name}_embedding").weight)
        for layer_spec, layer in zip(side.layer, modules, strict=True):
            fill_layer(layer_spec, layer)
    if is_pre:
        fill_norm(spec.encoder.layer_norm, model.encoder_norm)
        fill_norm(spec.decoder.layer_norm, model.decoder_norm)
    spec.decoder.projection.weight = array(model.target_embedding.weight)
    if model.output_bias is not None:
        spec.decoder.projection.bias = array(model.output_bias)
    spec.register_source_vocabulary(vocabulary.source)
    spec.register_target_vocabulary(vocabulary.target)
    pieces = vocabulary.target
    spec.config.bos_token = spec.config.decoder_start_token = pieces[vocabulary.start]
    spec.config.eos_token, spec.config.unk_token = pieces[vocabulary.end], pieces[vocabulary.unknown]
    spec.config.layer_norm_epsilon = config.norm_epsilon
    return spec


def write_ctranslate2(model: Transformer, vocabulary: Vocabulary, folder: Path) -> None:
    """Writes a float32 model folder, replaced if it exists; CTranslate2 quantizes as it loads (``compute_type``)."""
    spec = specification(model, vocabulary)
    spec.validate()
    spec.optimize()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    spec.save(str(folder))


def load(folder: Path, compute_type: str, inter_threads: int, intra_threads: int) -> "ctranslate2.Translator":
    return ctranslate2.Translator(
        str(folder), compute_type=compute_type, inter_threads=inter_threads, intra_threads=intra_threads
    )
