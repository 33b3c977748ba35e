"""How one request wants to be decoded. Knows ranges and defaults; does not know how a search works."""

from dataclasses import dataclass

MAX_BEAMS = 16
MAX_NGRAM = 16


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """Decode options after validation; all limits are inclusive.

    Raises:
        ValueError: a value is out of its range; the message names the field and the number.
    """

    num_beams: int = 4
    """Beam width K; 1 is greedy search. 1 to MAX_BEAMS."""
    length_penalty: float = 1.0
    """Exponent A of score = sum of log-probabilities / length ** A. 0 to 5; 0 compares plain sums."""
    num_alternatives: int = 1
    """Hypotheses returned, the best included. 1 to num_beams."""
    max_length: int = 0
    """Target tokens a sentence may have, the end token counted; 0: the model's own limit for the source length."""

    no_repeat_ngram_size: int = 0
    """No n-gram of so many tokens comes twice in a translation; 0: any may. 0 to MAX_NGRAM."""
    repetition_penalty: float = 1.0
    """The log-probability of a token that the translation has already is multiplied by this. 1 (none) to 10."""
    min_length: int = 0
    """Target tokens before the end token may come. At least 0; no more than max_length where that is given."""

    def __post_init__(self) -> None:
        if not 1 <= self.num_beams <= MAX_BEAMS:
            raise ValueError(f"num_beams ({self.num_beams}) must be in [1, {MAX_BEAMS}]")
        if not 0.0 <= self.length_penalty <= 5.0:  # also refuses NaN
            raise ValueError(f"length_penalty ({self.length_penalty}) must be in [0, 5]")
        if not 1 <= self.num_alternatives <= self.num_beams:
            raise ValueError(f"num_alternatives ({self.num_alternatives}) must be in [1, num_beams ({self.num_beams})]")
        if not 0 <= self.no_repeat_ngram_size <= MAX_NGRAM:
            raise ValueError(f"no_repeat_ngram_size ({self.no_repeat_ngram_size}) must be in [0, {MAX_NGRAM}]")
        if not 1.0 <= self.repetition_penalty <= 10.0:  # also refuses NaN
            raise ValueError(f"repetition_penalty ({self.repetition_penalty}) must be in [1, 10]")
        if self.min_length < 0:
            raise ValueError(f"min_length ({self.min_length}) must be >= 0")
        if 0 < self.max_length < self.min_length:
            raise ValueError(f"min_length ({self.min_length}) must be <= max_length ({self.max_length})")
        if self.max_length < 0:
            raise ValueError(f"max_length ({self.max_length}) must be >= 0")
