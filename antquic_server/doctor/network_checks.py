"""Do connection tracking, IPv6 and the default interface's MTU suit the node?"""

from antquic_server.config.rules import split_listen_address
from antquic_server.doctor.case import Case, Check, Topic
from antquic_server.doctor.finding import Finding, fault, note, ok, warning
from antquic_server.doctor.remedies import APPLY, setting, tuning_file
from antquic_server.doctor.routes import default_interface
from antquic_server.errors import CannotTellError

__all__ = ["CHECKS"]

_TRACKING = "net.netfilter.nf_conntrack"
_FULL = 0.9

NOTRACK_PORTS = "{ 10000, 49152-65535 }"
"""``node_ports`` in ``tuning/linux/notrack.nft``."""

IPV6_AND_UDP_BYTES = 48
SMALLEST_DATAGRAM_BYTES = 1200


def conntrack_table(case: Case) -> Finding:
    """Compare the table with the connections the node may have."""
    machine, settings = case.machine, case.settings
    if not _tracks(case):
        return ok("the kernel tracks no connections")
    largest = machine.sysctl(f"{_TRACKING}_max")
    used = machine.sysctl(f"{_TRACKING}_count")
    sessions = settings.relay.max_sessions if settings.relay.enabled else 0
    needed = settings.endpoint.max_connections + 2 * sessions
    found = f"{used:,} of {largest:,} entries used; the node alone may need {needed:,}"
    wanted = max(262_144, 2 * needed)
    fixes = (
        APPLY,
        f"sysctl -w {_TRACKING}_max={wanted}",
        *_without_tracking(case),
    )
    if used >= _FULL * largest:
        return fault(found, *fixes)
    return warning(found, *fixes) if largest < needed else ok(found)


def _without_tracking(case: Case) -> tuple[str, ...]:
    """Return the line that exempts the node's ports, which brings the chains along that this takes."""
    file, relay = tuning_file("linux/notrack.nft"), case.settings.relay
    first, last = relay.port_range if relay.enabled else (0, 0)
    # nft takes no port twice, by itself and in a range.
    ports = [str(port) for port in case.listen_ports() if port and not first <= port <= last]
    ports += [f"{first}-{last}"] if relay.enabled else []
    if file is None or not ports:
        return ()
    command, wanted = f"nft -f {file}", "{ " + ", ".join(ports) + " }"
    if wanted != NOTRACK_PORTS:
        command = f"sed 's/^define node_ports = .*/define node_ports = {wanted}/' {file} | nft -f -"
    return (f"{command}   # no tracking; not where NAT or 'ct state' needs it: see its head",)


def _tracks(case: Case) -> bool:
    """Whether the kernel tracks connections here, as far as can be seen."""
    return case.machine.platform != "linux" or case.machine.exists(f"/proc/sys/{_TRACKING.replace('.', '/')}_max")


def conntrack_timeout(case: Case) -> Finding:
    """Compare how long a silent peer is remembered with how often the node says something."""
    machine, keep_alive_s = case.machine, case.settings.endpoint.keep_alive_s
    if not _tracks(case):
        return ok("the kernel tracks no connections")
    stream_s = machine.sysctl(f"{_TRACKING}_udp_timeout_stream")
    shown = f"every {keep_alive_s:g} s" if keep_alive_s else "never"
    found = f"a silent peer is forgotten after {stream_s} s; pings are sent {shown}"
    if keep_alive_s and keep_alive_s < stream_s:
        return ok(found)
    fixes = (f"sysctl -w {_TRACKING}_udp_timeout_stream=120", setting("endpoint.keep_alive_s", 15))
    return warning(found, *fixes)


def ipv6(case: Case) -> Finding:
    """Look whether the addresses the node listens on exist."""
    listen = [split_listen_address("settings", "endpoint.listen", text)[0] for text in case.settings.endpoint.listen]
    wants, only = any(item.version == 6 for item in listen), all(item.version == 6 for item in listen)
    if not wants:
        return note("the node listens on IPv4 only", setting("endpoint.listen", '["0.0.0.0:10000", "[::]:10000"]'))
    try:
        disabled = case.machine.sysctl("net.ipv6.conf.all.disable_ipv6")
        addresses = case.machine.read("/proc/net/if_inet6").splitlines()
    except CannotTellError:
        if case.machine.platform != "linux":
            raise
        found = "this kernel has no IPv6"
        return fault(found, setting("endpoint.listen", '["0.0.0.0:10000"]')) if only else note(found)
    fix = "sysctl -w net.ipv6.conf.all.disable_ipv6=0"
    if disabled:
        return fault("IPv6 is switched off", fix) if only else note("IPv6 is switched off: IPv4 peers only", fix)
    # Columns: address, interface number, prefix length, scope (00 is global), flags, name.
    if not any(line.split()[3:4] == ["00"] for line in addresses):
        return note("no interface has a global IPv6 address: IPv4 peers only")
    return ok("there is a global address")


def mtu(case: Case) -> Finding:
    """Compare the default interface with ``mtu.max``."""
    interface = default_interface(case.machine)
    size = case.machine.number(f"/sys/class/net/{interface}/mtu")
    largest = case.settings.mtu.max
    fitting = size - IPV6_AND_UDP_BYTES
    found = f"{interface} takes {size} bytes; mtu.max is {largest}, which with IPv6 is {largest + IPV6_AND_UDP_BYTES}"
    if fitting < SMALLEST_DATAGRAM_BYTES:
        return fault(
            f"{found}; QUIC needs {SMALLEST_DATAGRAM_BYTES + IPV6_AND_UDP_BYTES}", f"ip link set {interface} mtu 1500"
        )
    if fitting < largest:
        return note(f"{found}: larger probes are in vain", setting("mtu.max", fitting))
    return ok(found)


CHECKS = (
    Check(
        name="conntrack-table",
        topic=Topic.NETWORK,
        looks_at="nf_conntrack_count and nf_conntrack_max against endpoint.max_connections and relay.max_sessions",
        why="a full table drops the first packet of every new peer, and the kernel log is the only one to say so",
        examine=conntrack_table,
    ),
    Check(
        name="conntrack-timeout",
        topic=Topic.NETWORK,
        looks_at="nf_conntrack_udp_timeout_stream against endpoint.keep_alive_s",
        why="a firewall that has forgotten a silent peer takes the node's next packet for a new connection, and the "
        "answer for a stranger's",
        examine=conntrack_timeout,
    ),
    Check(
        name="ipv6",
        topic=Topic.NETWORK,
        looks_at="whether IPv6 is there, switched on and has a global address, against endpoint.listen",
        why="peers of carriers that put IPv4 behind address translation often have a public IPv6 address",
        examine=ipv6,
    ),
    Check(
        name="mtu",
        topic=Topic.NETWORK,
        looks_at="the MTU of the default interface against mtu.max",
        why="probes for sizes that the first link does not take are lost to begin with; QUIC needs 1,248 bytes",
        effect="what larger datagrams are worth on this machine: antquic-server bench mtu",
        examine=mtu,
    ),
)
"""In the order in which they are shown."""
