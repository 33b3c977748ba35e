"""Which sessions a bundle gets: one set for all workers, and a second one with more threads where that pays."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service.runtime import session
from service.runtime.bundle import Graphs
from service.runtime.session import SMALL_BYTES, SMALL_THREADS, WIDE_BEAMS, Sessions

BEAMS = (1, 2, WIDE_BEAMS, 8)


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """Of each graph that was loaded."""
    found: dict[str, list[int]] = {}
    monkeypatch.setattr(
        session, "EncoderSession", lambda path, shape, *threads: found.update({path.name: list(threads)})
    )

    def load_decoder(path: Path, shape: object, beams: int, num_threads: int) -> object:
        found.setdefault(path.name, []).append(num_threads)
        return SimpleNamespace(num_beams=beams)

    monkeypatch.setattr(session, "DecoderSession", load_decoder)
    return found


def sessions(folder: Path, num_bytes: int, num_threads: int, num_wide_threads: int) -> Sessions:
    with (folder / "weights.bin").open("wb") as file:
        file.truncate(num_bytes)
    graphs = Graphs("encoder", {beams: str(beams) for beams in reversed(BEAMS)}, "score", "weights.bin")
    manifest = SimpleNamespace(shape=None)
    bundle: Any = SimpleNamespace(graphs=lambda _: graphs, manifest=manifest, path=lambda name: folder / name)
    return Sessions(bundle, "cpu-int8", num_threads, num_wide_threads)


@pytest.mark.parametrize(("num_bytes", "wide"), [(SMALL_BYTES, 4), (SMALL_BYTES - 1, SMALL_THREADS)])
def test_a_worker_that_is_alone_has_wide_sessions_up_to_a_width(
    tmp_path: Path, threads: dict[str, list[int]], num_bytes: int, wide: int
) -> None:
    found = sessions(tmp_path, num_bytes, num_threads=1, num_wide_threads=4)
    assert threads == {"encoder": [1, wide], "1": [1, wide], "2": [1, wide], str(WIDE_BEAMS): [1, wide], "8": [1]}
    assert list(found.wide_decoders) == [1, 2, WIDE_BEAMS]


@pytest.mark.parametrize(
    ("num_bytes", "num_threads", "num_wide_threads"),
    [(SMALL_BYTES, 1, 0), (SMALL_BYTES, 1, 1), (SMALL_BYTES, 4, 4), (SMALL_BYTES, 4, 2), (SMALL_BYTES - 1, 2, 4)],
)
def test_where_it_gains_nothing_there_is_one_set(
    tmp_path: Path, threads: dict[str, list[int]], num_bytes: int, num_threads: int, num_wide_threads: int
) -> None:
    found = sessions(tmp_path, num_bytes, num_threads, num_wide_threads)
    assert threads == {"encoder": [num_threads, 0], **{str(beams): [num_threads] for beams in BEAMS}}
    assert found.wide_decoders == {}


@pytest.mark.usefixtures("threads")
def test_a_sentence_goes_to_the_narrowest_decoder_that_takes_it(tmp_path: Path) -> None:
    found = sessions(tmp_path, 1, num_threads=1, num_wide_threads=0)
    assert [found.decoder_for(beams).num_beams for beams in (1, 2, 3, 4, 5, 8)] == [1, 2, 4, 4, 8, 8]
    with pytest.raises(RuntimeError, match="no decoder graph for 9 beams"):
        found.decoder_for(9)
