"""Are the sockets' buffers large enough, and are there enough descriptors?"""

import re

from antquic_server.doctor.case import Case, Check, Topic
from antquic_server.doctor.finding import Finding, fault, note, ok, warning
from antquic_server.doctor.remedies import APPLY, setting, unit
from antquic_server.errors import CannotTellError
from antquic_server.net.sockets import SOCKET_BUFFER_BYTES

__all__ = ["CHECKS"]

TUNED_BUFFER_BYTES = 26_214_400
"""What ant-quic's guide sets, and ``tune apply`` with it; 25 MiB."""

SMALL_BUFFER_BYTES = 1 << 20
"""Some 900 datagrams of 1200 bytes, less than a busy worker gets while it collects its thoughts."""

BACKLOG_PACKETS = 16_384
"""What ``tune apply`` sets: 4096 peers that come back at once send 8192 datagrams."""

GROWTH_S = 1.0
LOST_SHARE = 0.001

SPARE_DESCRIPTORS = 64
"""Event loop, channels, log, libraries: about thirty, doubled."""


def _buffer(case: Case, *, receive: bool) -> Finding:
    machine, limit_name = case.machine, f"net.core.{'r' if receive else 'w'}mem_max"
    wanted = SOCKET_BUFFER_BYTES
    held = _held_by_node(case, receive=receive)
    granted = machine.granted_buffer(receive=receive, wanted_bytes=wanted, forced=True) if held is None else held
    plain = machine.granted_buffer(receive=receive, wanted_bytes=wanted, forced=False)
    fixes: tuple[str, ...] = (APPLY, f"sysctl -w {limit_name}={TUNED_BUFFER_BYTES}")
    if machine.platform == "darwin":
        limit_name, fixes = "kern.ipc.maxsockbuf", (APPLY, f"sysctl -w kern.ipc.maxsockbuf={TUNED_BUFFER_BYTES}")
    try:
        limit = f"{limit_name} is {machine.sysctl(limit_name):,}"
    except CannotTellError:
        limit = f"{limit_name} cannot be read"
    found = f"{_size(granted)} obtained of {_size(wanted)} wanted{'' if held is None else ' by the running node'}"
    if granted < SMALL_BUFFER_BYTES:
        return fault(f"{found}; {limit}", *fixes)
    if granted < wanted:
        return warning(f"{found}; {limit}", *fixes)
    if held is None and plain < wanted:
        return note(f"{found} with this process's rights; other accounts get {_size(plain)}: {limit}", *fixes)
    return ok(found)


def _held_by_node(case: Case, *, receive: bool) -> int | None:
    """
    Return the smallest buffer of the running node's sockets, in the unit of SO_RCVBUF; None if it is not to be seen.

    What the node has got counts more than what this process would get: it may have other rights.
    """
    ports = [port for port in case.listen_ports() if port]
    if case.node_pid is None or case.machine.platform != "linux" or not ports:
        return None
    try:
        printed = case.machine.run("ss", "-H", "-u", "-a", "-n", "-m", f"sport = :{ports[0]}")
    except CannotTellError:
        return None
    sizes = [int(size) for size in re.findall(rf"skmem:\([^)]*\b{'rb' if receive else 'tb'}(\d+)", printed)]
    # As getsockopt does, the kernel tells the double of what was granted.
    return min(min(sizes) // 2, SOCKET_BUFFER_BYTES) if sizes else None


def receive_buffer(case: Case) -> Finding:
    """Ask for what the node asks for."""
    return _buffer(case, receive=True)


def send_buffer(case: Case) -> Finding:
    """Ask for what the node asks for."""
    return _buffer(case, receive=False)


def receive_errors(case: Case) -> Finding:
    """
    Read how many datagrams found a full socket: while a node is running, within a second, else since the start.

    A share and not a number of those since the start: any burst to any program counts, for months.
    """
    before = _udp_counters(case.machine.read("/proc/net/snmp"))
    received, lost = before["InDatagrams"], before["RcvbufErrors"]
    found = f"{lost:,} of {received + lost:,} datagrams lost to full sockets since the start, of all programs"
    watch = "watch -d -n 5 'grep ^Udp: /proc/net/snmp'   # is RcvbufErrors growing?"
    if case.node_pid is not None:
        case.machine.wait(GROWTH_S)
        growth = _udp_counters(case.machine.read("/proc/net/snmp"))["RcvbufErrors"] - lost
        if growth > 0:
            more = setting("endpoint.workers", 0)
            return warning(f"{growth:,} datagrams lost to full sockets within {GROWTH_S:g} s", APPLY, more, watch)
    return note(found, APPLY, watch) if lost > LOST_SHARE * (received + lost) else ok(found)


def _udp_counters(text: str) -> dict[str, int]:
    rows = [line.split()[1:] for line in text.splitlines() if line.startswith("Udp:")]
    try:
        counters = dict(zip(rows[0], map(int, rows[1]), strict=True))
        return {name: counters[name] for name in ("InDatagrams", "RcvbufErrors")}
    except (IndexError, ValueError, KeyError):
        raise CannotTellError("/proc/net/snmp", "not as expected") from None


def backlog(case: Case) -> Finding:
    """Compare the queue between network card and sockets with what a burst needs."""
    packets = case.machine.sysctl("net.core.netdev_max_backlog")
    found = f"{packets:,} packets may wait for each CPU"
    dropped = _backlog_drops(case)
    if dropped:
        return warning(f"{found}; {dropped:,} were dropped since the start", *_backlog_fixes())
    if packets < BACKLOG_PACKETS:
        return note(f"{found}; none was dropped so far", *_backlog_fixes())
    return ok(found)


def _backlog_fixes() -> tuple[str, str]:
    return APPLY, f"sysctl -w net.core.netdev_max_backlog={BACKLOG_PACKETS}"


def _backlog_drops(case: Case) -> int:
    """Sum the second column of ``/proc/net/softnet_stat``, hexadecimal, a line for each CPU."""
    try:
        lines = case.machine.read("/proc/net/softnet_stat").splitlines()
        return sum(int(line.split()[1], 16) for line in lines if line.strip())
    except (CannotTellError, ValueError, IndexError):
        return 0


def file_descriptors(case: Case) -> Finding:
    """Compare the limit with what one worker may need when every stream relay session lands on it."""
    settings = case.settings
    sockets = case.workers() * (len(settings.endpoint.listen) + 2)
    sessions = settings.relay.max_sessions if settings.relay.enabled else 0
    needed = SPARE_DESCRIPTORS + sockets + sessions
    hard, whose = _hard_limit(case)
    found = f"{whose} may open {hard:,}; a worker needs up to {needed:,} ({sessions:,} of them relay sessions)"
    fixes = (unit(f"LimitNOFILE={max(65536, needed)}"), f"ulimit -Hn {max(65536, needed)}")
    if hard < SPARE_DESCRIPTORS + sockets:
        return fault(found, *fixes)
    return (
        warning(found, *fixes, setting("relay.max_sessions", hard - needed + sessions)) if hard < needed else ok(found)
    )


def _hard_limit(case: Case) -> tuple[int, str]:
    """The limit of the running node if it can be seen, else of this process; workers raise theirs to the hard one."""
    if case.node_pid is not None:
        try:
            for line in case.machine.read(f"/proc/{case.node_pid}/limits").splitlines():
                if line.startswith("Max open files"):
                    hard = line.split()[4]
                    return (1 << 30 if hard == "unlimited" else int(hard)), f"the node (process {case.node_pid})"
        except (CannotTellError, ValueError, IndexError):
            pass
    _, hard_limit = case.machine.descriptor_limits()
    return (1 << 30 if hard_limit < 0 else hard_limit), "a process started here"


def _size(size_bytes: int) -> str:
    mebibyte = 1 << 20
    return f"{size_bytes / mebibyte:.3g} MiB" if size_bytes >= mebibyte else f"{size_bytes / 1024:.0f} KiB"


CHECKS = (
    Check(
        name="receive-buffer",
        topic=Topic.SOCKETS,
        looks_at="what the running node has, or SO_RCVBUF grants here, of the 8 MiB wanted; what caps it",
        why="what arrives while a worker is busy, or being replaced, waits here; what does not fit is lost",
        effect="of a burst of 20,000 datagrams of 1,200 bytes a socket keeps 184 at the stock limit, 7,281 at 8 MiB "
        "and all at 25 MiB (antquic-server tune measure)",
        examine=receive_buffer,
    ),
    Check(
        name="send-buffer",
        topic=Topic.SOCKETS,
        looks_at="what the running node has, or SO_SNDBUF grants here, of the 8 MiB wanted; what caps it",
        why="trains of many peers leave in one go; a full socket makes the worker wait and come back",
        examine=send_buffer,
    ),
    Check(
        name="receive-errors",
        topic=Topic.SOCKETS,
        looks_at="RcvbufErrors in /proc/net/snmp: its growth within a second while a node is running, else its share",
        why="lost datagrams are sent again, and congestion control halves the rate for each loss",
        examine=receive_errors,
    ),
    Check(
        name="backlog",
        topic=Topic.SOCKETS,
        looks_at="net.core.netdev_max_backlog, and the drops in /proc/net/softnet_stat",
        why="between network card and sockets packets wait here, for each CPU; a full queue drops whole bursts",
        examine=backlog,
    ),
    Check(
        name="file-descriptors",
        topic=Topic.SOCKETS,
        looks_at="the hard limit of open files, of the running node if there is one, against relay.max_sessions",
        why="every stream relay session is a socket; connections are not, however many: they share the port's",
        examine=file_descriptors,
    ),
)
"""In the order in which they are shown."""
