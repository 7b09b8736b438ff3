"""Are the node's ports free, and are there enough of them for the relay?"""

import errno
import os
import re

from antquic_server.config.rules import split_listen_address
from antquic_server.doctor.case import Case, Check, Topic
from antquic_server.doctor.finding import Finding, fault, note, ok, warning
from antquic_server.doctor.remedies import APPLY, setting, unit
from antquic_server.errors import CannotTellError

__all__ = ["CHECKS"]


def listen_port(case: Case) -> Finding:
    """Bind every listen address for a moment, unless the node has it."""
    listen = ", ".join(case.settings.endpoint.listen)
    if case.node_pid is not None:
        return ok(f"{listen}: served by antquic-server (process {case.node_pid})")
    for address in case.settings.endpoint.listen:
        number = case.machine.bind_error(address)
        dispensable = address.startswith("[::]") and any(
            other.startswith("0.0.0.0:") for other in case.settings.endpoint.listen
        )
        if number in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL) and dispensable:
            continue
        if number:
            return _refused(case, address, number)
    return ok(f"{listen}: free")


def _refused(case: Case, address: str, number: int) -> Finding:
    port = split_listen_address("settings", "endpoint.listen", address)[1]
    if number == errno.EADDRINUSE:
        holder = _holder(case, port)
        fix = f"ss -ulnp 'sport = :{port}'   # who has it; then stop that, or choose another port:"
        return fault(f"{address} is taken by {holder}", fix, setting("endpoint.listen", f'["0.0.0.0:{port + 1}"]'))
    if number in (errno.EACCES, errno.EPERM):
        # By the unit and not by setcap: the interpreter is a file that every Python program of the machine may share.
        right = (f"{name}=CAP_NET_BIND_SERVICE" for name in ("AmbientCapabilities", "CapabilityBoundingSet"))
        fixes = unit(*right, "PrivateUsers=no"), setting("endpoint.listen", '["0.0.0.0:10000"]')
        return fault(f"{address}: no right to use this port", *fixes)
    fix = "ip address   # which addresses there are"
    return fault(f"{address}: {os.strerror(number)}", fix, setting("endpoint.listen", '["0.0.0.0:10000"]'))


def _holder(case: Case, port: int) -> str:
    try:
        pid = case.machine.udp_ports().get(port)
    except CannotTellError:
        pid = None
    return "another process, which only root may see" if pid is None else case.machine.process_name(pid)


def admin_port(case: Case) -> Finding:
    """Bind the admin address for a moment, unless the node has answered there."""
    listen = case.settings.admin.listen
    host, port = split_listen_address("settings", "admin.listen", listen)
    if case.status is not None and case.admin_port == port:
        return ok(f"{listen}: the node's")
    number = case.machine.tcp_bind_error(str(host), port)
    if number == errno.EADDRINUSE and case.node_pid is not None:
        # One that runs has its admin port; but it was asked elsewhere, as through a proxy, or did not answer.
        why = "it did not answer" if case.status is None else f"it was asked at port {case.admin_port}"
        fix = f"ss -tlnp 'sport = :{port}'   # who has it"
        return note(f"{listen} is taken, by the node (process {case.node_pid}) or another; {why}", fix)
    if number == errno.EADDRINUSE:
        fix = f"ss -tlnp 'sport = :{port}'   # who has it; then stop that, or choose another port:"
        return fault(f"{listen} is taken by another process", fix, setting("admin.listen", f'"{host}:{port + 1}"'))
    if number:
        return fault(f"{listen}: {os.strerror(number)}", setting("admin.listen", '"127.0.0.1:10001"'))
    return ok(f"{listen}: free")


def relay_ports(case: Case) -> Finding:
    """Count the ports of the range that are free."""
    relay = case.settings.relay
    if not relay.enabled:
        return ok("the relay is off")
    first, last = relay.port_range
    size = last - first + 1
    own = {port for port in case.listen_ports() if first <= port <= last}
    taken, unseen = 0, ""
    # A running node's own sessions are among the ports in use, and no reason for concern.
    if case.node_pid is None:
        try:
            taken = sum(first <= port <= last and port not in own for port in case.machine.udp_ports())
        except CannotTellError as error:
            unseen = f" (those in use are not to be seen: {error})"
    free = size - taken - len(own)
    found = f"{free:,} of {size:,} ports from {first} to {last} are free, for {relay.max_sessions:,} sessions{unseen}"
    wider = setting("relay.port_range", "[49152, 65535]")
    if free <= 0:
        return fault(found, wider)
    if free < relay.max_sessions:
        return warning(found, wider, setting("relay.max_sessions", max(free, relay.max_sessions_per_peer)))
    return ok(found)


def relay_reserved(case: Case) -> Finding:
    """Compare the range with the ports the kernel hands out to others."""
    relay = case.settings.relay
    if not relay.enabled:
        return ok("the relay is off")
    first, last = relay.port_range
    words = case.machine.read("/proc/sys/net/ipv4/ip_local_port_range").split()
    low, high = int(words[0]), int(words[1])
    reserved = _reserved(case.machine.read("/proc/sys/net/ipv4/ip_local_reserved_ports"))
    shared = sum(max(low, first) <= port <= min(high, last) and port not in reserved for port in range(first, last + 1))
    if not shared:
        return ok("the kernel gives none of the relay's ports to others")
    found = f"the kernel may give {shared:,} of the relay's {last - first + 1:,} ports to any program that asks for one"
    fixes = (APPLY, f"sysctl -w net.ipv4.ip_local_reserved_ports={_text(reserved | set(range(first, last + 1)))}")
    if last - first + 1 - shared >= relay.max_sessions:
        return note(f"{found}; the others are enough for {relay.max_sessions:,} sessions", *fixes)
    return warning(found, *fixes)


def _reserved(text: str) -> set[int]:
    """Parse the kernel's list, like ``8080,49152-65535``."""
    ports: set[int] = set()
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", text):
        ports.update(range(int(first), int(last or first) + 1))
    return ports


def _text(ports: set[int]) -> str:
    """Write ports as the kernel's list."""
    ranges: list[tuple[int, int]] = []
    for port in sorted(ports):
        if ranges and ranges[-1][1] == port - 1:
            ranges[-1] = (ranges[-1][0], port)
        else:
            ranges.append((port, port))
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


CHECKS = (
    Check(
        name="listen-port",
        topic=Topic.PORTS,
        looks_at="endpoint.listen, by binding each address for a moment, and who has it",
        why="a node whose port is taken does not start (exit code 3)",
        examine=listen_port,
    ),
    Check(
        name="admin-port",
        topic=Topic.PORTS,
        looks_at="admin.listen, likewise, unless the node has answered there",
        why="a node whose admin port is taken does not start (exit code 3)",
        examine=admin_port,
    ),
    Check(
        name="relay-ports",
        topic=Topic.PORTS,
        looks_at="relay.port_range against relay.max_sessions and the ports in use",
        why="every stream relay session takes a port; a peer that gets none is refused",
        examine=relay_ports,
    ),
    Check(
        name="relay-reserved",
        topic=Topic.PORTS,
        looks_at="relay.port_range against ip_local_port_range and ip_local_reserved_ports",
        why="programs that do not care which port they get are given one from this range, until none is left for peers",
        effect="of 4,000 sockets that asked for any port 43 % got one of 49152-65535 (antquic-server tune measure)",
        examine=relay_reserved,
    ),
)
"""In the order in which they are shown."""
