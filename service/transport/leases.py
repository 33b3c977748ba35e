"""Who still uses which translator: a model that was replaced ends when its last call has.

Knows: calls that begin and end. Does not know: why a model goes. Used on the event loop only.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass

from service.engine.translator import Translator


class Leases:
    """Counts the calls of each translator."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._freed = asyncio.Event()

    def hold(self, translator: Translator) -> "Lease":
        """``with``: keeps a translator from being ended. To be taken in the same step in which it was chosen."""
        return Lease(self, id(translator))

    def count(self, key: int, change: int) -> None:
        """One call more or less uses the translator of this id."""
        self._counts[key] += change
        if not self._counts[key]:
            del self._counts[key]
            self._freed.set()

    async def wait_free(self, translator: Translator) -> None:
        """Returns when no call uses it any more; it must not be chosen for new ones."""
        while self._counts[id(translator)]:
            self._freed.clear()
            await self._freed.wait()


@dataclass(frozen=True, slots=True)
class Lease:
    """One call's use of a translator."""

    leases: Leases
    key: int

    def __enter__(self) -> None:
        self.leases.count(self.key, 1)

    def __exit__(self, *_: object) -> None:
        self.leases.count(self.key, -1)
