"""A checkpoint in Hugging Face's layout as a model, a tokenizer, and what a bundle must say of both.

Knows: which reader gives which part, and that the parts agree. Does not know: keys, tensor names, files of tokenizers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from export.huggingface.config import ImportedConfig, read_config
from export.huggingface.folder import HuggingFaceFolder, ImportRefused
from export.huggingface.generation import Generation, read_generation
from export.huggingface.language_codes import bcp47, bcp47_of_all
from export.huggingface.tokenizer import ImportedTokenizer, read_tokenizer
from export.huggingface.weights import read_model
from model.transformer import Transformer
from service.runtime.bundle import Decoding, Language
from service.runtime.piece_tokenizer import PieceTokenizer


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything that a bundle is made of.

    Attributes:
        sources, targets: at least one of each; the first are the default. has_choice: (of sources, of targets).
        proposed: options of a request that the checkpoint's authors proposed.
        left_out: languages of the checkpoint whose names are none in BCP-47, so that no request can choose them.
    """

    model: Transformer
    tokenizer: PieceTokenizer
    sources: tuple[Language, ...]
    targets: tuple[Language, ...]
    has_choice: tuple[bool, bool]
    decoding: Decoding
    proposed: Mapping[str, float]
    left_out: tuple[str, ...]


def read_checkpoint(path: Path, sources: Sequence[str], targets: Sequence[str]) -> Checkpoint:
    """Reads a folder.

    Args:
        sources, targets: BCP-47 codes of the languages to serve; empty: what the folder says.

    Raises:
        ImportRefused: something in the folder is missing, damaged, or would be imported wrongly.
    """
    folder = HuggingFaceFolder(path)
    config = read_config(folder)
    generation = read_generation(folder, config.values, (config.pad, config.end, config.start))
    check_ids(generation, config)
    tokenizer = read_tokenizer(folder, config, generation.start)
    find = marian_languages if config.kind == "marian" or not tokenizer.languages else m2m100_languages
    source_languages, target_languages = find(tokenizer, generation, sources, targets)
    model = read_model(folder.tensors(), config, generation.impossible)
    limit = min(generation.decoding.max_length or config.model.max_positions, config.model.max_positions)
    return Checkpoint(
        model=model,
        tokenizer=tokenizer.tokenizer,
        sources=source_languages,
        targets=target_languages,
        has_choice=tuple(needs_choice(side) for side in (source_languages, target_languages)),  # type: ignore[arg-type]
        decoding=replace(generation.decoding, max_length=limit if generation.decoding.max_length else 0),
        proposed={"num_beams": generation.num_beams, "length_penalty": generation.length_penalty},
        left_out=tuple(sorted(tokenizer.languages.keys() - bcp47_of_all(list(tokenizer.languages)).keys())),
    )


def needs_choice(languages: Sequence[Language]) -> bool:
    return len(languages) > 1 or any(language.prefix or language.first for language in languages)


def check_ids(generation: Generation, config: ImportedConfig) -> None:
    size = config.model.vocab_size
    for key, ids in (
        ("bad_words_ids", generation.impossible + generation.decoding.banned),
        ("forced_bos_token_id", generation.first),
        ("decoder_start_token_id", (generation.start,)),
    ):
        if any(i >= size for i in ids):
            raise ImportRefused(f"generation_config.json: {key} ({max(ids)}) must be below vocab_size ({size})")
    if config.kind == "m2m_100" and generation.start == config.pad:
        raise ImportRefused(
            "generation_config.json: decoder_start_token_id is pad_token_id, which has no position here"
        )


def selected(known: dict[str, str], wanted: Sequence[str], side: str) -> dict[str, str]:
    """Of {the checkpoint's code: ours}, those that were asked for, in the order of asking; all where none was."""
    if not wanted:
        return known
    by_ours = {ours.lower(): code for code, ours in known.items()}
    for code in wanted:
        if (bcp47(code) or code).lower() not in by_ours:
            raise ImportRefused(f"--{side}-language {code}: the checkpoint has {', '.join(sorted(known.values()))}")
    chosen = [by_ours[(bcp47(code) or code).lower()] for code in wanted]
    return {code: known[code] for code in chosen}


def named(tokenizer: ImportedTokenizer, wanted: Sequence[str], side: str) -> tuple[Language, ...]:
    """Languages without tokens: those that were asked for, else the tokenizer's own."""
    own = str(tokenizer.settings.get(f"{side}_lang") or "")
    codes = [bcp47(code) for code in (wanted or [own])]
    if not all(codes):
        option = "source" if side == "source" else "target"
        raise ImportRefused(
            f"{f'--{option}-language {wanted}' if wanted else f'tokenizer_config.json: {side}_lang ({own!r})'} is no "
            f"language; say --{option}-language CODE, such as fr, several times where there are several"
        )
    return tuple(Language(code) for code in dict.fromkeys(codes))


def marian_languages(
    tokenizer: ImportedTokenizer, generation: Generation, sources: Sequence[str], targets: Sequence[str]
) -> tuple[tuple[Language, ...], tuple[Language, ...]]:
    """Marian tells the encoder the target language by a token such as >>fra<<, where it has several."""
    source = named(tokenizer, sources, "source")
    if not tokenizer.languages:
        only = named(tokenizer, targets, "target")
        if len(only) > 1:
            raise ImportRefused(
                "--target-language: the vocabulary has no token such as >>fra<<: there is one target only"
            )
        return source, tuple(replace(language, first=generation.first) for language in only)
    known = selected(bcp47_of_all(list(tokenizer.languages)), targets, "target")
    if not known:
        raise ImportRefused("vocab.json: no token such as >>fra<< names a language")
    return source, tuple(Language(ours, (tokenizer.languages[code],), generation.first) for code, ours in known.items())


def m2m100_languages(
    tokenizer: ImportedTokenizer, generation: Generation, sources: Sequence[str], targets: Sequence[str]
) -> tuple[tuple[Language, ...], tuple[Language, ...]]:
    """M2M-100 has a token of the source language before every source and one of the target before every target."""
    if generation.first and generation.first[0] not in tokenizer.languages.values():
        raise ImportRefused(
            f"generation_config.json: forced_bos_token_id ({generation.first[0]}) is no language's token"
        )
    known = bcp47_of_all(list(tokenizer.languages))
    ids = tokenizer.languages
    first = [code for code, i in ids.items() if i in generation.first]
    own = {
        side: [code for code in (str(tokenizer.settings.get(f"{side}_lang")),) if code in known]
        for side in ("src", "tgt")
    }
    chosen = (
        in_front(selected(known, sources, "source"), [] if sources else own["src"]),
        in_front(selected(known, targets, "target"), [] if targets else first or own["tgt"]),
    )
    return (
        tuple(Language(ours, prefix=(ids[code],)) for code, ours in chosen[0].items()),
        tuple(Language(ours, first=(ids[code],)) for code, ours in chosen[1].items()),
    )


def in_front(known: dict[str, str], codes: Sequence[str]) -> dict[str, str]:
    return {code: known[code] for code in codes} | known
