"""How many replicas a day's text needs, from what one core was measured to do. Arithmetic, and nothing else.

average   characters a day / 86,400 s
peak      average x PEAK: the busiest hour beside the average one
cores     peak / (characters per CPU second of a replica x UTILIZATION)
replicas  cores rounded up, at least MIN_REPLICAS
"""

import math
from collections.abc import Sequence

SECONDS_PER_DAY = 86_400
# People write by day: the busiest hour has about three times the average.
PEAK = 3.0
# Above it the queue begins to grow (alert DragomanSaturated: 0.85); the rest is for the next minutes of growth.
UTILIZATION = 0.7
# One may go at any time.
MIN_REPLICAS = 2
LOADS: Sequence[float] = (1e6, 1e9, 1e11)


def cores_needed(characters_per_day: float, characters_per_core_s: float) -> float:
    """Cores that are busy for their allowed share in the busiest hour."""
    return characters_per_day / SECONDS_PER_DAY * PEAK / (characters_per_core_s * UTILIZATION)


def replicas_needed(characters_per_day: float, characters_per_core_s: float, cores_per_replica: int = 1) -> int:
    """Whole replicas, and never fewer than MIN_REPLICAS."""
    return max(MIN_REPLICAS, math.ceil(cores_needed(characters_per_day, characters_per_core_s) / cores_per_replica))
