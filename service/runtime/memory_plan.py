"""How many rows fit into a device's memory. Knows: arithmetic. Does not know: devices.

All memory is taken before the first request: caches of a fixed size, and, by running the largest shapes once, whatever
ONNX Runtime needs for them. Sentences for which there is no row wait in the queue, as on the CPU.
"""

from dataclasses import dataclass

from service.errors import ConfigurationError
from service.runtime.bundle import Shape

# Logits, log-probabilities and what TopK needs for its work: float32 numbers as wide as the vocabulary, of each row; in
# each of the three decoders' sessions, which do not share what they have set aside.
VOCABULARY_ARRAYS = 9
# States of a row between two products, in numbers as wide as the model; the feed-forward layer's are the widest.
STATE_ARRAYS = 128
# An encoder run, cuBLAS and recorded graphs: measured nowhere yet, so chosen large.
FIXED_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What is taken of a device's memory."""

    max_rows: int
    """Rows, and sentences, of the running batch."""
    cache_bytes: int
    """Keys and values."""
    workspace_bytes: int
    """Estimate of everything else but the weights."""

    @property
    def planned_bytes(self) -> int:
        return self.cache_bytes + self.workspace_bytes


def plan_memory(
    free: int,
    shape: Shape,
    bytes_per_number: int,
    max_rows: int,
    max_source_tokens: int,
    max_target_tokens: int,
    least_rows: int,
    fixed_bytes: int = FIXED_BYTES,
) -> MemoryPlan:
    """As many rows as fit, but no more than ``max_rows``.

    Args:
        free: bytes that may be used, weights already loaded.

    Raises:
        ConfigurationError: not even ``least_rows`` fit.
    """
    positions = max_source_tokens + max_target_tokens  # a row may be the only one of its sentence
    cache = positions * 2 * shape.num_decoder_layers * shape.model_width * bytes_per_number
    workspace = VOCABULARY_ARRAYS * shape.vocab_size * 4 + STATE_ARRAYS * shape.model_width * bytes_per_number
    rows = min(max_rows, max(0, free - fixed_bytes) // (cache + workspace))
    if rows < least_rows:
        needed = fixed_bytes + least_rows * (cache + workspace)
        raise ConfigurationError(
            f"the device has {free} bytes free for this model; {least_rows} rows of {positions} positions need {needed}"
        )
    return MemoryPlan(rows, rows * cache, fixed_bytes + rows * workspace)


def buckets(max_rows: int) -> tuple[int, ...]:
    """Numbers of rows that steps are padded to: powers of two, and ``max_rows``. buckets(6) is (1, 2, 4, 6)."""
    powers = [1 << i for i in range(max_rows.bit_length()) if 1 << i < max_rows]
    return (*powers, max_rows)


def bucket_of(num_rows: int, sizes: tuple[int, ...]) -> int:
    """The smallest of ``sizes`` that holds ``num_rows``."""
    for size in sizes:
        if size >= num_rows:
            return size
    raise RuntimeError(f"{num_rows} rows were asked of buckets of at most {sizes[-1]}. This is a bug.")
