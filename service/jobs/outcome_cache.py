"""Outcomes of texts translated before, so that a repeated text is translated once.

Knows: memory bounds. Does not know: engines. Of a bounded number of bytes, the least recently used text leaves first: a
text is translated again only where its repetition is farther away than the cache reaches.
"""

import sys
from collections import OrderedDict
from typing import Final

from service.jobs.rows import Outcome

CACHE_BYTES: Final = 64 * 1024 * 1024
# An entry's own objects: tracemalloc counts 227 on 100,000 entries; the rest is for what malloc cannot use.
ENTRY_BYTES: Final = 500


class OutcomeCache:
    """Text -> outcome. Not safe to use from several threads at once."""

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._max_bytes, self._num_bytes = max_bytes, 0
        self._found: OrderedDict[str, Outcome] = OrderedDict()

    def get(self, text: str) -> Outcome | None:
        outcome = self._found.get(text)
        if outcome is not None:
            self._found.move_to_end(text)
        return outcome

    def put(self, text: str, outcome: Outcome) -> None:
        """Keeps ``outcome``; a text that is there already keeps its place and its outcome."""
        if text in self._found:
            return
        self._found[text] = outcome
        self._num_bytes += _size(text, outcome)
        while self._num_bytes > self._max_bytes:
            self._num_bytes -= _size(*self._found.popitem(last=False))


def _size(text: str, outcome: Outcome) -> int:
    alternatives = sum(sys.getsizeof(item) for item, _ in outcome.alternatives)
    return ENTRY_BYTES + sys.getsizeof(text) + sys.getsizeof(outcome.text or "") + alternatives
