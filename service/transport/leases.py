"""Who still uses which translator: a model that was replaced ends when its last call has.

Knows: calls that begin and end. Does not know: why a model goes. Used on the event loop only.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from service.engine.translator import Translator


class Leases:
    """Counts the calls of each translator."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._changed = asyncio.Event()

    @contextmanager
    def hold(self, translator: Translator) -> Iterator[Translator]:
        """Keeps a translator from being ended. It must be taken in the same step in which it was chosen."""
        key = id(translator)
        self._counts[key] += 1
        try:
            yield translator
        finally:
            self._counts[key] -= 1
            if not self._counts[key]:
                del self._counts[key]
                changed, self._changed = self._changed, asyncio.Event()
                changed.set()

    async def wait_free(self, translator: Translator) -> None:
        """Returns when no call uses it any more; it must not be chosen for new ones."""
        while self._counts[id(translator)]:
            await self._changed.wait()
