"""Text to token ids and back: SentencePiece, with the special tokens every model here has.

Knows: the vocabulary. Does not know: sentences' limits, languages, the model.

Texts go to SentencePiece one by one: its calls for several texts start threads, which takes 70 us a call where one text
takes 3, and they would run beside the engine's own.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from sentencepiece import SentencePieceProcessor

from service.runtime.spans import Span, decoded_spans, encoded_spans

VOCABULARY = "vocabulary.spm"


class Tokenizer:
    """One joint SentencePiece vocabulary for both languages (Kudo and Richardson 2018, arXiv:1808.06226).

    Attributes:
        vocab_size: number of pieces. pad, start, end, unknown: their ids; ``start`` begins every target.
        sha256: of the model file; part of what makes a corpus store or a bundle the same or another.
    """

    def __init__(self, model: bytes) -> None:
        self.processor = SentencePieceProcessor(model_proto=model)
        self.model = model
        self.sha256 = hashlib.sha256(model).hexdigest()
        self.vocab_size: int = self.processor.get_piece_size()
        self.pad: int = self.processor.pad_id()
        self.end: int = self.processor.eos_id()
        self.unknown: int = self.processor.unk_id()
        # Decoding starts from the end token, as in fairseq and M2M-100: one special token less to train.
        self.start: int = self.end
        if min(self.pad, self.end, self.unknown) < 0:
            raise ValueError("the vocabulary needs a padding, an end and an unknown token")

    @classmethod
    def from_file(cls, path: Path) -> "Tokenizer":
        return cls(path.read_bytes())

    def files(self) -> dict[str, bytes]:
        """What a bundle must hold of it, by file name."""
        return {VOCABULARY: self.model}

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without start or end token; a text of whitespace alone has none."""
        ids: list[list[int]] = [self.processor.encode(text) for text in texts]
        return ids

    def encode_target(self, texts: Sequence[str]) -> list[list[int]]:
        """As encode(), for texts in the target language: given translations."""
        return self.encode(texts)

    def spans(self, text: str) -> list[Span]:
        """Where each token of encode([text]) stands in the text."""
        return encoded_spans(self.processor, text)

    def target_spans(self, text: str) -> list[Span]:
        """Where each token of encode_target([text]) stands in the text."""
        return encoded_spans(self.processor, text)

    def decoded_spans(self, ids: Sequence[int]) -> list[Span]:
        """Where each of ``ids`` stands in the text of decode([ids])."""
        return decoded_spans(self.decode, ids)

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Texts of token ids; start, end and padding ids leave no trace."""
        texts: list[str] = [self.processor.decode(list(map(int, row))) for row in ids]
        return texts
