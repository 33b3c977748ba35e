"""Text to token ids and back with the vocabulary of an imported model: SentencePiece cuts, a table gives the ids.

Knows: both sides' SentencePiece models, and which id each piece has. Does not know: where they came from, languages,
the model.

OPUS-MT, M2M-100 and NLLB-200 have ids of their own: two SentencePiece models share one table, or each side has its
own. A text is never read for markers: ``</s>`` or ``>>fra<<`` in a text are cut like any other characters.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sentencepiece import SentencePieceProcessor

from service.errors import BundleError
from service.runtime.bundle import TABLE_FILES, Bundle
from service.runtime.spans import Span, encoded_spans
from service.runtime.tokenizer import Tokenizer

SOURCE, TARGET, TABLE = TABLE_FILES


@dataclass(frozen=True, slots=True)
class PieceTable:
    """What pieces.json holds.

    Attributes:
        source, target: the piece of each id, None where an id has none. target has as many as the model has logits.
        pad, end, unknown, start: ids of the target side; ``start`` begins every target, the encoder too reads ``end``.
        silent: ids that leave no trace in a text: special tokens, language codes.
    """

    source: tuple[str | None, ...]
    target: tuple[str | None, ...]
    pad: int
    end: int
    unknown: int
    start: int
    silent: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("pad", "end", "unknown", "start"):
            if not 0 <= getattr(self, name) < len(self.target):
                raise ValueError(f"id of {name} ({getattr(self, name)}) must be in [0, {len(self.target)})")
        if not max(self.end, self.unknown) < len(self.source):
            raise ValueError("the end and the unknown token must have ids on the source side, too")

    def to_json(self) -> bytes:
        values = asdict(self) | ({"source": None} if self.source == self.target else {})
        return (json.dumps(values, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, text: bytes) -> "PieceTable":
        """Raises ValueError: it is not such a table."""
        try:
            values: dict[str, Any] = json.loads(text)
            target = tuple(values.pop("target"))
            source = tuple(values.pop("source") or target)
            return cls(source=source, target=target, silent=tuple(values.pop("silent")), **values)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a table of pieces: {type(error).__name__}: {error}") from error


class PieceTokenizer(Tokenizer):
    """The tokenizer of an imported model; the same ids as its own tokenizer in Transformers gives.

    Raises:
        ValueError, RuntimeError: a file is not what it should be.
    """

    def __init__(self, source_model: bytes, target_model: bytes, table: PieceTable) -> None:
        self.processor = SentencePieceProcessor(model_proto=source_model)
        self.target_processor = SentencePieceProcessor(model_proto=target_model)
        self.model, self.target_model, self.table = source_model, target_model, table
        self.sha256 = hashlib.sha256(source_model + target_model + table.to_json()).hexdigest()
        self.vocab_size = len(table.target)
        self.pad, self.end, self.unknown, self.start = table.pad, table.end, table.unknown, table.start
        self.ids = {piece: i for i, piece in enumerate(table.source) if piece is not None}
        self.target_ids = {piece: i for i, piece in enumerate(table.target) if piece is not None}
        silent = set(table.silent)
        self.pieces = [None if i in silent else piece for i, piece in enumerate(table.target)]

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> "PieceTokenizer":
        return cls(files[SOURCE], files[TARGET], PieceTable.from_json(files[TABLE]))

    def files(self) -> dict[str, bytes]:
        return {SOURCE: self.model, TARGET: self.target_model, TABLE: self.table.to_json()}

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        get, unknown = self.ids.get, self.unknown
        return [[get(piece, unknown) for piece in self.processor.encode(text, out_type=str)] for text in texts]

    def encode_target(self, texts: Sequence[str]) -> list[list[int]]:
        get, unknown = self.target_ids.get, self.unknown
        return [[get(piece, unknown) for piece in self.target_processor.encode(text, out_type=str)] for text in texts]

    def target_spans(self, text: str) -> list[Span]:
        return encoded_spans(self.target_processor, text)

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        texts = []
        for row in ids:
            pieces = [piece for piece in (self.pieces[i] for i in row) if piece is not None]
            text: str = self.target_processor.decode_pieces(pieces)
            # A piece that this SentencePiece model does not know keeps its mark of a space.
            texts.append(text.replace("\u2581", " ").strip())
        return texts


def tokenizer_of(bundle: Bundle) -> Tokenizer:
    """The tokenizer of a bundle.

    Raises:
        BundleError: its files are no tokenizer, or have other ids than the model has logits.
    """
    manifest = bundle.manifest
    path, files = bundle.path(manifest.vocabulary), manifest.vocabulary_files
    try:
        contents = {name: bundle.path(name).read_bytes() for name in files}
        tokenizer = PieceTokenizer.from_files(contents) if len(files) > 1 else Tokenizer(contents[manifest.vocabulary])
    except (OSError, RuntimeError, ValueError) as error:
        raise BundleError(f"{path} is not a vocabulary: {error}") from error
    if tokenizer.vocab_size != manifest.shape.vocab_size:
        raise BundleError(f"{path} has {tokenizer.vocab_size} pieces, the model {manifest.shape.vocab_size}")
    return tokenizer
