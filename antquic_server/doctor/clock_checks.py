"""Is the clock right, and is asking it cheap?"""

import datetime as dt
from pathlib import Path

import antquic_server
from antquic_server.doctor.case import Case, Check, Topic
from antquic_server.doctor.finding import Finding, fault, ok, warning
from antquic_server.errors import CannotTellError

__all__ = ["CHECKS"]

FAST_SOURCES = ("tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter", "pvclock")
"""Read in user space, without a system call."""

SLACK_S = 300.0
"""Clocks of machines that share a disk differ by moments."""

_START_NTP = "timedatectl set-ntp true"


def clock_sync(case: Case) -> Finding:
    """Ask the kernel whether something sets its clock."""
    clock = case.machine.kernel_clock()
    if clock.synchronised:
        return ok(f"synchronised; the kernel reckons with an error of {clock.max_error_s:.3g} s at most")
    return warning("nothing has synchronised the clock", _START_NTP, "apt-get install chrony   # Fedora: dnf install")


def clock_source(case: Case) -> Finding:
    """Read which clock the kernel uses."""
    directory = "/sys/devices/system/clocksource/clocksource0"
    current = case.machine.read(f"{directory}/current_clocksource").strip()
    available = case.machine.read(f"{directory}/available_clocksource").split()
    if current in FAST_SOURCES:
        return ok(current)
    faster = [name for name in available if name in FAST_SOURCES]
    found = f"{current}, which takes a system call to read"
    if not faster:
        return warning(f"{found}; this machine offers no other", "dmesg | grep -i -E 'tsc|clocksource'")
    return warning(f"{found}, although there is {faster[0]}", f"echo {faster[0]} > {directory}/current_clocksource")


def clock_plausible(case: Case) -> Finding:
    """Compare the clock with files that must be older than now."""
    now_s = case.machine.now_s()
    shown = dt.datetime.fromtimestamp(now_s, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
    # The path of the program itself is a fact of this process, wherever the machine's file tree begins.
    oldest = {"this program": Path(antquic_server.__file__).stat().st_mtime}
    try:
        key = case.machine.facts_of(case.node_key)
    except CannotTellError:
        key = None
    if key is not None:
        oldest["the node key"] = key.changed_s
    for what, changed_s in oldest.items():
        if now_s < changed_s - SLACK_S:
            hours = (changed_s - now_s) / 3600
            return fault(f"{shown}, but {what} is of {hours:,.1f} hours later", _START_NTP)
    return ok(shown)


_WHY = "requests to be introduced carry the time at which they expire, ten seconds ahead"

CHECKS = (
    Check(
        name="clock-sync",
        topic=Topic.CLOCK,
        looks_at="adjtimex: whether something disciplines the kernel's clock",
        why=f"{_WHY}: a node whose clock runs ahead by more refuses them all",
        examine=clock_sync,
    ),
    Check(
        name="clock-source",
        topic=Topic.CLOCK,
        looks_at="the kernel's clock source, and what else it offers",
        why="the node asks for the time several times a datagram; hpet and acpi_pm make each a system call",
        examine=clock_source,
    ),
    Check(
        name="clock-plausible",
        topic=Topic.CLOCK,
        looks_at="the clock against the dates of the node key and of this program",
        why=f"{_WHY}; a clock that is years behind also makes certificates that nobody takes",
        examine=clock_plausible,
    ),
)
"""In the order in which they are shown."""
