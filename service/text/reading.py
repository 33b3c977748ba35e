"""What a model is given to read of a sentence, and what is written of its translation.

Knows: characters. Does not know: tokens, models; a bundle says what its model needs.

A model knows what its text had. Most vocabularies have few pieces in capitals, so that THE DOOR IS OPEN is read letter
by letter, and none with the quotes and apostrophes of word processors, which are read byte by byte. Every character
keeps its place: what is said of places in one form is true of the other.
"""

from service.text.capitals import is_in_capitals, lowered, raised

PLAIN_QUOTES = str.maketrans(
    dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc", "'") | dict.fromkeys("\u201c\u201d\u201e\u201f", '"')
)


class Reading:
    """How the sentences of a request are read and what is written for them.

    Args:
        lowers_capitals: sentences in capitals are read in lower case, and what is written for them is in capitals.
        plain_quotes: typographic quotes and apostrophes are read as ' and ".
        source_language, target_language: BCP-47 codes.
    """

    def __init__(
        self,
        lowers_capitals: bool = False,
        plain_quotes: bool = False,
        source_language: str = "",
        target_language: str = "",
    ) -> None:
        self.lowers_capitals, self.plain_quotes = lowers_capitals, plain_quotes
        self.source_language, self.target_language = (
            code.replace("_", "-").split("-")[0].lower() for code in (source_language, target_language)
        )

    def read(self, source: str) -> str:
        """What the model is given for a sentence; as long as it."""
        return lowered(self.plain(source), self.source_language) if self.lowers(source) else self.plain(source)

    def read_target(self, source: str, target: str) -> str:
        """What the model is given for a translation of ``source`` that is there already; as long as it."""
        is_lowered = self.lowers(source) and target.isupper()
        return lowered(self.plain(target), self.target_language) if is_lowered else self.plain(target)

    def written(self, source: str, translation: str) -> str:
        """What is answered where the model has made ``translation`` of a sentence; as long as it."""
        return raised(translation, self.target_language) if self.lowers(source) else translation

    def plain(self, text: str) -> str:
        return text.translate(PLAIN_QUOTES) if self.plain_quotes and not text.isascii() else text

    def lowers(self, source: str) -> bool:
        return self.lowers_capitals and is_in_capitals(source)
