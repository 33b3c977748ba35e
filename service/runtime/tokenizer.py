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
UTF8_BYTES = 4  # of the longest character
NO_BYTE = 0xFF  # stands nowhere in UTF-8


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
        # Of tokens that stand for a byte each, as vocabularies have them for characters without a piece.
        tokens = (token for token in range(self.vocab_size) if self.processor.is_byte(token))
        self.bytes = {token: int(self.processor.id_to_piece(token)[3:5], 16) for token in tokens}  # of "<0xE2>"
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
        """Texts of token ids; start, end and padding ids leave no trace, nor do bytes that make no character."""
        texts: list[str] = [self.processor.decode(self.readable(list(map(int, row)))) for row in ids]
        return texts

    def readable(self, ids: list[int]) -> list[int]:
        """Without the byte tokens that are no whole character: a reader would see a mark for each instead."""
        if self.bytes.keys().isdisjoint(ids):
            return ids
        found: list[int] = []
        place = 0
        while place < len(ids):
            count = 1 if ids[place] not in self.bytes else self.bytes_of_character(ids, place)
            found += ids[place : place + count]
            place += count or 1
        return found

    def bytes_of_character(self, ids: Sequence[int], start: int) -> int:
        """How many tokens from ``start`` on are the bytes of one character in UTF-8; 0: they are none."""
        for count in range(1, UTF8_BYTES + 1):
            values = [self.bytes.get(token, NO_BYTE) for token in ids[start : start + count]]
            if len(values) == count and is_character(bytes(values)):
                return count
        return 0


def is_character(utf8: bytes) -> bool:
    try:
        return len(utf8.decode()) == 1
    except UnicodeDecodeError:
        return False
