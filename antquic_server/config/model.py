"""
Every setting of a node, its default and its limits.

``Settings()`` is a complete, working configuration. A section is a TOML table, a field one key of it; the
annotation carries the rule that ``config.load`` applies, the comment above gives the reason for the default.
Constructing a section reads nothing and checks nothing: the loader does, once.
"""

from dataclasses import dataclass, field, fields
from functools import cache
from typing import Annotated, get_type_hints

from antquic_server.config.host_names import HostNames
from antquic_server.config.rules import (
    Account,
    Choice,
    Flag,
    IpAddress,
    Levels,
    ListenAddress,
    ListenAddresses,
    Networks,
    Number,
    PathText,
    PeerIds,
    PortRange,
    ProtocolNames,
    Rule,
    Whole,
)
from antquic_server.errors import ConfigurationError

__all__ = [
    "LOG_LEVELS",
    "AdminSettings",
    "EndpointSettings",
    "IdentitySettings",
    "LimitsSettings",
    "LogSettings",
    "MtuSettings",
    "NatSettings",
    "PqcSettings",
    "RelaySettings",
    "Settings",
    "TlsSettings",
    "changed_from_default",
    "from_plain",
    "rules_of",
    "section_types",
    "to_plain",
]

LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
"""Names of the log levels, from the most to the least talkative."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    """``[endpoint]``: the QUIC endpoint and the processes that serve it (``P2pConfig`` in ant-quic)."""

    # Both families on one port, as peers are told one port number.
    listen: Annotated[tuple[str, ...], ListenAddresses()] = ("0.0.0.0:10000", "[::]:10000")
    # 0: as many as the CPUs this process may use. A connection ID's steering byte still spreads well over 64.
    workers: Annotated[int, Whole(0, 64)] = 0
    # Of the whole node. An idle connection costs about 56 kB, so 4096 of them about 230 MB.
    max_connections: Annotated[int, Whole(1, 1_000_000)] = 4096
    # What ant-quic peers send as max_idle_timeout; the smaller of both sides counts (RFC 9000, section 10.1).
    idle_timeout_s: Annotated[float, Number(0.1, 3600)] = 30.0
    # Half the idle timeout, as peers do, and below the 30 s of the shortest common NAT timers. 0 sends none.
    keep_alive_s: Annotated[float, Number(0, 3600)] = 15.0
    # Empty: a client may offer any protocol or none (ant-quic peers offer none).
    alpn: Annotated[tuple[str, ...], ProtocolNames()] = ()
    # None: stay who we are. Only root may name an account, which is taken once the sockets are bound.
    user: Annotated[str | None, Account()] = None
    # None: the primary group of ``user``.
    group: Annotated[str | None, Account()] = None
    # One process with its imports done replaces a dead worker in milliseconds; two dying at once is rare.
    standby_workers: Annotated[int, Whole(0, 8)] = 1
    # Four signs of life a second cost nothing measurable.
    heartbeat_interval_s: Annotated[float, Number(0.01, 10)] = 0.25
    # Six missed heartbeats: more than a loaded machine takes, and clients are served again within two seconds.
    heartbeat_timeout_s: Annotated[float, Number(0.1, 60)] = 1.5
    # Several round trips for the closes to arrive, and well below the 90 s after which systemd kills.
    shutdown_deadline_s: Annotated[float, Number(0.1, 300)] = 5.0
    # A worker that keeps its core keeps its caches. Off where something else places processes.
    pin_workers: Annotated[bool, Flag()] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PqcSettings:
    """``[pqc]``: post-quantum cryptography (``PqcConfig`` in ant-quic)."""

    # liboqs where it is installed, since it signs seven times faster, else the cryptography package.
    provider: Annotated[str, Choice(("auto", "liboqs", "cryptography"))] = "auto"
    # "require" refuses classical-only clients with handshake_failure; "any" admits them too.
    mode: Annotated[str, Choice(("require", "any"))] = "require"
    # Contexts per worker. A handshake holds one for microseconds, so one event loop never uses up ten.
    memory_pool_size: Annotated[int, Whole(1, 1000)] = 10
    # ant-quic's guide doubles the time for a handshake that takes 14 kB instead of 3 kB.
    handshake_timeout_multiplier: Annotated[float, Number(1, 10)] = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NatSettings:
    """
    ``[nat]``: NAT traversal (``NatConfig`` in ant-quic).

    The coordination and introduction keys and ``max_candidates`` act on the node. The others are settings of a
    peer: the peer library has them in its own ``PeerSettings``, and a node does nothing with them.
    """

    # A peer has one address for each family and interface, and rarely more than three of those.
    max_candidates: Annotated[int, Whole(1, 256)] = 10
    # The time ant-quic gives one coordination.
    discovery_timeout_s: Annotated[float, Number(0.1, 300)] = 10.0
    # Three rounds get through whatever single rounds lose; more annoys a NAT without helping.
    hole_punch_retries: Annotated[int, Whole(0, 20)] = 3
    # Guessing ports costs a peer a handful of packets, and gets it through symmetric NATs that count.
    enable_symmetric_nat: Annotated[bool, Flag()] = True
    # ant-quic's coordinators accept one request per peer in two seconds.
    coordination_rate_per_s: Annotated[float, Number(0.01, 1000)] = 0.5
    # A peer that has just joined looks for a few others at once.
    coordination_burst: Annotated[int, Whole(1, 1000)] = 3
    # What a peer of our library follows; more would be refused there without a word to the initiator.
    introductions_per_target_per_s: Annotated[float, Number(0.01, 10_000)] = 5.0
    # Likewise: all who know a popular peer may come at once.
    introductions_per_target_burst: Annotated[int, Whole(1, 100_000)] = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class MtuSettings:
    """
    ``[mtu]``: UDP payload sizes in bytes (``MtuConfig`` in ant-quic).

    Connections begin with ``initial`` and look for the largest size up to ``max`` that their path carries
    (RFC 8899); ``min`` is what they fall back to when the path changes or stops carrying what it did.
    ``max`` = ``initial`` probes for nothing.
    """

    # The smallest that QUIC allows (RFC 9000, section 14), so right on every path.
    initial: Annotated[int, Whole(1200, 65527)] = 1200
    # Likewise; a path that carries less cannot carry QUIC.
    min: Annotated[int, Whole(1200, 65527)] = 1200
    # 1500-byte Ethernet less IPv6 and UDP headers: 1500 - 40 - 8. Inside tunnels 1280 avoids probing in vain.
    max: Annotated[int, Whole(1200, 65527)] = 1452


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaySettings:
    """
    ``[relay]``: carrying traffic for peers that cannot meet.

    Everything but ``public_address``, ``port_range`` and ``canary_interval_s`` takes effect while the node runs, when
    the supervisor gets SIGHUP. Bytes and rates count what is relayed, both directions together.
    """

    # Relaying is one of the node's three purposes.
    enabled: Annotated[bool, Flag()] = True
    # Empty: the address at which the peer that asks has reached us. Behind address translation, the outside one.
    public_address: Annotated[str, IpAddress()] = ""
    # The dynamic ports (RFC 6335, section 6): one per session of an ant-quic peer.
    port_range: Annotated[tuple[int, int], PortRange(1024, 65535)] = (49152, 65535)
    # ant-quic's default for a relay.
    max_sessions: Annotated[int, Whole(1, 1_000_000)] = 1000
    # A peer needs one per address family and peer it cannot reach; more smells of abuse.
    max_sessions_per_peer: Annotated[int, Whole(1, 1_000_000)] = 4
    # Of an IPv4 /32 or an IPv6 /48: a few dozen households behind one carrier's address.
    max_sessions_per_prefix: Annotated[int, Whole(1, 1_000_000)] = 64
    # 100 MiB/s, ant-quic's default: most of a gigabit.
    bandwidth_bytes_per_s: Annotated[int, Whole(1, 10**12)] = 104_857_600
    # 1 MiB/s, ant-quic's default for one session; all sessions of a peer share it.
    bandwidth_per_peer_bytes_per_s: Annotated[int, Whole(1, 10**12)] = 1_048_576
    # What may pass at once after a silence, in seconds at the full rate: a congestion window's worth.
    burst_s: Annotated[float, Number(0.01, 60)] = 1.0
    # In each quota period, for the whole node; 0: no limit. Most hosts sell a month's traffic.
    max_bytes: Annotated[int, Whole(0, 10**18)] = 0
    # Likewise for one peer.
    max_bytes_per_peer: Annotated[int, Whole(0, 10**18)] = 0
    # A day.
    quota_period_s: Annotated[float, Number(1, 366 * 86_400)] = 86_400.0
    # Peers that may ask for sessions, by peer id; empty: all that have authenticated themselves.
    allowed_peers: Annotated[tuple[str, ...], PeerIds()] = ()
    # Peers that may not, whatever the list above says.
    denied_peers: Annotated[tuple[str, ...], PeerIds()] = ()
    # Networks allowed although they are private, local or the like, which are refused by themselves.
    allowed_targets: Annotated[tuple[str, ...], Networks()] = ()
    # Networks refused although they are public.
    denied_targets: Annotated[tuple[str, ...], Networks()] = ()
    # What waits for one session's peer to read; beyond it datagrams are dropped. 20 ms of 100 Mb/s.
    queue_bytes: Annotated[int, Whole(65_536, 2**30)] = 262_144
    # How often each worker sends itself bytes through each way to relay, to show that it forwards. 0: never.
    canary_interval_s: Annotated[float, Number(0, 3600)] = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsSettings:
    """``[limits]``: what strangers and peers may use up before they have to wait."""

    # A Retry costs every client a round trip, so it is only asked for while the node is busy.
    retry: Annotated[str, Choice(("auto", "off", "always"))] = "auto"
    # Per worker. At 1 ms of CPU a handshake, 256 half-open ones are a quarter of a second behind.
    half_open_retry_threshold: Annotated[int, Whole(1, 1_000_000)] = 256
    # Many subscribers share one address behind a carrier-grade NAT.
    handshakes_per_address_per_s: Annotated[float, Number(0.01, 1_000_000)] = 50.0
    # Of an IPv4 /32 or an IPv6 /48 and /56: about half of what one core can serve.
    handshakes_per_prefix_per_s: Annotated[float, Number(0.01, 1_000_000)] = 500.0
    # A site that comes back after an outage may use four seconds' worth at once.
    handshake_burst_s: Annotated[float, Number(0.1, 3600)] = 4.0
    # Per worker. Enough to free the peers of a dead worker within seconds, too few to reflect with.
    stateless_resets_per_s: Annotated[float, Number(0, 1_000_000)] = 1000.0
    # ant-quic's stream window: 100 Mb/s at 100 ms round trip.
    stream_window_bytes: Annotated[int, Whole(1024, 2**32)] = 1_250_000
    # Eight such streams, as ant-quic's send window has it.
    connection_window_bytes: Annotated[int, Whole(1024, 2**32)] = 10_000_000
    # ant-quic's max_message_size, 4 MiB; a longer message on one stream is refused.
    max_message_bytes: Annotated[int, Whole(1024, 2**30)] = 4_194_304
    # What --echo holds for a peer that does not read: one message of the greatest size.
    echo_buffer_bytes: Annotated[int, Whole(1024, 2**30)] = 4_194_304


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """``[log]``: what is written to stderr, and how."""

    # Starts, stops, crashes and refusals; "debug" adds every connection.
    level: Annotated[str, Choice(LOG_LEVELS)] = "info"
    # "auto" writes for people on a terminal and JSON for everything else.
    format: Annotated[str, Choice(("auto", "json", "console"))] = "auto"
    # Levels for single modules, "supervisor" meaning "antquic_server.supervisor" and all below it.
    modules: Annotated[dict[str, str], Levels(LOG_LEVELS)] = field(default_factory=dict)
    # Ten lines a second of one kind of event: enough to see it, too few to fill a disk. 0 writes every line.
    repeat_burst: Annotated[int, Whole(0, 1_000_000)] = 100
    # Likewise; what was left out is summed up in one line at the end of each window.
    repeat_window_s: Annotated[float, Number(0.1, 3600)] = 10.0
    # Empty: none. With the secrets in this file whoever has recorded the traffic can read it.
    keylog: Annotated[str, PathText()] = ""
    # A line with the figures of the whole node: a minute shows what happened, and fills no disk.
    stats_interval_s: Annotated[float, Number(0, 86_400)] = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminSettings:
    """``[admin]``: health, status and metrics over HTTP, without authentication; the control socket for the owner."""

    # Loopback, one port above the node's own.
    listen: Annotated[str, ListenAddress()] = "127.0.0.1:10001"
    # The endpoint asks nobody who they are, so an address others can reach must be wished for twice.
    allow_remote: Annotated[bool, Flag()] = False
    # Empty: control-<pid>.sock in the runtime directory (``supervisor.control_socket``), so that nodes never collide.
    control: Annotated[str, PathText()] = ""
    # Addresses and localhost are always right; any other name could be a stranger's that points here.
    names: Annotated[tuple[str, ...], HostNames()] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """``[tls]``: the X.509 certificate for clients that do not take raw public keys; PEM files."""

    # Empty: a self-signed certificate, made at every start. Peers of ant-quic never see it.
    certificate: Annotated[str, PathText()] = ""
    # Belongs to ``certificate``.
    private_key: Annotated[str, PathText()] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentitySettings:
    """``[identity]``: the node key, from which the peer id follows."""

    # Empty: /var/lib/antquic-server/node.pem for root, the user's state directory for others.
    file: Annotated[str, PathText()] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole configuration: one attribute per TOML table."""

    endpoint: EndpointSettings = field(default_factory=EndpointSettings)
    pqc: PqcSettings = field(default_factory=PqcSettings)
    nat: NatSettings = field(default_factory=NatSettings)
    mtu: MtuSettings = field(default_factory=MtuSettings)
    relay: RelaySettings = field(default_factory=RelaySettings)
    limits: LimitsSettings = field(default_factory=LimitsSettings)
    log: LogSettings = field(default_factory=LogSettings)
    admin: AdminSettings = field(default_factory=AdminSettings)
    tls: TlsSettings = field(default_factory=TlsSettings)
    identity: IdentitySettings = field(default_factory=IdentitySettings)


@cache
def section_types() -> dict[str, type]:
    """Class of every section by its name, in the order of ``Settings``."""
    return {name: hint for name, hint in get_type_hints(Settings).items() if isinstance(hint, type)}


@cache
def rules_of(section: str) -> dict[str, Rule]:
    """Rule of every key of ``section``, in the order of its class; raises KeyError for an unknown section."""
    hints = get_type_hints(section_types()[section], include_extras=True)
    return {name: hint.__metadata__[0] for name, hint in hints.items()}


def to_plain(settings: Settings) -> dict[str, object]:
    """
    Turn settings into dictionaries, lists, numbers, strings and None, fit for msgpack or JSON.

    Returns:
        ``{section: {key: value}}`` with every key of every section.
    """
    plain: dict[str, object] = {}
    for name in section_types():
        section = getattr(settings, name)
        values = {item.name: getattr(section, item.name) for item in fields(section)}
        plain[name] = {key: _thaw(value) for key, value in values.items()}
    return plain


def changed_from_default(settings: Settings) -> dict[str, object]:
    """Return the defaults of all settings that have another value, by ``section.key``, as ``to_plain`` writes them."""
    defaults, chosen = _by_key(Settings()), _by_key(settings)
    return {key: default for key, default in defaults.items() if chosen[key] != default}


def from_plain(plain: dict[str, object]) -> Settings:
    """
    Rebuild what ``to_plain`` wrote, in another process of the same version.

    Raises:
        ConfigurationError: A section or key is missing, unknown or out of its limits: not our message.
    """
    source = "settings message"
    sections: dict[str, object] = {}
    for name, section_type in section_types().items():
        values = plain.get(name)
        rules = rules_of(name)
        if not isinstance(values, dict) or values.keys() != rules.keys():
            raise ConfigurationError(source, name, values, f"exactly the keys {', '.join(rules)}")
        accepted = {
            # None stands for an absent account here, which files write as an empty string.
            key: rule.accept(source, f"{name}.{key}", "" if values[key] is None else values[key])
            for key, rule in rules.items()
        }
        sections[name] = section_type(**accepted)
    if plain.keys() != sections.keys():
        raise ConfigurationError(source, "sections", sorted(plain), f"exactly {', '.join(sections)}")
    return Settings(**sections)  # type: ignore[arg-type]  # each section was made by the class of its name


def _by_key(settings: Settings) -> dict[str, object]:
    return {
        f"{name}.{item.name}": _thaw(getattr(getattr(settings, name), item.name))
        for name, section_type in section_types().items()
        for item in fields(section_type)
    }


def _thaw(value: object) -> object:
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, dict) else value
