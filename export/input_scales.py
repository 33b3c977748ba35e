"""How inputs of products become 8-bit numbers, and which scale loses least.

Knows: quantization error, and what is multiplied fast (byte_products.py). Does not know: models, or what inputs are of.

The finer the scale, the less is lost by rounding, until too much is clipped. But bytes far from the zero point take
longer, so bytes reach further than what was seen, and most of what is seen is near.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from export.byte_products import column_scales, far_share

Array = NDArray[np.float32]

SMALLEST = 1e-8
# Shares of the difficulty that move from input to matrix; and how far the bytes reach, as a share of the largest input.
STRENGTHS = (0.3, 0.45, 0.6, 0.75, 0.9)
REACHES = (2.4, 2.0, 1.7, 1.5, 1.4, 1.3, 1.2, 1.1, 1.0, 0.93, 0.85, 0.78, 0.7)
MOST_FAR = 0.05  # of an input's groups


@dataclass(frozen=True, slots=True)
class InputScale:
    """How a product's input becomes unsigned 8-bit numbers: round(x / scale) + zero_point.

    Attributes:
        factors: (K,) what the graph divides the input's channels by before, and multiplies the matrix's rows by; None:
            nothing, or whatever makes the input has done it.
    """

    scale: float
    zero_point: int
    factors: Array | None = field(default=None, compare=False)

    @classmethod
    def spanning(cls, above: float, below: float) -> "InputScale":
        """For inputs from -below to above, neither negative; what lies outside is clipped."""
        scale = max((above + below) / 255, SMALLEST)
        return cls(scale, min(round(below / scale), 255))

    def rounded(self, x: Array) -> NDArray[np.int32]:
        """``x``, its channels divided already, as the product takes it."""
        return np.clip(np.rint(x / self.scale) + self.zero_point, 0, 255).astype(np.int32)

    def value(self, rounded: NDArray[np.int32]) -> Array:
        return np.asarray((rounded - self.zero_point) * np.float32(self.scale), np.float32)


def columns_quantized(weight: Array) -> Array:
    scale = column_scales(weight)
    return np.asarray(np.rint(weight / scale) * scale, np.float32)


def equalizer(largest: Array, weight: Array, strength: float) -> Array:
    """c_k = max |x_k| ** strength / max |w_k| ** (1 - strength), and 1 for channels that are always zero."""
    inputs, rows = np.maximum(largest, SMALLEST), np.maximum(np.abs(weight).max(axis=1), SMALLEST)
    factors = inputs**strength / rows ** (1 - strength)
    return np.where(largest > SMALLEST, factors, 1.0).astype(np.float32)


def choose(above: Array, below: Array, sample: Array, weight: Array) -> tuple[Array, InputScale]:
    """The c_k (K,) and the input scale with the least squared error of the product on the sample, of those with which
    few of its numbers are far (byte_products.py).

    Args:
        above, below: (K,), how far each channel of the input goes above zero and below it, neither negative.
        sample: (R, K), rows of it. weight: (K, N), all that it is multiplied by, side by side.
    """
    largest, exact = np.maximum(above, below), sample @ weight
    candidates = [np.ones_like(largest), *(equalizer(largest, weight, strength) for strength in STRENGTHS)]
    found: list[tuple[float, Array, InputScale]] = []
    for factors in candidates:
        rounded_weight = columns_quantized(weight * factors[:, None])
        ends = float((above / factors).max()), float((below / factors).max())
        for scale, rounded in few_far(sample / factors, *ends):
            product = scale.value(rounded) @ rounded_weight
            found.append((float(np.square(product - exact).mean()), factors, scale))
    _, factors, input_scale = min(found, key=lambda entry: entry[0])
    return factors, input_scale


def few_far(sample: Array, above: float, below: float) -> list[tuple[InputScale, NDArray[np.int32]]]:
    """Scales with which few of a sample's numbers (N, K) are far, and the sample rounded with each: the finest that
    clips nothing, and all that clip. Where there is no such scale, the one with the fewest."""
    found: list[tuple[InputScale, NDArray[np.int32]]] = []
    for reach in REACHES:
        scale = InputScale.spanning(reach * above, reach * below)
        rounded = scale.rounded(sample)
        if found and far_share(rounded, scale.zero_point) > MOST_FAR:
            break
        if reach >= 1:
            found.clear()
        found.append((scale, rounded))
    return found
