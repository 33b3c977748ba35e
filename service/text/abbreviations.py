"""Full stops that end no sentence, of those that the library of sentence ends takes for ends.

Knows: titles, ordinal numbers, abbreviations, quotations that its rules leave out. Does not know: the library's rules.

Only what is common and hardly ever ends a sentence stands here. Of 60,000 French lines of Europarl 1,491 were divided
after "M.", of 29,526 German ones 102 after an ordinal number; nothing else came near. Where this is wrong, two
sentences stay one, which a model minds less than half a sentence.
"""

import re
from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Before a name or a number.
TITLES: Final = {
    "ar": _words("د"),
    "bn": _words("ড ডা"),
    "ca": _words("pàg Pàg núm Núm"),
    "da": _words("frk Frk Jf"),
    "fr": _words("M Mgr Mlle Mme Dr Pr"),
    "hi": _words("डॉ प्रो"),
    "id": _words("Bpk Jl Ny Tn"),
    "nl": _words("mevr Mevr"),
    "pl": _words("Dr"),
    "ro": _words("Dl dl Dna dna Str str"),
    "th": _words("ดร"),
    "vi": _words("GS PGS ThS TP Tp TS"),
}
# Languages that write ordinal numbers with a full stop ("3. mai", "19. století").
ORDINAL_LANGUAGES: Final = _words(
    "az bs cs da de dsb et eu fi fo gsw hr hsb hu is lb lv mk nb nn no pl se sh sk sl sr tr"
)
# They begin a sentence, and no German ordinal number stands before them, as it does before nouns.
NO_NOUNS: Final = _words(
    "Aber Alle Alles Als Also Am An Auch Auf Aus Außerdem Bei Bis Bitte Da Dabei Dadurch Dafür Daher Damit Danach "
    "Dann Daran Darauf Daraus Darin Darum Darüber Das Dass Davon Dazu Daß Dein Deine Dem Den Denn Der Deren Des "
    "Deshalb Die Dies Diese Diesem Diesen Dieser Dieses Doch Dort Du Durch Ein Eine Einem Einen Einer Er Es Etwa "
    "Für Gegen Habe Haben Hat Hier Hinter Ich Ihr Ihre Im In Insgesamt Ist Ja Jede Jeder Jedoch Jetzt Kann Kein "
    "Keine Können Man Manche Mein Meine Mit Nach Nein Nicht Noch Nun Nur Ob Obwohl Oder Ohne Schließlich Sehr "
    "Sein Seine Seit Sie Sind So Sobald Solche Somit Sondern Sonst Soll Sollte Trotz Trotzdem Um Und Uns Unser "
    "Unsere Unter Viele Vom Von Vor Wann War Waren Warum Was Weil Welche Wenn Wer Wie Wieder Wir Wird Wo Zu Zudem "
    "Zum Zur Zwar Zwischen Über"
)
# Not \w: vowel signs are no such characters.
WORD: Final = re.compile(r"(?:\A|[\s(«“„\"'’\[])([^\s.()«“„\"'’\[\]]+)\.\s*\Z")
NUMBER: Final = re.compile(r"(?<![\w.,:-])(?:\d{1,3}|[IVX]+)\.\s*\Z")
# A letter by itself ("g.", "s."), or several parts ("J.-C.", "d.w.z.", "F.eks."); accents and Thai vowels are no \w.
PARTS: Final = re.compile(r"(?<![\w.\u0300-\u036f\u0e30-\u0e4e-])[^\W\d_](?:\.-?[^\W\d_]{1,4}(?:-[^\W\d_])?)*\.\s*\Z")
INITIALS: Final = re.compile(r"(?<![\w.-])(?!J\.-C)[^\W\d_]\.-[^\W\d_]\.\s*\Z")
# What somebody said, and that it was said: 「はい。」と言った。
QUOTED: Final = re.compile(r"[」』]\Z")
PARTICLE: Final = re.compile(r"と|って|など|の|を|に|が|は")
NEXT_WORD: Final = re.compile(r"\w+")
# The longest word and the spaces that are looked at.
REACH_CHARACTERS: Final = 32


def goes_on(line: str, end: int, language: str) -> bool:
    """Whether the sentence that the library ends at ``line[:end]``, the space behind it included, goes on."""
    before = line[max(0, end - REACH_CHARACTERS) : end]
    if language == "ja" and QUOTED.search(before) and PARTICLE.match(line, end):
        return True
    following = NEXT_WORD.match(line, end, end + REACH_CHARACTERS)
    if following is None or "." not in before:
        return False
    word, title = following[0], WORD.search(before)
    if title and title[1] in TITLES.get(language, ()):
        return True
    if word[0].islower() or language == "th":  # Thai ends no sentence with a full stop
        return bool(PARTS.search(before) or (language in ORDINAL_LANGUAGES and NUMBER.search(before)))
    is_noun = language == "de" and word[0].isupper() and word not in NO_NOUNS
    return bool((is_noun and NUMBER.search(before)) or INITIALS.search(before))
