"""A container's CPU quota counts, not the machine's number of CPUs."""

import os
import platform
import sys
import threading
from pathlib import Path

import pytest

from service.runtime import cpus


@pytest.mark.parametrize(("content", "expected"), [("max 100000", None), ("150000 100000", 1.5), ("nonsense", None)])
def test_the_quota_of_the_control_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, expected: float | None
) -> None:
    (tmp_path / "cpu.max").write_text(content)
    monkeypatch.setattr(cpus, "CGROUP_V2", tmp_path)
    assert cpus.cgroup_cpus() == expected


@pytest.mark.parametrize(
    ("of_self", "quotas", "expected"),
    [
        ("0::/system.slice/dragoman.service\n", {"system.slice/dragoman.service": "100000 100000"}, 1.0),
        ("0::/system.slice/dragoman.service\n", {"system.slice": "200000 100000", "": "max 100000"}, 2.0),
        ("0::/a/b\n", {"a/b": "300000 100000", "a": "150000 100000"}, 1.5),
        ("0::/\n", {"": "50000 100000"}, 0.5),
        ("0::/seen/from/outside\n", {"": "50000 100000"}, 0.5),
        ("0::/../other\n", {"": "50000 100000"}, 0.5),
        (None, {"": "50000 100000"}, 0.5),
        ("0::/a\n", {"a": "max 100000"}, None),
    ],
)
def test_the_least_quota_of_the_groups_around_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_self: str | None, quotas: dict[str, str], expected: float | None
) -> None:
    """Those of a systemd unit (CPUQuota=) lie below the root, which has none."""
    if of_self is not None:
        (tmp_path / "self").write_text("1:name=systemd:/else\n" + of_self)
    for group, quota in quotas.items():
        (tmp_path / "root" / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / group / "cpu.max").write_text(quota)
    monkeypatch.setattr(cpus, "CGROUP_OF_SELF", tmp_path / "self")
    monkeypatch.setattr(cpus, "CGROUP_V2", tmp_path / "root")
    assert cpus.cgroup_cpus() == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1\n", None), ("50000\n", 0.5), (None, None)])
def test_the_quota_of_an_older_control_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str | None, expected: float | None
) -> None:
    files = tmp_path / "quota", tmp_path / "period"
    if quota is not None:
        files[0].write_text(quota)
        files[1].write_text("100000\n")
    monkeypatch.setattr(cpus, "CGROUP_V2", tmp_path)
    monkeypatch.setattr(cpus, "CGROUP_V1", files)
    assert cpus.cgroup_cpus() == expected


@pytest.mark.parametrize(("quota", "expected"), [(None, 8), (1.5, 2), (0.25, 1), (64.0, 8)])
def test_usable_cpus(monkeypatch: pytest.MonkeyPatch, quota: float | None, expected: int) -> None:
    monkeypatch.setattr(cpus, "cgroup_cpus", lambda: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert cpus.usable_cpus() == expected


@pytest.mark.parametrize(
    ("machine", "content", "expected"),
    [
        ("x86_64", "processor : 0\nflags\t: fpu avx2 avx512_vnni\nbugs:\n", False),
        ("x86_64", "processor : 0\nflags\t: fpu avx2\nbugs: avx512_vnni\n", True),
        ("x86_64", "nothing of the kind", True),
        ("aarch64", "nothing of the kind", False),
    ],
)
def test_which_cpus_saturate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, content: str, expected: bool
) -> None:
    (tmp_path / "cpuinfo").write_text(content)
    monkeypatch.setattr(cpus, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert cpus.saturates_int8() == expected


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no priority of a single thread")
@pytest.mark.parametrize("niceness", [0, 4, 19])
def test_a_thread_that_steps_aside_leaves_the_others_where_they_were(niceness: int) -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    found = []

    def work() -> None:
        cpus.step_aside(niceness)
        me = threading.get_native_id()
        found.append((os.getpriority(os.PRIO_PROCESS, me), os.sched_getscheduler(me)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(min(before + niceness, 19), os.SCHED_BATCH if niceness else os.SCHED_OTHER)]
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
