"""How much one request or stream may ask for. Knows: numbers and their sense. Does not know: requests."""

from dataclasses import dataclass, fields

from service.decoding.options import MAX_BEAMS


@dataclass(frozen=True, slots=True)
class Limits:
    """Inclusive limits; past them a request is refused, past max_stream_texts a stream is read no further.

    Raises:
        ValueError: a limit is out of its range; the message names it and the number.
    """

    max_texts: int = 1024
    """Texts in one request."""
    max_text_characters: int = 100_000
    """Characters (Unicode code points) of one text."""
    max_request_characters: int = 1_000_000
    """Characters of all texts of one request."""
    max_beams: int = MAX_BEAMS
    """Beam width. 1 to MAX_BEAMS."""
    max_alternatives: int = MAX_BEAMS
    """Translations per text. 1 to MAX_BEAMS."""
    max_stream_texts: int = 64
    """Texts of one stream that were read and whose results were not written yet."""
    max_stream_idle_s: int = 300
    """Seconds until a stream ends whose texts are all answered and that sends no other, or that takes no result."""
    max_message_bytes: int = 16 * 1024 * 1024
    """Bytes of one gRPC message; gRPC itself refuses larger ones."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            most = MAX_BEAMS if field.name in ("max_beams", "max_alternatives") else 2**31 - 1
            if not 1 <= value <= most:
                raise ValueError(f"{field.name} ({value}) must be in [1, {most}]")
