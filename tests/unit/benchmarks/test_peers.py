"""Unequal work and a comparison with nobody are noticed."""

from collections.abc import Sequence

import pytest

pytest.importorskip("ctranslate2", reason="compares with CTranslate2, which the extra 'peers' installs")

from benchmarks import peers
from benchmarks.systems import Output


class Counting:
    """Gives so many tokens for each text."""

    def __init__(self, num_tokens: int) -> None:
        self.num_tokens = num_tokens

    def translate(self, texts: Sequence[str], num_beams: int, max_length: int) -> Output:
        return Output(list(texts), self.num_tokens * len(texts))

    def close(self) -> None:
        pass


def test_a_forced_length_that_is_not_kept_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PAUSE_S", 0.0)
    forced = peers.Workload([["a", "b"], ["c"]], 1, 7, is_forced=True)
    assert peers.run(Counting(7), forced)[1] == 21
    with pytest.raises(RuntimeError, match="3 times 7 tokens became 18"):
        peers.run(Counting(6), forced)
    assert peers.run(Counting(6), forced._replace(is_forced=False))[1] == 18


def test_there_is_no_ratio_without_dragoman() -> None:
    times = {"ctranslate2 int8": [2.0, 3.0, 4.0]}
    assert peers.ratio_to_ours("ctranslate2 int8", times) == {}
    times["dragoman int8"] = [1.0, 1.0, 1.0]
    assert peers.ratio_to_ours("ctranslate2 int8", times) == {"ratio": 3.0, "ratio_quartiles": [2.0, 4.0]}
    assert peers.ratio_to_ours("dragoman int8", times)["ratio"] == 1.0
