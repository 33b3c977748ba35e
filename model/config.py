"""What a model and a training run are made of: frozen dataclasses.

Knows: every option, its default and its range. Does not know: files (model/recipe.py reads them), or what an option
does to a tensor.
"""

import math
import re
from dataclasses import dataclass, field

from model.scripts import known_scripts
from model.sections import require
from model.variants import MAKERS

CORPUS_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
HEAD_WIDTHS = 8
"""A head's width is a multiple of this: the attention that serves takes no other."""
LANGUAGE_CODE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The shape of a Transformer; the defaults are the paper's base model, but pre-norm."""

    vocab_size: int
    """V: pieces in the joint vocabulary, or in the target's."""
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
    source_vocab_size: int = 0
    """Pieces in the source's own vocabulary, where tie_embeddings is false; 0: as many as in the target's."""

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "model_width", "num_heads", "feed_forward_width", "max_positions")
        for name in (*sizes, "num_encoder_layers", "num_decoder_layers"):
            require(getattr(self, name) >= 1, f"model.{name} ({getattr(self, name)}) must be >= 1")
        require(self.source_vocab_size >= 0, f"model.source_vocab_size ({self.source_vocab_size}) must be >= 0")
        require(
            not (self.tie_embeddings and self.source_vocab_size),
            f"model.source_vocab_size ({self.source_vocab_size}) needs tie_embeddings = false",
        )
        require(0 < self.norm_epsilon < math.inf, f"model.norm_epsilon ({self.norm_epsilon}) must be > 0 and finite")
        require(self.position_offset >= 0, f"model.position_offset ({self.position_offset}) must be >= 0")
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
    """What messages and the run's folder call it: letters, digits, full stop, hyphen, underscore."""
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
    source_script: str | None = None
    """Script of the source by its Unicode name (latin, cyrillic, "cjk hiragana katakana"); pairs whose letters are
    mostly of another are dropped. Unset: not checked."""
    target_script: str | None = None
    """The same for the target."""
    variant: str | None = None
    """What is made of each pair: capitals, lowercase ... (model/variants.py); copies wants drop_copies = false. Unset:
    the pair itself."""
    max_pairs: int | None = None
    """Use only the first so many fit pairs."""

    def __post_init__(self) -> None:
        where = f"corpus {self.name!r}"
        require(
            CORPUS_NAME.fullmatch(self.name) is not None, f"{where}: the name must be letters, digits, '.', '_', '-'"
        )
        given = tuple(key for key in ("tsv", "source", "target") if getattr(self, key) is not None)
        require(given in (("tsv",), ("source", "target")), f"{where}: give either 'tsv', or 'source' and 'target'")
        require(self.max_tokens >= 1, f"{where}: max_tokens ({self.max_tokens}) must be >= 1")
        require(self.max_length_ratio >= 1, f"{where}: max_length_ratio ({self.max_length_ratio}) must be >= 1")
        require(self.max_pairs is None or self.max_pairs >= 1, f"{where}: max_pairs ({self.max_pairs}) must be >= 1")
        require(0 < self.weight < math.inf, f"{where}: weight ({self.weight}) must be > 0 and finite")
        require(
            self.variant is None or self.variant in MAKERS,
            f"{where}: variant ({self.variant!r}) must be {', '.join(MAKERS)}",
        )
        for key in ("source_script", "target_script"):
            for script in (getattr(self, key) or "").lower().split():
                require(script in known_scripts(), f"{where}: {key}: {script!r} is no script that a letter's name has")


@dataclass(frozen=True, slots=True)
class VocabularyConfig:
    """The joint SentencePiece vocabulary."""

    size: int = 8000
    """Pieces, special tokens and 256 byte pieces included."""
    model: str | None = None
    """An existing SentencePiece model to use instead of learning one."""
    type: str = "unigram"
    """unigram or bpe."""
    normalization: str = "nmt_nfkc"
    """SentencePiece's rule for characters: nmt_nfkc, nmt_nfkc_cf, nfkc, nfkc_cf or identity (change nothing)."""
    character_coverage: float = 0.9998
    """Share of characters that get a piece of their own; the rest is spelled in bytes."""
    max_sentences: int = 500_000
    """Sentences sampled to learn it from."""
    dropout: float = 0.0
    """BPE: chance that a piece is cut in two while training (model/subword_dropout.py), 0 to below 1."""

    def __post_init__(self) -> None:
        require(self.size >= 1, f"vocabulary.size ({self.size}) must be >= 1")
        require(self.type in ("unigram", "bpe"), f"vocabulary.type ({self.type}) must be unigram or bpe")
        rules = ("nmt_nfkc", "nmt_nfkc_cf", "nfkc", "nfkc_cf", "identity")
        require(
            self.normalization in rules, f"vocabulary.normalization ({self.normalization}) must be {', '.join(rules)}"
        )
        coverage = self.character_coverage
        require(0 < coverage <= 1, f"vocabulary.character_coverage ({coverage}) must be in (0, 1]")
        require(0 <= self.dropout < 1, f"vocabulary.dropout ({self.dropout}) must be in [0, 1)")
        require(not self.dropout or self.type == "bpe", 'vocabulary.dropout needs vocabulary.type = "bpe"')
        require(self.max_sentences >= 1, f"vocabulary.max_sentences ({self.max_sentences}) must be >= 1")


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
    """Decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101) on every weight."""
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
        for name in ("peak_learning_rate", "epsilon"):
            value = getattr(self, name)
            require(0 < value < math.inf, f"optimizer.{name} ({value}) must be > 0 and finite")
        require(self.warmup_steps >= 1, f"optimizer.warmup_steps ({self.warmup_steps}) must be >= 1")
        require(0 <= self.label_smoothing < 1, f"optimizer.label_smoothing ({self.label_smoothing}) must be in [0, 1)")
        for name in ("beta1", "beta2"):
            require(0 <= getattr(self, name) < 1, f"optimizer.{name} ({getattr(self, name)}) must be in [0, 1)")
        decay, norm = self.weight_decay, self.max_gradient_norm
        require(0 <= decay < math.inf, f"optimizer.weight_decay ({decay}) must be >= 0 and finite")
        require(norm >= 0, f"optimizer.max_gradient_norm ({norm}) must be >= 0")
        require(0 < self.decay_share <= 1, f"optimizer.decay_share ({self.decay_share}) must be in (0, 1]")


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Length, pace and place of a training run."""

    folder: str
    """Where checkpoints, logs and the prepared corpus go; seen from where the command is given."""
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
    initial_checkpoint: str | None = None
    """Checkpoint whose weights and vocabulary (not that of [vocabulary]) the run begins with, a file name like
    folder's: fine-tuning. Unset: random weights."""
    max_loss: float = 0.0
    """A step whose mean loss is above this stops the run; 0: twice the loss of a blind guess, 2 ln V."""
    compile: bool = False
    """torch.compile the layers; worth it on a GPU, needs a C++ compiler on a CPU."""
    sample_sentences: int = 4
    """Validation sentences translated and shown at each validation: a falling loss alone proves little."""

    def __post_init__(self) -> None:
        for name in ("max_steps", "batch_tokens", "accumulate", "log_every", "validate_every", "keep_checkpoints"):
            require(getattr(self, name) >= 1, f"run.{name} ({getattr(self, name)}) must be >= 1")
        for name in ("seed", "patience", "sample_sentences"):
            require(getattr(self, name) >= 0, f"run.{name} ({getattr(self, name)}) must be >= 0")
        require(self.seed < 1 << 63, f"run.seed ({self.seed}) must be below 2 ** 63")
        require(self.checkpoint_every_s > 0, f"run.checkpoint_every_s ({self.checkpoint_every_s}) must be > 0")
        for name in ("source_language", "target_language"):
            code = getattr(self, name)
            require(
                LANGUAGE_CODE.fullmatch(code) is not None, f"run.{name} ({code!r}) must be a BCP-47 code such as en"
            )
        require(self.max_loss >= 0, f"run.max_loss ({self.max_loss}) must be >= 0")
        require(bool(self.folder), "run.folder must not be empty")
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

    def __post_init__(self) -> None:
        width = self.model.model_width // self.model.num_heads
        require(
            width % HEAD_WIDTHS == 0,
            f"model.model_width / num_heads ({width}) must be a multiple of {HEAD_WIDTHS}, or it cannot be exported",
        )
        for part, corpora in (("train", self.train), ("validation", self.validation)):
            require(bool(corpora), f"at least one [[{part}]] corpus is needed")
            names = [corpus.name for corpus in corpora]
            require(len(set(names)) == len(names), f"[[{part}]]: two corpora have the same name: {', '.join(names)}")
            for corpus in corpora:
                require(
                    corpus.max_tokens < self.model.max_positions,
                    f"corpus {corpus.name!r}: max_tokens ({corpus.max_tokens}) and an end token must fit "
                    f"model.max_positions ({self.model.max_positions})",
                )
        sources = self.model.source_vocab_size or self.model.vocab_size
        require(
            sources == self.model.vocab_size,
            f"model.source_vocab_size ({sources}) must be vocab_size ({self.model.vocab_size}): both languages share "
            "one vocabulary while training",
        )
        if self.vocabulary.model is None:
            require(
                self.model.vocab_size == self.vocabulary.size,
                f"model.vocab_size ({self.model.vocab_size}) must be vocabulary.size ({self.vocabulary.size})",
            )
