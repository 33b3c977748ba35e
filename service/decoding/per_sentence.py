"""Arrays with an entry for each sentence, of sentences that come and go.

Knows: the order of sentences. Does not know: what the entries mean.

Sentences come and go one by one, while models have emptied the processor's caches: what counts is how few operations
it takes.
"""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray


class PerSentence:
    """Something with arrays (n, ...) of the same n sentences in the same order.

    Attributes:
        ARRAYS: their names.
    """

    ARRAYS: ClassVar[tuple[str, ...]]

    def append(self, *new: NDArray[Any]) -> None:
        """Adds sentences behind those already here: of each array, in the order of ARRAYS, their entries (m, ...)."""
        for name, values in zip(self.ARRAYS, new, strict=True):
            there = getattr(self, name)
            setattr(self, name, np.concatenate([there, values]) if len(there) else values)

    def keep(self, kept: NDArray[np.intp]) -> None:
        """Forgets all sentences but the ``kept`` ones (m,), ascending."""
        for name in self.ARRAYS:
            setattr(self, name, getattr(self, name).take(kept, axis=0))
