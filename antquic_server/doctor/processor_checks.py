"""Are there as many processors as workers, at full speed, and do packets reach more than one?"""

from pathlib import PurePosixPath

from antquic_server.doctor.case import MAX_WORKERS, Case, Check, Topic
from antquic_server.doctor.finding import Finding, note, ok, warning
from antquic_server.doctor.remedies import setting, tuning_file, unit
from antquic_server.doctor.routes import default_interface
from antquic_server.errors import CannotTellError

__all__ = ["CHECKS"]

SYSTEM_CPUS = "/sys/devices/system/cpu"


def cpus(case: Case) -> Finding:
    """Compare workers with affinity and quota."""
    machine = case.machine
    numbers, is_nodes = case.affinity()
    allowed, total = len(numbers), machine.cpu_count()
    quota = min((each for each in (case.cpus().quota, _first_version_quota(case)) if each is not None), default=None)
    granted = float(allowed) if quota is None else min(float(allowed), quota)
    workers = case.workers()
    limits = [f"{total} of this machine"]
    if allowed < total:
        whose = "the running node's " if is_nodes else ""
        limits = [f"{whose}affinity allows {allowed} of {total}"]
    if quota is not None:
        limits.append(f"{case.control_group_words()} grants the time of {quota:g}")
    found = f"{workers} {'worker' if workers == 1 else 'workers'} on CPUs: {', '.join(limits)}"
    fitting = max(1, int(granted))
    if workers > max(1.0, granted):
        if quota is not None and quota < allowed:
            return warning(
                found,
                setting("endpoint.workers", fitting),
                unit(f"CPUQuota={workers * 100}%"),
            )
        return warning(found, setting("endpoint.workers", fitting))
    if granted < 1:
        return warning(found, unit("CPUQuota=100%"))
    if workers < min(MAX_WORKERS, int(granted)):
        return note(found, setting("endpoint.workers", 0))
    if allowed < total:
        return note(found)
    return ok(found)


def _first_version_quota(case: Case) -> float | None:
    """Return the quota of control groups of version 1 in CPUs, None if there is none; the smallest on the way up."""
    for line in case.control_groups()[0]:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "cpu" in controllers.split(","):
            group = PurePosixPath("/", path.lstrip("/"))
            found = (_quota_of(case, each) for each in (group, *group.parents))
            return min((quota for quota in found if quota is not None), default=None)
    return None


def _quota_of(case: Case, group: PurePosixPath) -> float | None:
    for mount in ("/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"):
        directory = f"{mount}{group}".rstrip("/")
        try:
            quota = case.machine.number(f"{directory}/cpu.cfs_quota_us")
            period = case.machine.number(f"{directory}/cpu.cfs_period_us")
        except CannotTellError:
            continue
        return quota / period if quota > 0 and period > 0 else None
    return None


def cpu_governor(case: Case) -> Finding:
    """Read how the CPUs choose their frequency."""
    machine, slow = case.machine, []
    governors = set()
    for name in machine.names(SYSTEM_CPUS):
        if not (name.startswith("cpu") and name[3:].isdigit()):
            continue
        try:
            governor = machine.read(f"{SYSTEM_CPUS}/{name}/cpufreq/scaling_governor").strip()
        except CannotTellError:
            continue
        governors.add(governor)
        if governor == "powersave" and not _chooses_itself(case, name):
            slow.append(name)
    if slow:
        return warning(
            f"governor powersave holds {len(slow)} CPUs at their lowest frequency",
            "cpupower frequency-set -g performance",
            f"echo performance | tee {SYSTEM_CPUS}/cpu*/cpufreq/scaling_governor",
        )
    if not governors:
        return ok("none: the host or the firmware chooses the frequency")
    return ok(f"governor {', '.join(sorted(governors))}")


def _chooses_itself(case: Case, name: str) -> bool:
    """Whether "powersave" only is a hint: these drivers let the CPU speed up by itself."""
    try:
        driver = case.machine.read(f"{SYSTEM_CPUS}/{name}/cpufreq/scaling_driver").strip()
    except CannotTellError:
        return False
    return driver in ("intel_pstate", "amd-pstate-epp", "amd_pstate_epp")


def packet_cpus(case: Case) -> Finding:
    """Look whether one CPU takes every packet off the network while others serve."""
    machine, usable = case.machine, len(case.affinity()[0])
    interface = default_interface(machine)
    queues = [name for name in machine.names(f"/sys/class/net/{interface}/queues") if name.startswith("rx-")]
    if usable < 2:
        return ok("one CPU, which does it all")
    if len(queues) >= min(usable, 2):
        return ok(f"{interface} spreads over {len(queues)} receive queues")
    masks = [machine.read(f"/sys/class/net/{interface}/queues/{name}/rps_cpus").strip() for name in queues]
    if any(mask.replace(",", "").strip("0") for mask in masks):
        return ok(f"{interface} has {len(queues)} receive queue, which RPS spreads over CPUs {masks[0]}")
    mask = f"{(1 << machine.cpu_count()) - 1:x}"
    script = tuning_file("linux/queues.sh")
    return note(
        f"{interface} has one receive queue, and RPS is off: one CPU takes every packet off the network",
        *(() if script is None else (f"sh {script} apply {interface}",)),
        f"echo {mask} > /sys/class/net/{interface}/queues/rx-0/rps_cpus",
    )


CHECKS = (
    Check(
        name="cpus",
        topic=Topic.PROCESSORS,
        looks_at="endpoint.workers against affinity and control group quota (versions 1 and 2), of the running node if "
        "there is one",
        why="workers that share a CPU take turns, and one that is out of quota stands still until the next period: "
        "heartbeats come late, and a worker silent for heartbeat_timeout_s is taken for frozen and killed",
        examine=cpus,
    ),
    Check(
        name="cpu-governor",
        topic=Topic.PROCESSORS,
        looks_at="scaling_governor and scaling_driver of every CPU",
        why="a CPU held at its lowest frequency serves that much less",
        examine=cpu_governor,
    ),
    Check(
        name="packet-cpus",
        topic=Topic.PROCESSORS,
        looks_at="receive queues of the default interface and rps_cpus",
        why="the CPU that takes all packets off the network is the first to be busy, however many workers there are",
        examine=packet_cpus,
    ),
)
"""In the order in which they are shown."""
