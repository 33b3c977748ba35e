"""How one request wants to be decoded. Knows ranges and defaults; does not know how a search works."""

from dataclasses import dataclass

MAX_BEAMS = 16


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

    def __post_init__(self) -> None:
        if not 1 <= self.num_beams <= MAX_BEAMS:
            raise ValueError(f"num_beams ({self.num_beams}) must be in [1, {MAX_BEAMS}]")
        if not 0.0 <= self.length_penalty <= 5.0:  # also refuses NaN
            raise ValueError(f"length_penalty ({self.length_penalty}) must be in [0, 5]")
        if not 1 <= self.num_alternatives <= self.num_beams:
            raise ValueError(f"num_alternatives ({self.num_alternatives}) must be in [1, num_beams ({self.num_beams})]")
        if self.max_length < 0:
            raise ValueError(f"max_length ({self.max_length}) must be >= 0")
