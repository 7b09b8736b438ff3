"""Does the kernel send and receive in trains, and steer by connection ID?"""

import re

from antquic_server.doctor.case import Case, Check, Topic
from antquic_server.doctor.finding import Finding, fault, note, ok, warning
from antquic_server.doctor.remedies import setting
from antquic_server.doctor.socket_probes import STEERED_DATAGRAMS
from antquic_server.errors import CannotTellError

__all__ = ["CHECKS"]

OLDEST_KERNEL = (5, 0)
"""UDP_GRO; UDP_SEGMENT came with 4.18, SO_ATTACH_REUSEPORT_CBPF with 4.5."""

PACKAGE_KERNEL = "apt-get install linux-image-amd64 && reboot   # Fedora: dnf upgrade kernel && reboot"


def kernel(case: Case) -> Finding:
    """Compare the release with what has all that the node uses."""
    if case.machine.platform != "linux":
        return note(f"{case.machine.platform}: served without trains and steering, for development")
    release = case.machine.read("/proc/sys/kernel/osrelease").strip()
    numbers = re.match(r"(\d+)\.(\d+)", release)
    if numbers is None:
        raise CannotTellError("the kernel's release", f"found {release[:40]!r}")
    if (int(numbers[1]), int(numbers[2])) < OLDEST_KERNEL:
        return warning(f"Linux {release}, older than 5.0: no GRO for UDP", PACKAGE_KERNEL)
    return ok(f"Linux {release}")


def gso(case: Case) -> Finding:
    """Send a train through loopback."""
    return _train(case, "cuts trains as they leave (UDP_SEGMENT)", cut=True)


def gro(case: Case) -> Finding:
    """Receive a train through loopback."""
    return _train(case, "hands trains over whole (UDP_GRO)", cut=False)


def _train(case: Case, what: str, *, cut: bool) -> Finding:
    if case.machine.platform != "linux":
        return note(f"{case.machine.platform} has no such thing: every datagram is a system call")
    cuts, glues = case.machine.passes_trains()
    if cuts if cut else glues:
        return ok(f"the kernel {what}")
    return warning(f"the kernel does not do it: {what}", PACKAGE_KERNEL)


def steering(case: Case) -> Finding:
    """Attach the node's filter, and send through it."""
    if case.machine.platform != "linux":
        return note(f"{case.machine.platform} has no such filter", setting("endpoint.workers", 1))
    attached, right = case.machine.steering()
    if not attached:
        return warning("the kernel does not take the filter (SO_ATTACH_REUSEPORT_CBPF)", setting("endpoint.workers", 1))
    if right < STEERED_DATAGRAMS:
        found = f"the filter is there, but {STEERED_DATAGRAMS - right} of {STEERED_DATAGRAMS} datagrams went astray"
        return fault(found, setting("endpoint.workers", 1))
    return ok(f"{right} of {STEERED_DATAGRAMS} datagrams came to the socket that the filter names")


CHECKS = (
    Check(
        name="kernel",
        topic=Topic.KERNEL,
        looks_at="the release",
        why="trains and steering are the kernel's work; without them the node does it by hand, datagram by datagram",
        examine=kernel,
    ),
    Check(
        name="gso",
        topic=Topic.KERNEL,
        looks_at="a train sent through loopback with UDP_SEGMENT, whether the kernel cuts it",
        why="one system call sends up to 64 datagrams",
        effect="the channel relay delivers 1,494,195 payloads of 1,200 bytes in a second of CPU time in trains of 16, "
        "188,238 singly (antquic-server bench relay)",
        examine=gso,
    ),
    Check(
        name="gro",
        topic=Topic.KERNEL,
        looks_at="a train received through loopback with UDP_GRO, whether it comes whole",
        why="one system call receives up to 64 datagrams",
        effect="as for gso: a train that is received whole is relayed whole (antquic-server bench relay)",
        examine=gro,
    ),
    Check(
        name="steering",
        topic=Topic.KERNEL,
        looks_at="the node's packet filter on a group of four sockets, and 32 datagrams sent through it",
        why="without it a hash of the addresses picks the worker: with two, half of all datagrams are handed on",
        effect="without it two workers echo 0.72 times as many datagrams in the same CPU time (docs/doctor.md)",
        examine=steering,
    ),
)
"""In the order in which they are shown."""
