"""How many CPUs this process may use, and what they can. Knows Linux's ways of telling; not what they are used for."""

import contextlib
import os
import platform
import sys
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

CPU_INFO = Path("/proc/cpuinfo")
# Instructions that multiply unsigned by signed 8-bit numbers and add into 32 bits, without 16 bits between.
DOT_PRODUCTS = {"avx512_vnni", "avx_vnni", "amx_int8"}
CGROUP_V2, CGROUP_OF_SELF = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
CGROUP_V1 = (Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us"))


def cgroup_cpus() -> float | None:
    """The least CPU quota of a container or systemd unit that this process is in, in CPUs, or None where there is none.

    A container sees its own group as the root, a unit is some levels below it: groups around it have quotas, too.
    """
    try:
        limits = [file.read_text().split() for group in own_groups() if (file := group / "cpu.max").exists()]
        limits = limits or [[path.read_text().strip() for path in CGROUP_V1]]
        quotas = [float(quota) / float(period) for quota, period in limits if quota not in ("max", "-1")]
    except (OSError, ValueError):
        return None
    return min(quotas, default=None)


def own_groups() -> Iterator[Path]:
    """The folders of this process's control group (version 2) and of those around it, the root last."""
    with contextlib.suppress(OSError):
        for line in CGROUP_OF_SELF.read_text().splitlines():
            hierarchy, _, name = line.partition("::")
            if hierarchy == "0":
                group = PurePosixPath(name.lstrip("/"))
                yield from (CGROUP_V2 / below for below in (group, *group.parents) if below.name)
    yield CGROUP_V2


def usable_cpus() -> int:
    """CPUs in the process's affinity mask, no more than the quota of its container or unit (rounded up); at least 1."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:
        allowed = os.cpu_count() or 1
    quota = cgroup_cpus()
    return max(1, allowed if quota is None else min(allowed, -int(-quota // 1)))


def saturates_int8() -> bool:
    """An x86-64 CPU without VNNI: there the fast product of unsigned and signed 8-bit numbers saturates at 16 bits."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    try:
        flags = CPU_INFO.read_text().split("flags", 1)[1].split("\n", 1)[0].split()
    except (OSError, IndexError):
        return True  # unknown: rather slow than wrong
    return not DOT_PRODUCTS & set(flags)


def step_aside(niceness: int) -> None:
    """Lets this thread go after the others of its process, and not interrupt them; does nothing where only Linux could.

    Whoever computes all the time hardly feels it; whoever answers calls and waits in between gets a core at once.

    Args:
        niceness: what is added to the thread's own, at most 19 in all; 0 leaves the thread as it is.
    """
    if niceness and sys.platform == "linux":
        me = threading.get_native_id()
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, me, os.getpriority(os.PRIO_PROCESS, me) + niceness)
            os.sched_setscheduler(me, os.SCHED_BATCH, os.sched_param(0))
