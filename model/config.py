"""What a model and a training run are made of: frozen dataclasses, read from one TOML file.

Knows: every option, its default and its range. Does not know: what any of them does to a tensor.
"""

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

Section = TypeVar("Section")


class TrainingConfigError(ValueError):
    """An option of a training configuration is unknown, of the wrong type or out of range."""


def require(condition: bool, message: str) -> None:
    if not condition:
        raise TrainingConfigError(message)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The shape of a Transformer; the defaults are the paper's base model, but pre-norm."""

    vocab_size: int
    """V: pieces in the joint vocabulary."""
    model_width: int = 512
    """M: columns of every token vector; even, a multiple of num_heads."""
    num_heads: int = 8
    """H: attention heads, each of width M / H."""
    feed_forward_width: int = 2048
    """F: columns inside the feed-forward layers."""
    num_encoder_layers: int = 6
    """Encoder layers."""
    num_decoder_layers: int = 6
    """Decoder layers; fewer decode faster at little cost in quality (Kasai et al. 2021, arXiv:2006.10369)."""
    activation: str = "relu"
    """Of the feed-forward layers: relu, gelu or silu."""
    norm: str = "pre"
    """Where layer normalisation stands: pre (before each sub-layer) or post (the paper's)."""
    norm_epsilon: float = 1e-5
    """Added to the variance in layer normalisation."""
    dropout: float = 0.1
    """Chance that a value is dropped, after embeddings and sub-layers; 0 to below 1."""
    max_positions: int = 512
    """Longest source or target, in tokens, the end token counted."""
    position_formula: str = "tensor2tensor"
    """Frequencies of the position sinusoids: paper or tensor2tensor (see model/transformer.py)."""
    position_offset: int = 2
    """The position number of the first token; fairseq and M2M-100 count from pad + 1 = 2, the paper from 0."""
    scale_embeddings: bool = True
    """Token vectors are multiplied by sqrt(M), as in the paper."""
    tie_embeddings: bool = True
    """Source and target share their embedding; the output matrix is always the target's."""
    output_bias: bool = False
    """A learned number per piece, added to the logits (Marian has it)."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "model_width", "num_heads", "feed_forward_width", "max_positions"):
            require(getattr(self, name) >= 1, f"model.{name} ({getattr(self, name)}) must be >= 1")
        for name in ("num_encoder_layers", "num_decoder_layers"):
            require(getattr(self, name) >= 1, f"model.{name} ({getattr(self, name)}) must be >= 1")
        require(self.model_width % 2 == 0, f"model.model_width ({self.model_width}) must be even")
        require(
            self.model_width % self.num_heads == 0,
            f"model.model_width ({self.model_width}) must be a multiple of num_heads ({self.num_heads})",
        )
        require(self.activation in ("relu", "gelu", "silu"), f"model.activation ({self.activation}) is unknown")
        require(self.norm in ("pre", "post"), f"model.norm ({self.norm}) must be pre or post")
        require(0 <= self.dropout < 1, f"model.dropout ({self.dropout}) must be in [0, 1)")
        require(
            self.position_formula in ("paper", "tensor2tensor"),
            f"model.position_formula ({self.position_formula}) must be paper or tensor2tensor",
        )


@dataclass(frozen=True, slots=True)
class CorpusConfig:
    """One parallel corpus and how it is cleaned."""

    name: str
    """What messages call it."""
    tsv: str | None = None
    """File with source TAB target a line; or give ``source`` and ``target``. .gz, .bz2 and .xz are unpacked."""
    source: str | None = None
    """File with one source sentence a line."""
    target: str | None = None
    """File with one target sentence a line."""
    weight: float = 1.0
    """Pairs taken from this corpus, relative to the others."""
    max_tokens: int = 100
    """Pairs with a longer side are dropped."""
    max_length_ratio: float = 3.0
    """Pairs are dropped when one side has more than this many times the tokens of the other, plus 4."""
    drop_copies: bool = True
    """Pairs whose two sides are equal are dropped, but for the very short."""
    drop_duplicates: bool = True
    """A pair seen before in this corpus is dropped."""
    max_pairs: int | None = None
    """Use only the first so many fit pairs."""

    def __post_init__(self) -> None:
        two_files = self.source is not None and self.target is not None
        require(
            (self.tsv is not None) != two_files, f"corpus {self.name!r}: give either 'tsv', or 'source' and 'target'"
        )
        require(self.weight > 0, f"corpus {self.name!r}: weight ({self.weight}) must be > 0")


@dataclass(frozen=True, slots=True)
class VocabularyConfig:
    """The joint SentencePiece vocabulary."""

    size: int = 8000
    """Pieces, special tokens and 256 byte pieces included."""
    model: str | None = None
    """An existing SentencePiece model to use instead of learning one."""
    type: str = "unigram"
    """unigram or bpe."""
    character_coverage: float = 0.9998
    """Share of characters that get a piece of their own; the rest is spelled in bytes."""
    max_sentences: int = 500_000
    """Sentences sampled to learn it from."""


@dataclass(frozen=True, slots=True)
class OptimizerConfig:
    """How weights move."""

    name: str = "adam"
    """adam (the paper's) or muon: Muon for the matrices, Adam for the rest (model/optimizer.py)."""
    peak_learning_rate: float = 1e-3
    """The schedule's highest rate."""
    schedule: str = "inverse_sqrt"
    """inverse_sqrt, noam, or trapezoid: constant after warm-up, then linear to zero (model/schedule.py)."""
    warmup_steps: int = 4000
    """Steps of linear rise from zero."""
    decay_share: float = 0.3
    """Trapezoid: the share of max_steps over which the rate falls to zero."""
    beta1: float = 0.9
    """Adam's decay of the mean gradient."""
    beta2: float = 0.98
    """Adam's decay of the mean squared gradient."""
    epsilon: float = 1e-9
    """Adam's guard against division by zero."""
    weight_decay: float = 0.0
    """Decoupled weight decay on matrices."""
    max_gradient_norm: float = 1.0
    """Gradients are scaled down to this length; 0: never."""
    label_smoothing: float = 0.1
    """Share of the target distribution spread evenly over the vocabulary."""

    def __post_init__(self) -> None:
        require(self.name in ("adam", "muon"), f"optimizer.name ({self.name}) must be adam or muon")
        require(
            self.schedule in ("inverse_sqrt", "noam", "trapezoid"),
            f"optimizer.schedule ({self.schedule}) must be inverse_sqrt, noam or trapezoid",
        )
        require(self.peak_learning_rate > 0, f"optimizer.peak_learning_rate ({self.peak_learning_rate}) must be > 0")
        require(self.warmup_steps >= 1, f"optimizer.warmup_steps ({self.warmup_steps}) must be >= 1")
        require(0 <= self.label_smoothing < 1, f"optimizer.label_smoothing ({self.label_smoothing}) must be in [0, 1)")
        require(0 < self.decay_share <= 1, f"optimizer.decay_share ({self.decay_share}) must be in (0, 1]")


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Length, pace and place of a training run."""

    folder: str
    """Where checkpoints, logs and the prepared corpus go."""
    source_language: str
    """BCP-47 code of the source language."""
    target_language: str
    """BCP-47 code of the target language."""
    max_steps: int = 100_000
    """Optimizer steps in all."""
    batch_tokens: int = 4096
    """Padded tokens of one forward pass, on either side."""
    accumulate: int = 1
    """Forward passes a step."""
    seed: int = 1
    """Of initial weights, order of the data and dropout."""
    device: str = "auto"
    """cpu, cuda or auto."""
    precision: str = "bf16"
    """bf16 (autocast; weights and their sums stay float32) or fp32."""
    compile: bool = False
    """torch.compile the encoder and decoder."""
    log_every: int = 50
    """Steps between log lines."""
    validate_every: int = 1000
    """Steps between validations."""
    checkpoint_every_s: float = 300.0
    """Seconds between checkpoints; one is also written at each validation and at Ctrl-C."""
    keep_checkpoints: int = 5
    """Validated checkpoints kept for averaging, besides the best."""
    patience: int = 0
    """Stop after so many validations without a better loss; 0: never."""
    sample_sentences: int = 4
    """Validation sentences translated and shown at each validation: a falling loss alone proves little."""

    def __post_init__(self) -> None:
        for name in ("max_steps", "batch_tokens", "accumulate", "log_every", "validate_every", "keep_checkpoints"):
            require(getattr(self, name) >= 1, f"run.{name} ({getattr(self, name)}) must be >= 1")
        require(self.device in ("auto", "cpu", "cuda"), f"run.device ({self.device}) must be auto, cpu or cuda")
        require(self.precision in ("bf16", "fp32"), f"run.precision ({self.precision}) must be bf16 or fp32")


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """A whole run, as one TOML file describes it."""

    run: RunConfig
    model: ModelConfig
    vocabulary: VocabularyConfig = field(default_factory=VocabularyConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: tuple[CorpusConfig, ...] = ()
    validation: tuple[CorpusConfig, ...] = ()


def read_section(section: type[Section], values: Mapping[str, Any], where: str) -> Section:
    """A dataclass from a TOML table.

    Raises:
        TrainingConfigError: a key that does not exist (the nearest one is named), one that is missing or out of range.
    """
    known = {f.name: f for f in dataclasses.fields(section)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
            raise TrainingConfigError(f"{where}.{key} is unknown{hint}")
    missing = dataclasses.MISSING
    for name, f in known.items():
        if name not in values and f.default is missing and f.default_factory is missing:
            raise TrainingConfigError(f"{where}.{name} is missing")
    try:
        return section(**values)
    except TypeError as error:
        raise TrainingConfigError(f"{where}: a value has the wrong type ({error})") from error


def resolve_paths(values: dict[str, Any], base: Path) -> dict[str, Any]:
    """File names in a corpus table are relative to the TOML file; ``~`` and ``$VARIABLES`` are expanded."""
    import os

    keys = [key for key in ("tsv", "source", "target") if isinstance(values.get(key), str)]
    return values | {key: str(base / Path(os.path.expandvars(values[key])).expanduser()) for key in keys}


def read_training_config(path: Path) -> TrainingConfig:
    """The run that ``path`` describes.

    Raises:
        TrainingConfigError: the file is not TOML, or an option is unknown, missing or out of range.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainingConfigError(f"cannot read {path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise TrainingConfigError(f"{path} is not valid TOML: {error}") from error
    known = {"run", "model", "vocabulary", "optimizer", "train", "validation"}
    for name in tables.keys() - known:
        raise TrainingConfigError(f"[{name}] is unknown; known are {', '.join(sorted(known))}")
    corpora = {
        part: tuple(
            read_section(CorpusConfig, resolve_paths(table, path.parent), f"{part}[{number}]")
            for number, table in enumerate(tables.get(part, []))
        )
        for part in ("train", "validation")
    }
    require(bool(corpora["train"]), "at least one [[train]] corpus is needed")
    require(bool(corpora["validation"]), "at least one [[validation]] corpus is needed")
    vocabulary = read_section(VocabularyConfig, tables.get("vocabulary", {}), "vocabulary")
    model = {"vocab_size": vocabulary.size} | tables.get("model", {})
    return TrainingConfig(
        run=read_section(RunConfig, tables.get("run", {}), "run"),
        model=read_section(ModelConfig, model, "model"),
        vocabulary=vocabulary,
        optimizer=read_section(OptimizerConfig, tables.get("optimizer", {}), "optimizer"),
        **corpora,
    )
