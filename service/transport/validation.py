"""From protobuf to what the engine takes; every field that is out of its documented range is named.

Knows: limits and field names. Does not know: models, the engine, gRPC calls.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from service.decoding.options import MAX_NGRAM, DecodeOptions
from service.engine.request import Priority, TextFormat, check_format
from service.errors import InvalidRequest
from service.pb import translation_pb2 as pb
from service.transport.languages import MAX_CODE_CHARACTERS, is_language_code
from service.transport.limits import Limits
from service.transport.request_ids import MAX_REQUEST_ID_CHARACTERS, is_request_id
from service.transport.status import InvalidFields

MAX_NAME_CHARACTERS = 128
MAX_LENGTH_PENALTY = 5
# Of a request with a thousand bad texts so many are named: the answer must fit into gRPC's metadata (8 kB).
MAX_VIOLATIONS = 16
_PRIORITIES = {
    pb.PRIORITY_UNSPECIFIED: Priority.INTERACTIVE,
    pb.PRIORITY_INTERACTIVE: Priority.INTERACTIVE,
    pb.PRIORITY_BATCH: Priority.BATCH,
}
_FORMATS = {
    pb.TEXT_FORMAT_UNSPECIFIED: TextFormat.PLAIN,
    pb.TEXT_FORMAT_PLAIN: TextFormat.PLAIN,
    pb.TEXT_FORMAT_HTML: TextFormat.HTML,
}


class Settings(NamedTuple):
    """What holds for all texts of a request or of a stream, after validation."""

    source_language: str
    target_language: str
    model: str
    options: DecodeOptions
    priority: Priority
    include_token_ids: bool
    include_alignment: bool = False
    text_format: TextFormat = TextFormat.PLAIN


class Violations:
    """Collects what is wrong with a message, so that the caller learns of all of it at once."""

    def __init__(self) -> None:
        self._found: list[InvalidRequest] = []

    def add(self, field: str, description: str, **numbers: float) -> None:
        if len(self._found) < MAX_VIOLATIONS:
            self._found.append(InvalidRequest(field, description, **numbers))

    def limit(self, field: str, what: str, value: int, most: int, advice: str = "") -> None:
        """Adds one where ``value`` is more than ``most``."""
        if value > most:
            self.add(field, f"{what} ({value}) must be <= {most}{advice}", value=value, max=most)

    def raise_any(self) -> None:
        """Raises InvalidRequest for one violation and InvalidFields for several."""
        if len(self._found) == 1:
            raise self._found[0]
        if self._found:
            raise InvalidFields(self._found)


def read_request(request: pb.TranslateRequest, limits: Limits, defaults: DecodeOptions) -> tuple[list[str], Settings]:
    """Texts and settings of a request.

    Raises:
        InvalidRequest, InvalidFields: fields are out of their documented ranges.
    """
    violations = Violations()
    texts = list(request.texts)
    _check_texts(texts, limits, violations)
    settings = _read_settings(request, "", limits, defaults, violations)
    violations.raise_any()
    return texts, settings


def read_pairs(
    request: pb.ScoreRequest, limits: Limits, defaults: DecodeOptions
) -> tuple[list[tuple[str, str]], Settings]:
    """Pairs of source and target, and settings. Raises as read_request does."""
    violations = Violations()
    pairs = [(pair.source, pair.target) for pair in request.pairs]
    _check_pairs(pairs, limits, violations)
    _check_names(request, "", violations)
    options = defaults
    if request.HasField("length_penalty"):
        if 0 <= request.length_penalty <= MAX_LENGTH_PENALTY:  # also refuses NaN
            options = replace(defaults, length_penalty=request.length_penalty)
        else:
            text = f"{request.length_penalty} must be in [0, {MAX_LENGTH_PENALTY}]"
            violations.add("length_penalty", text, value=request.length_penalty, min=0, max=MAX_LENGTH_PENALTY)
    violations.raise_any()
    settings = Settings(
        source_language=request.source_language,
        target_language=request.target_language,
        model=request.model,
        options=options,
        priority=_PRIORITIES[request.priority],
        include_token_ids=False,
        include_alignment=request.include_alignment,
    )
    return pairs, settings


def read_config(config: pb.StreamConfig, limits: Limits, defaults: DecodeOptions) -> Settings:
    """Settings of a stream. Raises as read_request does."""
    violations = Violations()
    settings = _read_settings(config, "config.", limits, defaults, violations)
    violations.raise_any()
    return settings


def read_text(text: pb.StreamText, limits: Limits) -> str:
    """One text of a stream.

    Raises:
        InvalidRequest: its id or its text is out of its documented range.
    """
    if not 1 <= len(text.id) <= MAX_NAME_CHARACTERS:
        wrong = f"length ({len(text.id)}) must be in [1, {MAX_NAME_CHARACTERS}]"
        raise InvalidRequest("text.id", wrong, value=len(text.id), min=1, max=MAX_NAME_CHARACTERS)
    if len(text.text) > limits.max_text_characters:
        limit = limits.max_text_characters
        raise InvalidRequest("text.text", _too_long(len(text.text), limit), value=len(text.text), max=limit)
    return text.text


def _check_texts(texts: Sequence[str], limits: Limits, violations: Violations) -> None:
    if not texts:
        violations.add("texts", "at least one text is needed")
    violations.limit("texts", "number of texts", len(texts), limits.max_texts, "; send several requests")
    if len(texts) > limits.max_texts:
        return
    most = limits.max_text_characters
    for index, text in enumerate(texts):
        if len(text) > most:
            violations.limit(f"texts[{index}]", "number of characters", len(text), most, "; divide the text")
    total = sum(map(len, texts))
    violations.limit("texts", "characters together", total, limits.max_request_characters, "; send several requests")


def _check_pairs(pairs: Sequence[tuple[str, str]], limits: Limits, violations: Violations) -> None:
    if not pairs:
        violations.add("pairs", "at least one pair is needed")
    violations.limit("pairs", "number of pairs", len(pairs), limits.max_texts, "; send several requests")
    if len(pairs) > limits.max_texts:
        return
    most = limits.max_text_characters
    for index, (source, target) in enumerate(pairs):
        violations.limit(f"pairs[{index}].source", "number of characters", len(source), most, "; divide the text")
        violations.limit(f"pairs[{index}].target", "number of characters", len(target), most, "; divide the text")
    total = sum(len(source) + len(target) for source, target in pairs)
    violations.limit("pairs", "characters together", total, limits.max_request_characters, "; send several requests")


def _check_names(
    message: pb.TranslateRequest | pb.StreamConfig | pb.ScoreRequest, prefix: str, violations: Violations
) -> None:
    for field in ("source_language", "target_language"):
        _check_language(prefix + field, getattr(message, field), bool(message.model), violations)
    violations.limit(f"{prefix}model", "length", len(message.model), MAX_NAME_CHARACTERS)
    if message.request_id and not is_request_id(message.request_id):
        wrong = f"must be 1 to {MAX_REQUEST_ID_CHARACTERS} printable ASCII characters"
        violations.add(f"{prefix}request_id", wrong, min=1, max=MAX_REQUEST_ID_CHARACTERS)
    if message.priority not in _PRIORITIES:
        violations.add(f"{prefix}priority", f"unknown value {int(message.priority)}", value=int(message.priority))


def _read_settings(
    message: pb.TranslateRequest | pb.StreamConfig,
    prefix: str,
    limits: Limits,
    defaults: DecodeOptions,
    violations: Violations,
) -> Settings:
    _check_names(message, prefix, violations)
    options = _read_options(message.options, f"{prefix}options.", limits, defaults, violations)
    number = int(message.text_format)
    if number not in _FORMATS:
        violations.add(f"{prefix}text_format", f"unknown value {number}", value=number)
    text_format = _FORMATS.get(message.text_format, TextFormat.PLAIN)
    try:
        check_format(text_format, options, message.include_alignment)
    except InvalidRequest as error:
        violations.add(prefix + error.field, error.description, **error.numbers)
    return Settings(
        source_language=message.source_language,
        target_language=message.target_language,
        model=message.model,
        options=options,
        priority=_PRIORITIES.get(message.priority, Priority.INTERACTIVE),
        include_token_ids=message.include_token_ids,
        include_alignment=message.include_alignment,
        text_format=text_format,
    )


def _check_language(field: str, code: str, is_optional: bool, violations: Violations) -> None:
    if not code and not is_optional:
        violations.add(field, "a language code is needed, such as 'en'")
    elif len(code) > MAX_CODE_CHARACTERS:
        violations.limit(field, "length", len(code), MAX_CODE_CHARACTERS)
    elif code and not is_language_code(code):
        violations.add(field, f"{code!r} is not a BCP-47 language code such as 'en' or 'pt-BR'")


def _read_options(
    options: pb.DecodeOptions, prefix: str, limits: Limits, defaults: DecodeOptions, violations: Violations
) -> DecodeOptions:
    """The options, with the defaults filled in."""
    given = tuple((field.name, value) for field, value in options.ListFields())
    if not given:
        return defaults
    try:
        return _completed(given, limits, defaults)
    except InvalidFields as error:
        found = error.violations
    except InvalidRequest as error:
        found = [error]
    for violation in found:
        violations.add((prefix + violation.field).removesuffix("."), violation.description, **violation.numbers)
    return defaults


@lru_cache(maxsize=256)  # most calls have the options of one before
def _completed(given: tuple[tuple[str, float], ...], limits: Limits, defaults: DecodeOptions) -> DecodeOptions:
    """``defaults`` with the fields that a message has; raises as read_request does, fields named as in DecodeOptions,
    and "" for what was given and does not go with what was not."""
    violations, values = Violations(), dict(given)
    num_beams = values.get("num_beams", defaults.num_beams)
    ranges = {
        "num_beams": (1, limits.max_beams),
        "length_penalty": (0, MAX_LENGTH_PENALTY),
        "num_alternatives": (1, min(limits.max_alternatives, max(num_beams, 1))),
        "max_length": (0, math.inf),  # the model's own limit is the engine's to know
        "no_repeat_ngram_size": (0, MAX_NGRAM),
        "repetition_penalty": (1, 10),
        "min_length": (0, max(values.get("max_length", defaults.max_length), 0) or math.inf),
    }
    for name, value in given:
        least, most = ranges[name]
        if least <= value <= most:  # NaN is not
            continue
        reason = f" (num_beams is {num_beams})" if name == "num_alternatives" and most == num_beams else ""
        if most == math.inf:
            violations.add(name, f"{value} must be >= {least}", value=value, min=least)
        else:
            violations.add(name, f"{value} must be in [{least}, {most}]{reason}", value=value, min=least, max=most)
    violations.raise_any()
    try:
        return replace(defaults, **values)  # type: ignore[arg-type]  # whole numbers where the message has them
    except ValueError as error:
        raise InvalidRequest("", str(error)) from None


def _too_long(length: int, limit: int) -> str:
    return f"number of characters ({length}) must be <= {limit}; divide the text"
