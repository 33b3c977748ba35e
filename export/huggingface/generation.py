"""generation_config.json: what it demands of every search, and what it only proposes.

Knows: the keys of ``generate``. Does not know: the network. Beams and length penalty are the request's choice here:
what the file proposes is only told. Everything that would change the search otherwise must have its neutral value.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from export.huggingface.folder import HuggingFaceFolder, ImportRefused
from service.decoding.options import MAX_NGRAM
from service.runtime.bundle import Decoding

GENERATION = "generation_config.json"
USED = {"max_length", "bad_words_ids", "renormalize_logits", "forced_bos_token_id", "forced_eos_token_id"}
USED |= {"early_stopping", "decoder_start_token_id", "eos_token_id", "pad_token_id", "num_beams", "length_penalty"}
USED |= {"no_repeat_ngram_size", "min_length", "min_new_tokens", "max_new_tokens", "bos_token_id"}
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "do_sample": (False, None),
    "max_time": (None,),
    "stop_strings": (None, []),
    "repetition_penalty": (1.0, None),  # greedy search applies it to logits, which no graph here gives
    "encoder_repetition_penalty": (1.0, None),
    "encoder_no_repeat_ngram_size": (0, None),
    "remove_invalid_values": (False, None),
    "exponential_decay_length_penalty": (None,),
    "suppress_tokens": (None, []),
    "begin_suppress_tokens": (None, []),
    "sequence_bias": (None, {}, []),
    "token_healing": (False, None),
    "guidance_scale": (None, 1.0),
    "watermarking_config": (None,),
    "num_return_sequences": (1, None),
    "penalty_alpha": (None, 0),
    "dola_layers": (None,),
    "diversity_penalty": (0.0, None),
    "num_beam_groups": (1, None),
    "constraints": (None,),
    "force_words_ids": (None,),
    "low_memory": (None, False),
}
IRRELEVANT = {  # sampling without do_sample, caches, speculative decoding, what generate returns
    *("temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"),
    *("use_cache", "cache_implementation", "cache_config", "max_cache_len", "prefill_chunk_size", "compile_config"),
    *("disable_compile", "continuous_batching_config", "is_assistant", "num_assistant_tokens", "speculation_type"),
    *("num_assistant_tokens_schedule", "assistant_confidence_threshold", "prompt_lookup_num_tokens", "use_mtp"),
    *("max_matching_ngram_size", "assistant_early_exit", "assistant_lookbehind", "target_lookbehind"),
    *("assistant_ensemble_weight", "output_attentions", "output_hidden_states", "output_scores", "output_logits"),
    *("return_dict_in_generate", "_from_model_config", "transformers_version"),
}
GENERATION_KEYS = USED | NEUTRAL.keys() | IRRELEVANT


@dataclass(frozen=True, slots=True)
class Generation:
    """How a checkpoint is meant to be decoded.

    Attributes:
        impossible: tokens of no probability at all: the others' are as if these were not in the vocabulary.
        first: a token that every translation begins with. start: the decoder's first input.
        num_beams, length_penalty: proposed.
    """

    decoding: Decoding
    impossible: tuple[int, ...]
    first: tuple[int, ...]
    start: int
    num_beams: int
    length_penalty: float


def read_generation(folder: HuggingFaceFolder, config: Mapping[str, Any], ids: tuple[int, int, int]) -> Generation:
    """What generation_config.json says, or config.json where there is none.

    Args:
        config: config.json. ids: its padding, end and start token.

    Raises:
        ImportRefused: a key would change the search in a way that is not implemented, or is unknown.
    """
    if folder.has(GENERATION):
        values, where = folder.json(GENERATION), str(folder.path / GENERATION)
    else:
        values = {key: value for key, value in config.items() if key in GENERATION_KEYS}
        where = str(folder.path / "config.json")
    check_keys(values, where)
    for name, own in zip(("pad", "eos"), ids, strict=False):
        if values.get(f"{name}_token_id", own) not in (own, [own], None):
            raise ImportRefused(f"{where}: {name}_token_id ({values[f'{name}_token_id']}) is not config.json's ({own})")
    forced_end = values.get("forced_eos_token_id")
    if forced_end not in (None, ids[1], [ids[1]]):
        raise ImportRefused(f"{where}: forced_eos_token_id ({forced_end}) is not the end token ({ids[1]})")
    early = values.get("early_stopping")
    if early not in (True, False, None):
        raise ImportRefused(f"{where}: early_stopping ({early!r}) must be true or false")
    banned = bad_words(values.get("bad_words_ids"), ids[1], where)
    renormalize = bool(values.get("renormalize_logits"))
    # Where the file has the one and not the other, ``generate`` begins with bos; config.json's is not asked.
    default_start = integer(values, "bos_token_id", where, default=ids[2]) if folder.has(GENERATION) else ids[2]
    start = integer(values, "decoder_start_token_id", where, default=default_start)
    ngram, least = penalties(values, where, start_is_possible=start != ids[1] and start not in banned)
    # Theirs counts the start token; max_new_tokens goes before and does not.
    max_length = integer(values, "max_new_tokens", where) or max(integer(values, "max_length", where) - 1, 0)
    first = integer(values, "forced_bos_token_id", where, default=-1)
    return Generation(
        Decoding(
            banned=() if renormalize else banned,
            force_end=forced_end is not None,
            stop_at_beams=bool(early),
            max_length=max_length,
            no_repeat_ngram_size=ngram,
            min_length=least,
        ),
        impossible=banned if renormalize else (),
        first=() if first < 0 else (first,),
        start=start,
        num_beams=integer(values, "num_beams", where, default=1),
        length_penalty=number(values, "length_penalty", where, default=1.0),
    )


def penalties(values: Mapping[str, Any], where: str, start_is_possible: bool) -> tuple[int, int]:
    """no_repeat_ngram_size and min_length as decode options, where ``generate`` means the same by them.

    It looks for n-grams from the start token on, which makes no difference where that token cannot come again.
    """
    ngram = integer(values, "no_repeat_ngram_size", where)
    # The start token counts in the one and not in the other, which goes before.
    least = integer(values, "min_new_tokens", where) or max(integer(values, "min_length", where) - 1, 0)
    if ngram and not 2 <= ngram <= MAX_NGRAM:
        raise ImportRefused(f"{where}: no_repeat_ngram_size ({ngram}) must be 0 or in [2, {MAX_NGRAM}]")
    if ngram and start_is_possible:
        raise ImportRefused(
            f"{where}: no_repeat_ngram_size ({ngram}) is implemented only where decoder_start_token_id is the end "
            "token or one of bad_words_ids"
        )
    if values.get("renormalize_logits") and (ngram or least):
        key = "no_repeat_ngram_size" if ngram else "min_new_tokens" if values.get("min_new_tokens") else "min_length"
        raise ImportRefused(f"{where}: {key} ({values[key]}) together with renormalize_logits is not implemented")
    return ngram, least


def check_keys(values: Mapping[str, Any], where: str) -> None:
    for key, value in values.items():
        if key in NEUTRAL and value not in NEUTRAL[key]:
            given, must = json.dumps(value), json.dumps(NEUTRAL[key][0])
            raise ImportRefused(f"{where}: {key} ({given}) must be {must}; nothing else is implemented")
        if key not in GENERATION_KEYS:
            raise ImportRefused(f"{where}: key {key!r} ({value!r}) is unknown: what it would change cannot be told")


def bad_words(words: Any, end: int, where: str) -> tuple[int, ...]:
    """Token ids of bad words of one token; Transformers takes no notice of the end token among them."""
    try:
        tokens = [int(token) for [token] in words or []]
    except (TypeError, ValueError):
        raise ImportRefused(f"{where}: bad_words_ids ({words}): only words of one token are implemented") from None
    return tuple(token for token in tokens if token != end)


def number(values: Mapping[str, Any], key: str, where: str, default: float = 0) -> float:
    value = values.get(key)
    if value is None:
        return default
    # json reads NaN and Infinity as numbers.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ImportRefused(f"{where}: {key} ({value!r}) must be a number >= 0")
    return value


def integer(values: Mapping[str, Any], key: str, where: str, default: int = 0) -> int:
    value = number(values, key, where, default)
    if value != int(value):
        raise ImportRefused(f"{where}: {key} ({value!r}) must be an integer >= 0")
    return int(value)
