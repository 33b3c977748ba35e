"""The tokenizer of a folder, as one table of pieces, and the languages that have a token of their own.

Knows: the files of MarianTokenizer, M2M100Tokenizer and NllbTokenizer, and how each gives ids to pieces. Does not know:
weights.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sentencepiece import SentencePieceProcessor

from export.huggingface.config import ImportedConfig
from export.huggingface.folder import HuggingFaceFolder, ImportRefused
from service.runtime.piece_tokenizer import PieceTable, PieceTokenizer

SETTINGS = "tokenizer_config.json"
MARIAN_LANGUAGE, NLLB_LANGUAGE = re.compile(r">>(.+)<<"), re.compile(r"[a-z]{3}_[A-Z][a-z]{3}")
# The order in which M2M-100's languages follow its pieces: their ids are nowhere in its files.
M2M100_LANGUAGES = re.findall(
    r"\w+",
    """
    af am ar ast az ba be bg bn br bs ca ceb cs cy da de el en es et fa ff fi fr fy ga gd gl gu ha he hi hr ht
    hu hy id ig ilo is it ja jv ka kk km kn ko lb lg ln lo lt lv mg mk ml mn mr ms my ne nl no ns oc or pa pl ps
    pt ro ru sd si sk sl so sq sr ss su sv sw ta th tl tn tr uk ur uz vi wo xh yi yo zh zu
    """,
)
WMT21_LANGUAGES = ["en", "ha", "is", "ja", "cs", "ru", "zh", "de"]
# Any other class cuts texts, or tells the model the languages, in a way of its own. Fast ones are the same, faster; the
# last three are names for what tokenizer.json says, which is made of the files that are read here.
CLASSES = {f"{name}Tokenizer{fast}" for name in ("Marian", "M2M100", "Nllb") for fast in ("", "Fast")}
CLASSES |= {"PreTrainedTokenizerFast", "TokenizersBackend", "PreTrainedTokenizer"}
FAIRSEQ_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # before all pieces of an NLLB model


@dataclass(frozen=True, slots=True)
class ImportedTokenizer:
    """A tokenizer and its languages.

    Attributes:
        languages: id of the token of each language, by the checkpoint's code. settings: tokenizer_config.json.
    """

    tokenizer: PieceTokenizer
    languages: Mapping[str, int]
    settings: Mapping[str, Any]


def read_tokenizer(folder: HuggingFaceFolder, config: ImportedConfig, start: int) -> ImportedTokenizer:
    """Raises ImportRefused: a file is missing, or does not fit the others or config.json."""
    settings = folder.json_if_there(SETTINGS)
    refuse_own_code(folder, settings)
    if settings.get("sp_model_kwargs"):
        raise ImportRefused(f"{folder.path / SETTINGS}: sp_model_kwargs are not implemented")
    # The second: M2M-100's network with Marian's tokenizer, as export-transformers writes it.
    is_marian = config.kind == "marian" or folder.has("source.spm")
    read = (read_marian if is_marian else read_m2m100)(folder, config, start, settings)
    refuse_added_tokens(folder, read)
    return read


def refuse_own_code(folder: HuggingFaceFolder, settings: Mapping[str, Any]) -> None:
    """SMaLL-100 is one: M2M-100's class and files but for tokenization_small100.py, by which the encoder is told the
    target language instead of the source's.

    Raises:
        ImportRefused: the tokenizer is none of Transformers' own that are known here.
    """
    own = folder.names("tokenization_*.py")
    if own or settings.get("auto_map"):
        what = own[0] if own else f"{SETTINGS}: auto_map"
        raise ImportRefused(f"{folder.path} has a tokenizer of its own ({what}): what it does cannot be told")
    name = settings.get("tokenizer_class") or "MarianTokenizer"
    if not isinstance(name, str) or name not in CLASSES:
        raise ImportRefused(f"{folder.path / SETTINGS}: tokenizer_class ({name!r}) is not implemented")


def refuse_added_tokens(folder: HuggingFaceFolder, read: ImportedTokenizer) -> None:
    """Tokens added after training are cut out of a text before SentencePiece sees it, which is not done here.

    Raises:
        ImportRefused: there are some that are neither special tokens, which no text is meant to hold, nor languages.
    """
    settings = read.settings
    added = added_tokens(folder, settings).keys() | folder.json_if_there("added_tokens.json").keys()
    special = {name_of(settings, kind, f"<{kind}>") for kind in ("bos", "eos", "unk", "pad", "cls", "sep", "mask")}
    languages = {form for code in read.languages for form in (code, f"__{code}__", f">>{code}<<")}
    unknown = sorted(added - special - languages - set(FAIRSEQ_SPECIAL))
    if unknown:
        raise ImportRefused(
            f"{folder.path}: tokens that were added to the tokenizer are not implemented: "
            f"{', '.join(map(repr, unknown[:5]))}{' and others' if len(unknown) > 5 else ''}"
        )


def added_tokens(folder: HuggingFaceFolder, settings: Mapping[str, Any]) -> dict[str, int]:
    """Ids of the tokens that tokenizer_config.json and tokenizer.json list. Raises ImportRefused: one is damaged."""
    stored = folder.json_if_there("tokenizer.json").get("added_tokens")
    name = SETTINGS
    try:
        added = {str(entry["content"]): int(i) for i, entry in (settings.get("added_tokens_decoder") or {}).items()}
        name = "tokenizer.json"
        return added | {str(entry["content"]): int(entry["id"]) for entry in stored or []}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        where = folder.path / name
        raise ImportRefused(f"{where}: its added tokens are damaged: {type(error).__name__}: {error}") from error


def read_ids(folder: HuggingFaceFolder, name: str, size: int) -> dict[str, int]:
    """vocab.json: ids of pieces, each in [0, ``size``)."""
    ids = folder.json(name)
    taken: dict[int, str] = {}
    for piece, i in ids.items():
        if isinstance(i, bool) or not isinstance(i, int) or not 0 <= i < size:
            raise ImportRefused(f"{folder.path / name}: the id of {piece!r} ({i!r}) must be in [0, {size})")
        if i in taken:
            raise ImportRefused(f"{folder.path / name}: {piece!r} and {taken[i]!r} have the same id, {i}")
        taken[i] = piece
    return ids


def sentencepiece(folder: HuggingFaceFolder, name: str) -> bytes:
    content = folder.bytes(name)
    try:
        SentencePieceProcessor(model_proto=content)
    except RuntimeError as error:
        raise ImportRefused(f"{folder.path / name} is no SentencePiece model: {error}") from error
    return content


def name_of(settings: Mapping[str, Any], kind: str, default: str) -> str:
    """A special token's name, which is stored alone or with how it was added."""
    value = settings.get(f"{kind}_token") or default
    name = value.get("content") if isinstance(value, dict) else value
    if not isinstance(name, str):
        raise ImportRefused(f"{SETTINGS}: {kind}_token ({value!r}) is no token")
    return name


def column(ids: Mapping[str, int], size: int) -> tuple[str | None, ...]:
    pieces: list[str | None] = [None] * size
    for piece, i in ids.items():
        pieces[i] = piece
    return tuple(pieces)


def read_marian(
    folder: HuggingFaceFolder, config: ImportedConfig, start: int, settings: Mapping[str, Any]
) -> ImportedTokenizer:
    models = [sentencepiece(folder, name) for name in ("source.spm", "target.spm")]
    source_size = config.model.source_vocab_size or config.model.vocab_size
    source = read_ids(folder, "vocab.json", source_size)
    is_separate = bool(settings.get("separate_vocabs"))
    if not is_separate and source_size != config.model.vocab_size:
        raise ImportRefused(
            f"{folder.path / 'config.json'} has two vocabularies ({source_size} and {config.model.vocab_size} tokens), "
            f"but {folder.path / SETTINGS} does not say separate_vocabs"
        )
    target = read_ids(folder, "target_vocab.json", config.model.vocab_size) if is_separate else source
    names = {kind: name_of(settings, kind, default) for kind, default in (("eos", "</s>"), ("unk", "<unk>"))}
    for kind, ids in ((kind, ids) for kind in names for ids in (source, target)):
        if names[kind] not in ids:
            raise ImportRefused(f"{folder.path}: the vocabulary has no {kind}_token {names[kind]!r}")
    for ids in (source, target):
        if ids[names["eos"]] != config.end:
            raise ImportRefused(f"{folder.path}: eos_token has id {ids[names['eos']]}, config.json says {config.end}")
    table = PieceTable(
        source=column(source, source_size),
        target=column(target, config.model.vocab_size),
        pad=config.pad,
        end=config.end,
        unknown=source[names["unk"]],
        start=start,
        silent=tuple(sorted({config.pad, config.end, start, target[names["unk"]]})),
    )
    found = ((MARIAN_LANGUAGE.fullmatch(piece), i) for piece, i in source.items())
    languages = {match[1]: i for match, i in found if match}
    return ImportedTokenizer(PieceTokenizer(models[0], models[1], table), languages, settings)


def read_m2m100(
    folder: HuggingFaceFolder, config: ImportedConfig, start: int, settings: Mapping[str, Any]
) -> ImportedTokenizer:
    size = config.model.vocab_size
    model = sentencepiece(folder, "sentencepiece.bpe.model")
    if settings.get("legacy_behaviour"):
        raise ImportRefused(f"{folder.path / SETTINGS}: legacy_behaviour (true) is not implemented")
    if folder.has("vocab.json"):
        ids = read_ids(folder, "vocab.json", size)
        codes = WMT21_LANGUAGES if settings.get("language_codes") == "wmt21" else M2M100_LANGUAGES
        languages = {code: len(ids) + i for i, code in enumerate(codes)}
    else:
        ids, languages = nllb_ids(folder, model, settings)
    for piece, i in (ids | languages).items():
        if not 0 <= i < size:
            raise ImportRefused(f"{folder.path}: {piece!r} has id {i}, but config.json only {size} tokens")
    unknown = ids.get(name_of(settings, "unk", "<unk>"), -1)
    if unknown < 0 or ids.get(name_of(settings, "eos", "</s>")) != config.end:
        raise ImportRefused(f"{folder.path}: unk_token or eos_token is not in the vocabulary where config.json says")
    pieces = column(ids, size)
    silent = {
        config.pad,
        config.end,
        start,
        unknown,
        *languages.values(),
        *(ids[s] for s in FAIRSEQ_SPECIAL if s in ids),
    }
    table = PieceTable(pieces, pieces, config.pad, config.end, unknown, start, tuple(sorted(silent)))
    return ImportedTokenizer(PieceTokenizer(model, model, table), languages, settings)


def nllb_ids(
    folder: HuggingFaceFolder, model: bytes, settings: Mapping[str, Any]
) -> tuple[dict[str, int], dict[str, int]]:
    """NLLB's ids: four special tokens, the pieces of SentencePiece but its first three, then languages.

    Raises:
        ImportRefused: no file says which languages there are.
    """
    processor = SentencePieceProcessor(model_proto=model)
    ids = {piece: i for i, piece in enumerate(FAIRSEQ_SPECIAL)}
    ids |= {processor.id_to_piece(i): i + 1 for i in range(3, processor.get_piece_size())}
    added = added_tokens(folder, settings)
    if not any(NLLB_LANGUAGE.fullmatch(token) for token in added):
        special = dict(settings) | folder.json_if_there("special_tokens_map.json")
        codes = special.get("additional_special_tokens") or special.get("extra_special_tokens") or []
        added |= {code: processor.get_piece_size() + 1 + i for i, code in enumerate(codes) if isinstance(code, str)}
    languages = {token: i for token, i in added.items() if NLLB_LANGUAGE.fullmatch(token)}
    if not languages:
        raise ImportRefused(f"{folder.path}: neither tokenizer.json nor {SETTINGS} holds any language such as fra_Latn")
    return ids, languages
