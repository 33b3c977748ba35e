"""What the engine needs of whatever runs the model: sessions and caches on the CPU, or on a device.

Knows: names. Does not know: ONNX Runtime. session.py and kv_cache.py are the CPU's, device_*.py those of a GPU.

``is_alone``: whether the other workers have nothing to do, so that their processors may be used, too. What is computed
does not depend on it.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.runtime.bundle import Shape
from service.runtime.session import Candidates, StepInputs


class Encoder(Protocol):
    """Source token ids to keys and values, in whatever form the backend's cache takes them."""

    def run(self, source: NDArray[np.int64], lengths: NDArray[np.int64], is_alone: bool = False) -> Any:
        """source (B, S), padded with any valid id; lengths (B,)."""


class Decoder(Protocol):
    """A decoder step graph for sentences of up to ``num_beams`` beams."""

    @property
    def num_beams(self) -> int: ...


class Step(Protocol):
    """Runs steps of one decoder on one cache, on one thread."""

    bucket: int
    """Rows that the last step computed where it was padded to a fixed number; 0: there is no padding."""
    was_replayed: bool
    """Whether the last step was a recorded one."""

    def run(self, inputs: StepInputs, num_sentences: int, is_alone: bool = False) -> Candidates:
        """One step for rows 0 to R-1 of the cache. The result is overwritten by the next step.

        The step writes position ``lengths[r]`` of each row and changes no length: running it again gives the same.
        """


class Cache(Protocol):
    """Attention keys and values of all rows and sentences; kv_cache.py says what is where.

    Attributes:
        lengths: (max_rows,) positions in use; whoever runs steps counts them.
        max_bytes: the most memory that it can come to occupy.
    """

    shape: Shape
    max_rows: int
    max_target_tokens: int
    lengths: NDArray[np.int32]

    @property
    def max_bytes(self) -> int: ...

    def reset(self) -> None:
        """Nothing is in use any more."""

    def reserve_target(self, length: int, num_rows: int) -> None:
        """Makes room for ``length`` positions in every row, keeping the first ``num_rows``."""

    def reserve_source(self, length: int, num_sentences: int) -> None:
        """Makes room for ``length`` positions in every sentence, keeping the first ``num_sentences``."""

    def copy_rows(self, sources: NDArray[np.intp], targets: NDArray[np.intp]) -> None:
        """Self-attention positions of each source row into its target row; no row may be both."""

    def write_sources(
        self, sentences: NDArray[np.intp], encoded: Any, chosen: NDArray[np.intp], lengths: NDArray[np.int64]
    ) -> None:
        """Stores what the encoder made of the ``chosen`` (m,) sources, of ``lengths`` (m,), for ``sentences`` (m,)."""

    def move_sentence(self, source: int, target: int) -> None:
        """What is stored for sentence ``source`` is from now on that of ``target``."""


class Backend(Protocol):
    """One precision of a bundle, loaded."""

    device_bytes: tuple[int, int]
    """Of a GPU's memory: planned for cache and workspace; used, weights included, once it was warm. 0 on the CPU."""

    @property
    def encoder(self) -> Encoder: ...

    def decoder_for(self, num_beams: int) -> Decoder:
        """The narrowest decoder that takes sentences of ``num_beams`` beams."""

    def make_cache(self, max_rows: int, max_source_tokens: int, max_target_tokens: int) -> Cache:
        """A cache for one worker, of no more rows than asked for."""

    def bind_step(self, decoder: Any, cache: Any) -> Step:
        """Steps of a decoder of this backend on a cache of it."""

    def warm_up(self, cache: Any) -> None:
        """Runs what may be slow or take memory the first time; on the thread that will run the steps."""

    def close(self, has_failed: bool) -> None:
        """Gives memory back that is not this process's own; called once, when no worker runs any more.

        Args:
            has_failed: a worker ended with an error, which may have been the device's.
        """
