"""How many CPUs this process may use. Knows Linux's ways of limiting them; knows nothing of what they are used for."""

import os
from pathlib import Path

CGROUP_V2 = Path("/sys/fs/cgroup/cpu.max")
CGROUP_V1 = (Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us"))


def cgroup_cpus() -> float | None:
    """The CPU quota of the container, in CPUs, or None where there is none."""
    try:
        if CGROUP_V2.exists():
            quota, period = CGROUP_V2.read_text().split()
        else:
            quota, period = (path.read_text().strip() for path in CGROUP_V1)
        if quota in ("max", "-1"):
            return None
        return float(quota) / float(period)
    except (OSError, ValueError):
        return None


def usable_cpus() -> int:
    """CPUs in the process's affinity mask, no more than its container's quota (rounded up); at least 1."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:
        allowed = os.cpu_count() or 1
    quota = cgroup_cpus()
    return max(1, allowed if quota is None else min(allowed, -int(-quota // 1)))
