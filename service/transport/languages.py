"""Language codes (BCP-47, RFC 5646) and which model serves a requested pair.

Knows: codes and the pairs of loaded models. Does not know: engines.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

from service.engine.request import ModelInfo
from service.errors import InvalidRequest, LanguagePairNotLoaded

MAX_CODE_CHARACTERS = 35
# RFC 5646, section 2.1, without codes of private use alone and those from before 2005 ("x-..." and "i-..."), which no
# model has. What follows a region says nothing to a translation model, but browsers and ICU send it ("en-US-u-hc-h12").
_CODE = re.compile(
    r"(?P<language>[a-z]{2,3}|[a-z]{5,8})(-[a-z]{3}){0,3}(?P<script>-[a-z]{4})?(-([a-z]{2}|\d{3}))?"
    r"(-([a-z0-9]{5,8}|\d[a-z0-9]{3}))*"  # variants
    r"(-[a-wyz0-9](-[a-z0-9]{2,8})+)*(-x(-[a-z0-9]{1,8})+)?",  # extensions, private use
    re.IGNORECASE,
)


def is_language_code(code: str) -> bool:
    """Whether it has the form of a BCP-47 code; not whether such a language exists."""
    return len(code) <= MAX_CODE_CHARACTERS and _is_well_formed(code)


@lru_cache(maxsize=1024)  # short ones only: strangers choose them, and they stay
def _is_well_formed(code: str) -> bool:
    return code.isascii() and _CODE.fullmatch(code) is not None


@lru_cache(maxsize=1024)  # asked several times a call, mostly for the same few codes
def fallbacks(code: str) -> tuple[str, ...]:
    """The code itself, then ever less specific ones (RFC 4647, section 3.4), in lower case.

    Ours differs in one point: a script is never dropped, since text in another script is not the same text:
    "zh-Hant-TW" gives "zh-hant-tw", "zh-hant"; "en-US" gives "en-us", "en".
    """
    match = _CODE.fullmatch(code)
    least = (match.end("script") if match and match["script"] else match.end("language")) if match else len(code)
    found = [code.lower()]
    while len(found[-1]) > least:
        found.append(found[-1].rpartition("-")[0])
    return tuple(found)


def covers(model_code: str, requested: str) -> bool:
    """Whether a model of ``model_code`` may take text of ``requested``: "en" covers "en-US", "en-US" not "en"."""
    return model_code.lower() in fallbacks(requested)


@lru_cache(maxsize=1024)
def nearest(codes: tuple[str, ...], requested: str) -> str:
    """The one of a model's ``codes`` that covers ``requested`` best; "" where none does."""
    by_lower = {code.lower(): code for code in codes}
    return next((by_lower[code] for code in fallbacks(requested) if code in by_lower), "")


def model_languages(info: ModelInfo, source: str, target: str) -> tuple[str, str]:
    """The model's own codes for a request's languages, of which either may be "" where the model has only one.

    Raises:
        InvalidRequest: the model has not that language, or several and none was named.
    """
    found = []
    for field, codes, requested in (
        ("source_language", info.sources, source),
        ("target_language", info.targets, target),
    ):
        own = codes[0] if len(codes) == 1 and not requested else nearest(codes, requested)
        if not own:
            have = ", ".join(codes)
            wrong = f"not {requested!r}" if requested else "of which one must be named"
            raise InvalidRequest(field, f"model {info.name!r} has {have} here, {wrong}")
        found.append(own)
    return found[0], found[1]


def choose_model(models: Iterable[ModelInfo], source: str, target: str) -> ModelInfo:
    """The loaded model whose languages are nearest to the requested ones; the source decides first.

    Raises:
        LanguagePairNotLoaded: no model covers the pair; the message lists the pairs there are.
    """
    loaded = list(models)
    for source_code in fallbacks(source):
        for target_code in fallbacks(target):
            for model in loaded:
                if source_code in map(str.lower, model.sources) and target_code in map(str.lower, model.targets):
                    return model
    pairs = ", ".join(sorted({model.pairs for model in loaded}))
    raise LanguagePairNotLoaded(f"no loaded model translates {source} to {target}; loaded: {pairs or 'none'}")
