"""How long engines have been at one step. Knows: clocks. Does not know: engines, or what follows when one is stuck."""

from collections.abc import Hashable, Mapping


class Watchdog:
    """Measures stillness in the time that it was awake itself.

    A process that was stopped, or a machine that slept, finds its clock far ahead; that is no stuck step. So the time
    between two looks counts as no more than twice the interval at which look() is meant to be called.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._looked_at: float | None = None
        # Worker -> when it began what it does, and for how long it was seen at it.
        self._seen: dict[Hashable, tuple[float, float]] = {}

    def look(self, turns: Mapping[Hashable, float | None], now: float) -> float:
        """Seconds for which some worker has been at the same step.

        Args:
            turns: when each worker began what it does now; None: it waits for work.
            now: monotonic seconds.
        """
        gap_s = 0.0 if self._looked_at is None else min(now - self._looked_at, 2 * self._interval_s)
        self._looked_at = now
        seen = {}
        for worker, began_at in turns.items():
            if began_at is not None:
                before_at, still_s = self._seen.get(worker, (None, 0.0))
                seen[worker] = (began_at, still_s + gap_s if began_at == before_at else 0.0)
        self._seen = seen
        return max((still_s for _, still_s in seen.values()), default=0.0)
