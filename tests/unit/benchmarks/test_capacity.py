"""The arithmetic of the capacity plan, by hand."""

import pytest

from benchmarks.capacity import cores_needed, replicas_needed


def test_cores_by_hand():
    # 86.4 M characters a day are 1,000 a second, 3,000 at the peak; a core does 10,000 and is to be busy for 70 %.
    assert cores_needed(86.4e6, 10_000) == pytest.approx(3_000 / 7_000)


@pytest.mark.parametrize(("characters", "cores", "replicas"), [(1e6, 1, 2), (86.4e9, 1, 429), (86.4e9, 2, 215)])
def test_replicas_are_whole_and_never_one(characters: float, cores: int, replicas: int):
    assert replicas_needed(characters, 10_000, cores) == replicas
