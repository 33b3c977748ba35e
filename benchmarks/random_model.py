"""A checkpoint of any shape with random weights that never ends a sentence: for timing, where words do not matter.

Knows: how to keep the end token from winning with the same weights in every engine. Does not know: engines.

The last layer normalisation gives the first column a bias of END_BIAS; every token's embedding is zero there but for
the end token's, which is minus one. So the end token's logit is about -END_BIAS, and no other is changed.

Its vocabulary is made of numbered words, so that a text of n words has n tokens.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from sentencepiece import sentencepiece_model_pb2

from model.checkpoint import Description, save
from model.config import ModelConfig
from model.transformer import Transformer
from service.runtime.tokenizer import Tokenizer

END_BIAS = 30.0
spm: Any = sentencepiece_model_pb2  # its messages are made at run time, out of mypy's sight
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
# The paper's base model, pre-norm; and as most OPUS-MT models are: post-norm, SiLU, about 60,000 pieces.
BASE = ModelConfig(vocab_size=32_000, dropout=0.0)
OPUS_MT = replace(
    BASE,
    vocab_size=60_000,
    norm="post",
    activation="silu",
    position_formula="paper",
    position_offset=0,
    output_bias=True,
)
SHAPES = {"base": BASE, "opus-mt": OPUS_MT}


def word(number: int) -> str:
    """The text of the token with that id."""
    return f"w{number}"


def numbered_words(vocab_size: int) -> Tokenizer:
    """A vocabulary with one piece for each of ``w4``, ``w5`` and so on."""
    proto = spm.ModelProto()
    kinds = spm.ModelProto.SentencePiece
    for i in range(vocab_size):
        is_word = i >= len(SPECIAL)
        kind = kinds.NORMAL if is_word else kinds.UNKNOWN if SPECIAL[i] == "<unk>" else kinds.CONTROL
        proto.pieces.add(piece=f"▁{word(i)}" if is_word else SPECIAL[i], score=0.0, type=kind)
    proto.trainer_spec.model_type = spm.TrainerSpec.UNIGRAM
    for name, i in (("bos_id", 0), ("pad_id", 1), ("eos_id", 2), ("unk_id", 3), ("vocab_size", vocab_size)):
        setattr(proto.trainer_spec, name, i)
    proto.normalizer_spec.add_dummy_prefix = True
    proto.normalizer_spec.escape_whitespaces = True
    return Tokenizer(proto.SerializeToString())


def random_transformer(config: ModelConfig, end: int, seed: int) -> Transformer:
    """Weights as at the start of training, but for what keeps the end token away."""
    torch.manual_seed(seed)
    model = Transformer(config).eval()
    last_layer = f"decoder.{config.num_decoder_layers - 1}"
    last_norm = "decoder_norm" if config.norm == "pre" else f"{last_layer}.feed_forward_residual.norm"
    with torch.no_grad():
        dict(model.named_parameters())[f"{last_norm}.bias"][0] = END_BIAS
        model.target_embedding.weight[:, 0] = 0.0
        model.target_embedding.weight[end] = 0.0
        model.target_embedding.weight[end, 0] = -1.0
    return model


def texts(count: int, num_words: int, vocab_size: int, seed: int) -> list[str]:
    """Texts of exactly ``num_words`` tokens."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randint(len(SPECIAL), vocab_size, (count, num_words), generator=generator)
    return [" ".join(map(word, row)) for row in numbers.tolist()]


def write_random_checkpoint(folder: Path, config: ModelConfig, seed: int = 1) -> None:
    tokenizer = numbered_words(config.vocab_size)
    model = random_transformer(config, tokenizer.end, seed)
    save(folder, model.state_dict(), tokenizer, Description(config, "en", "fr", 0), None)


def main() -> int:
    arguments = argparse.ArgumentParser(
        prog="python -m benchmarks.random_model",
        description="Writes a checkpoint of 6+6 layers of width 512 with random weights.",
    )
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--shape", choices=SHAPES, default="base", help="opus-mt: post-norm, SiLU, 60,000 pieces")
    arguments.add_argument("--vocab-size", type=int, help="default: the shape's")
    arguments.add_argument("--layers", type=int, default=BASE.num_encoder_layers, help="on each side")
    arguments.add_argument("--seed", type=int, default=1)
    given = arguments.parse_args()
    shape = SHAPES[given.shape]
    config = replace(
        shape,
        vocab_size=given.vocab_size or shape.vocab_size,
        num_encoder_layers=given.layers,
        num_decoder_layers=given.layers,
    )
    write_random_checkpoint(given.folder, config, given.seed)
    print(f"wrote {given.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
