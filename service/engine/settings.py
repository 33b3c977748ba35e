"""How an engine runs: where, in which arithmetic, with how many threads and within which bounds.

Knows: ranges and defaults. Does not know: what the machine or the bundle offers; the runtime checks that at load.
"""

from dataclasses import dataclass

DEVICES = ("cpu", "cuda", "auto")
PRECISIONS = ("auto", "fp32", "int8", "fp16")


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Settings of one engine; all limits are inclusive.

    Raises:
        ValueError: a value is out of its range; the message names the field and the value.
    """

    device: str = "cpu"
    """Where the model runs: one of DEVICES. cuda without a usable GPU is an error, never replaced in silence; auto
    takes a GPU where one can be used and the bundle has graphs for it, and the log says what it took."""
    precision: str = "auto"
    """Arithmetic: one of PRECISIONS; auto takes the fastest that the bundle has for the device."""
    num_workers: int = 0
    """Engine threads, each with its own sessions. 0 to 256; 0: as the CPUs this process may use suggest."""
    threads_per_worker: int = 0
    """ONNX Runtime's threads inside a step. 0 to 256; 0: the CPUs of this process divided by the workers, and where
    num_workers is 0 too, all of them for a worker that is alone."""
    max_rows: int = 128
    """Rows (beams counted) of one worker's running batch. 1 to 65536."""
    max_queue_sentences: int = 4096
    """Sentences that may wait for a row; more are refused with Overloaded, but for one text alone. At least 1."""
    max_queue_tokens: int = 262_144
    """Source tokens that may wait for a row; the same. At least 1."""
    max_delay_s: float = 0.0
    """Seconds until an answer, as the present load lets expect; interactive sentences that would take longer are
    refused with Overloaded. 0 to 86400; 0: never."""
    device_memory_share: float = 0.9
    """How much of a GPU's free memory may be used, 0.01 to 1. Rows that do not fit are not there."""
    record_steps: bool = True
    """Whether a GPU's steps are recorded as CUDA graphs and replayed, or started operator by operator: slower."""
    niceness: int = 0
    """How much its threads stand back behind other threads, as ``nice`` counts. 0 to 19; Linux only."""
    default_max_length: int = 0
    """Target tokens of a sentence whose options leave max_length at 0. 0: the model's own limit."""

    stop_repetition: bool = True
    """Whether a translation that begins to repeat itself ends there, flagged."""

    def __post_init__(self) -> None:
        _require_one_of("device", self.device, DEVICES)
        _require_one_of("precision", self.precision, PRECISIONS)
        _require_range("num_workers", self.num_workers, 0, 256)
        if self.device == "cuda" and self.num_workers > 1:
            raise ValueError(f"num_workers ({self.num_workers}) must be 0 or 1 on a GPU, whose steps are one thread's")
        _require_range("threads_per_worker", self.threads_per_worker, 0, 256)
        _require_range("max_rows", self.max_rows, 1, 65_536)
        _require_range("max_queue_sentences", self.max_queue_sentences, 1, 2**31 - 1)
        _require_range("max_queue_tokens", self.max_queue_tokens, 1, 2**31 - 1)
        _require_range("max_delay_s", self.max_delay_s, 0, 86_400)
        _require_range("device_memory_share", self.device_memory_share, 0.01, 1)
        _require_range("niceness", self.niceness, 0, 19)
        _require_range("default_max_length", self.default_max_length, 0, 65_536)


def _require_one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} ({value!r}) must be one of {', '.join(known)}")


def _require_range(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name} ({value}) must be in [{least}, {most}]")
