"""What a request's options mean for one model: its own choices where they say nothing, and its limits.

Knows: the manifest's defaults and limits. Does not know: texts, queues.
"""

from dataclasses import dataclass, replace

from service.decoding.options import DecodeOptions
from service.errors import InvalidRequest
from service.runtime.bundle import Decoding

TOKENS_FOR_EACH, TOKENS_MORE = 3, 16
"""How long a translation may be where nobody says: tokens for each of the source, and some more."""


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """The options of one loaded model.

    Attributes:
        own: what its authors chose. max_target_tokens: the longest translation it can make. max_beams: the widest
            search its graphs and its rows allow. default_max_length: target tokens of a sentence whose options leave
            it open, as the settings say; 0: as the model says.
    """

    own: Decoding
    max_target_tokens: int
    max_beams: int
    default_max_length: int = 0

    def check(self, options: DecodeOptions) -> None:
        """Raises InvalidRequest where the model cannot give what is asked of every sentence."""
        if options.num_beams > self.max_beams:
            many = f"{options.num_beams} is more than the {self.max_beams} here"
            raise InvalidRequest("options.num_beams", many, value=options.num_beams, max=self.max_beams)
        limit = self.max_target_tokens
        for field, value in (("max_length", options.max_length), ("min_length", options.min_length)):
            if value > limit:
                long = f"{value} is more than the model's {limit} tokens"
                raise InvalidRequest(f"options.{field}", long, value=value, max=limit)

    def completed(self, options: DecodeOptions) -> DecodeOptions:
        """``options`` with what the model's authors chose where a request says nothing."""
        if not (self.own.no_repeat_ngram_size or self.own.min_length):
            return options
        least = options.min_length or self.own.min_length
        return replace(
            options,
            no_repeat_ngram_size=options.no_repeat_ngram_size or self.own.no_repeat_ngram_size,
            min_length=min(least, options.max_length) if options.max_length else least,
        )

    def max_length(self, num_source_tokens: int, options: DecodeOptions) -> int:
        """Target tokens for a sentence: what was asked for, else what the model says, else three for each of the
        source and some; never more than the model has positions for."""
        own = self.own.max_length or TOKENS_FOR_EACH * num_source_tokens + TOKENS_MORE
        wanted = options.max_length or self.default_max_length or own
        return min(wanted, self.max_target_tokens)
