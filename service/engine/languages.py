"""Which of a model's languages a request is for, and what the model must be told of it.

Knows: the manifest's languages and their tokens. Does not know: which codes stand for others (transport/languages.py).
"""

from collections.abc import Sequence
from typing import NamedTuple

from service.errors import InvalidRequest
from service.runtime.bundle import Language, Manifest
from service.text.reading import Reading


class LanguageChoice(NamedTuple):
    """The languages of a request, as the model knows them, and how sentences in them are read."""

    source: Language
    target: Language
    reading: Reading = Reading()

    @property
    def prefix(self) -> tuple[int, ...]:
        """Token ids before every sentence."""
        return (*self.target.prefix, *self.source.prefix)


def choice_of(languages: Sequence[Language], only: str, wanted: str, field: str) -> Language:
    """The one of ``languages`` whose code is ``wanted``, or a language of no tokens where there is nothing to choose.

    Raises:
        InvalidRequest: there are several, and ``wanted`` is none of them.
    """
    if not languages:
        return Language(only)
    for language in languages:
        if language.code.lower() == wanted.lower():
            return language
    codes = ", ".join(language.code for language in languages)
    raise InvalidRequest(field, f"{wanted!r} is none of this model's languages: {codes}")


def choose_languages(manifest: Manifest, source: str, target: str) -> LanguageChoice:
    """The model's languages of these codes.

    Raises:
        InvalidRequest: it has several on a side, and the code is none of them.
    """
    first = choice_of(manifest.source_languages, manifest.source_language, source, "source_language")
    second = choice_of(manifest.target_languages, manifest.target_language, target, "target_language")
    return LanguageChoice(first, second, reading_of(manifest, first, second))


def reading_of(manifest: Manifest, source: Language, target: Language) -> Reading:
    decoding = manifest.decoding
    return Reading(decoding.lowers_capitals, decoding.plain_quotes, source.code, target.code)
