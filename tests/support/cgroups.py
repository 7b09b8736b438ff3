"""Control groups of their own for systems that are booted side by side (root only)."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from support.waiting import wait_until

__all__ = ["inside", "own_cgroups"]

REMOVAL_TIMEOUT_S = 10.0
"""The kernel lets go of a group a moment after the last process in it has ended."""

# sh, so that the process that is started is the one that moved.
_ENTER = 'while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs" || exit 1; shift; done; shift; exec "$@"'


def inside(groups: Sequence[Path], command: Sequence[str]) -> list[str]:
    """Return ``command`` as it must be called to run in these groups."""
    return ["sh", "-c", _ENTER, "sh", *map(str, groups), "--", *command]


@contextlib.contextmanager
def own_cgroups(name: str) -> Iterator[list[Path]]:
    """
    Make a group below this process's in each hierarchy that an init manages; they are removed after the block.

    systemd-nspawn calls the group of what it boots ``payload``, below its own. Two that were started from one group
    would have one for both, and each init would remove the units' groups of the other.
    """
    groups = [parent / name for parent in _managed()]
    try:
        for group in groups:
            group.mkdir()
        yield groups
    finally:
        for group in filter(Path.is_dir, groups):
            wait_until(partial(_removed, group), timeout_s=REMOVAL_TIMEOUT_S, what=f"end of {group}")


def _managed() -> list[Path]:
    """Directories of this process's groups: of the unified hierarchy, and of that named systemd where there is one."""
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "name=systemd"):
            found += [mount / path.lstrip("/") for mount in _mounts(controllers)]
    return found


def _mounts(controllers: str) -> Iterator[Path]:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if (kind == "cgroup2") if controllers == "" else (kind == "cgroup" and controllers in options.split(",")):
            yield Path(place)
            return


def _removed(group: Path) -> bool:
    with contextlib.suppress(OSError):
        for directory, _, _ in os.walk(group, topdown=False):
            Path(directory).rmdir()
    return not group.exists()
