"""
Which CPUs this process may use.

The machine's count is not the answer: a process may be confined to some CPUs by its affinity, and a
container's quota may grant it less time than its CPUs have.
"""

import os
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Final

CGROUP_ROOT: Final = Path("/sys/fs/cgroup")
CGROUP_OF_PROCESS: Final = Path("/proc/self/cgroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class UsableCpus:
    """The numbers of the CPUs in the affinity mask, and the quota in CPUs, None if there is none."""

    numbers: tuple[int, ...]
    quota: float | None

    @property
    def count(self) -> int:
        """How many processes can be busy all the time; at least 1."""
        allowed = len(self.numbers)
        return max(1, allowed if self.quota is None else min(allowed, ceil(self.quota)))

    def cpu_of(self, slot: int) -> int:
        """
        Return the CPU to pin the worker of ``slot`` to, -1 for none.

        Under a quota nobody is pinned: all containers of a machine see the same CPUs, and each would choose
        the first ones.
        """
        if not self.numbers or self.count < len(self.numbers):
            return -1
        return self.numbers[slot % len(self.numbers)]


def usable_cpus() -> UsableCpus:
    """Ask the kernel."""
    return UsableCpus(numbers=_affinity(), quota=cpu_quota(CGROUP_ROOT, CGROUP_OF_PROCESS))


def cpu_quota(root: Path, membership: Path) -> float | None:
    """
    Return the smallest quota of the process's control group (version 2) and those above it, in CPUs.

    Args:
        root: Where the hierarchy is mounted.
        membership: ``/proc/self/cgroup``, of which the line ``0::/path`` counts.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    path = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "/")
    group = root / path.lstrip("/")
    quotas = [_quota_of(each) for each in (group, *group.parents) if each.is_relative_to(root)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _affinity() -> tuple[int, ...]:
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def _quota_of(group: Path) -> float | None:
    """Read ``cpu.max``: "max 100000" or "150000 100000", quota and period in microseconds."""
    try:
        quota, period = (group / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
