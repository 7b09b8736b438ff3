"""What a peer is told: where it listens, whom it knows, and how hard it tries."""

from dataclasses import dataclass, fields, replace
from typing import Any, Final, Self

from antquic_server.config.model import Settings
from antquic_server.errors import AddressDecodeError, ConfigurationError
from antquic_server.protocol.address import SocketAddress

__all__ = ["PEER_DEFAULTS", "PeerSettings"]

HANDSHAKE_TIMEOUT_BASE_S: Final = 2.5
"""Times ``pqc.handshake_timeout_multiplier``: a dial into nothing is given up after five seconds."""

MAX_CONNECTIONS: Final = 256

PEER_DEFAULTS: Final = replace(Settings(), endpoint=replace(Settings().endpoint, max_connections=MAX_CONNECTIONS))
"""Settings of a configuration file that says nothing, for a peer: those of a node, but for fewer connections."""

_SOURCE = "peer settings"

_RANGES: dict[str, tuple[float, float]] = {
    "max_candidates": (1, 256),
    "discovery_timeout_s": (0.1, 300),
    "hole_punch_retries": (0, 20),
    "max_relays": (0, 100_000),
    "relay_after_s": (0, 300),
    "relay_timeout_s": (0.1, 300),
    "keep_alive_s": (0, 3600),
    "idle_timeout_s": (0.1, 3600),
    "dial_timeout_s": (0.1, 300),
    "max_connections": (1, 1_000_000),
    "max_message_bytes": (1, 1 << 30),
    "max_queued_messages": (1, 1 << 20),
    "max_queued_datagrams": (1, 1 << 20),
    "max_queued_streams": (1, 1 << 16),
    "pqc_pool_size": (1, 1000),
    "mtu_initial": (1200, 65527),
    "mtu_min": (1200, 65527),
    "mtu_max": (1200, 65527),
}
"""Smallest and largest value of each setting that is a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSettings:
    """
    Settings of one :class:`~antquic_server.peer.endpoint.Endpoint`; the defaults are those of an ant-quic peer.

    Raises ``ConfigurationError`` for a value outside its limits. :meth:`from_settings` takes them from a
    configuration file.
    """

    listen: tuple[str, ...] = ("0.0.0.0:0",)
    """Addresses to bind, ``a.b.c.d:port`` or ``[v6]:port``; port 0 takes a free one. One per family is enough."""
    identity_seed: bytes | None = None
    """The 32-byte seed of the peer's key; None makes a key that lives as long as the endpoint."""
    known_peers: tuple[str, ...] = ()
    """Nodes to connect to at the start, all at once; the last of those connected is asked for help first."""
    max_candidates: int = 10
    """Addresses dialled in one round of hole punching, and addresses of our own given to a coordinator."""
    discovery_timeout_s: float = 10.0
    """How long ``connect_peer`` tries before it fails with a reason."""
    hole_punch_retries: int = 3
    """Rounds after the first, as far as they fit into ``discovery_timeout_s``."""
    enable_symmetric_nat: bool = True
    """
    From the second round on, also dial the ports that a sequential symmetric NAT would have given out next, and in
    the order that our own NAT, as far as it has been observed, makes necessary.
    """
    accept_introductions: bool = True
    """Dial peers that a node introduces to us unasked; without it nobody can punch a hole to us."""
    relay: str = "auto"
    """
    ``auto`` has a node carry a connection that hole punching does not bring about, and moves it to a direct path once
    there is one; ``never`` neither asks for that nor takes part in it; ``only`` does not punch at all.
    """
    accept_relays: bool = True
    """Let peers reach us through a node where they cannot otherwise."""
    max_relays: int = 64
    """Relay channels at a time; further offers are declined."""
    relay_after_s: float = 5.0
    """How long to punch before a node with channels is asked to carry the connection; two rounds, by default."""
    relay_timeout_s: float = 12.0
    """How long ``connect_peer`` tries to have a node carry the connection, after ``discovery_timeout_s``."""
    relay_listen: bool = False
    """Keep a relay at a node, so that anybody can dial us at an address of that node; for peers that know no more."""
    keep_alive_s: float = 15.0
    """Silence after which a PING keeps the NAT mapping; 0 sends none."""
    idle_timeout_s: float = 30.0
    """Silence of the other side after which a connection is given up."""
    dial_timeout_s: float = 5.0
    """How long ``connect`` waits for a handshake."""
    max_connections: int = MAX_CONNECTIONS
    """Connections at a time; further ones are not accepted."""
    max_message_bytes: int = 4 << 20
    """Longest message sent or received, as in ant-quic."""
    max_queued_messages: int = 1024
    """Messages of one peer that wait for ``recv_message``; further ones are dropped and counted."""
    max_queued_datagrams: int = 1024
    """Datagrams of one peer that wait for ``recv_datagram``; further ones are dropped and counted."""
    max_queued_streams: int = 128
    """Streams of one peer that wait for ``accept_stream``; further ones are reset and counted."""
    pqc_provider: str = "auto"
    """Post-quantum provider: auto, liboqs or cryptography."""
    pqc_mode: str = "require"
    """``any`` admits peers that dial us with a classical key exchange; we ourselves never offer one."""
    pqc_pool_size: int = 10
    """Contexts kept ready."""
    mtu_initial: int = 1200
    """Datagrams of the handshake, in bytes of UDP payload as the two below; between ``mtu_min`` and ``mtu_max``."""
    mtu_min: int = 1200
    """What a connection falls back to when its path changes or stops carrying what it did."""
    mtu_max: int = 1452
    """Largest datagram that path MTU discovery may find; nothing larger is sent, probes included."""

    @classmethod
    def from_settings(cls, settings: Settings, **others: Any) -> Self:
        """
        Make the settings of a peer from a configuration file's.

        Of ``[endpoint]`` the connections' keys are taken, of ``[pqc]``, ``[nat]`` and ``[mtu]`` all that concern a
        peer; ``others`` are fields that no file has.
        """
        endpoint, pqc, nat, mtu = settings.endpoint, settings.pqc, settings.nat, settings.mtu
        return cls(
            max_connections=endpoint.max_connections,
            idle_timeout_s=endpoint.idle_timeout_s,
            keep_alive_s=endpoint.keep_alive_s,
            dial_timeout_s=HANDSHAKE_TIMEOUT_BASE_S * pqc.handshake_timeout_multiplier,
            pqc_provider=pqc.provider,
            pqc_mode=pqc.mode,
            pqc_pool_size=pqc.memory_pool_size,
            max_candidates=nat.max_candidates,
            discovery_timeout_s=nat.discovery_timeout_s,
            hole_punch_retries=nat.hole_punch_retries,
            enable_symmetric_nat=nat.enable_symmetric_nat,
            mtu_initial=mtu.initial,
            mtu_min=mtu.min,
            mtu_max=mtu.max,
            **others,
        )

    def __post_init__(self) -> None:
        for item in fields(self):
            limits = _RANGES.get(item.name)
            value = getattr(self, item.name)
            if limits is not None and not limits[0] <= value <= limits[1]:
                raise ConfigurationError(_SOURCE, item.name, value, f"{limits[0]} to {limits[1]}")
        for name, least, most in (("mtu_min", 0, self.mtu_max), ("mtu_initial", self.mtu_min, self.mtu_max)):
            if not least <= getattr(self, name) <= most:
                expected = "mtu_min <= mtu_initial <= mtu_max"
                raise ConfigurationError(_SOURCE, name, getattr(self, name), expected)
        if self.pqc_mode not in ("require", "any"):
            raise ConfigurationError(_SOURCE, "pqc_mode", self.pqc_mode, "'require' or 'any'")
        if self.relay not in ("auto", "never", "only"):
            raise ConfigurationError(_SOURCE, "relay", self.relay, "'auto', 'never' or 'only'")
        if not self.listen:
            raise ConfigurationError(_SOURCE, "listen", self.listen, "at least one address")
        for name in ("listen", "known_peers"):
            for text in getattr(self, name):
                try:
                    SocketAddress.parse(text)
                except AddressDecodeError as exc:
                    raise ConfigurationError(_SOURCE, name, text, "addresses like 192.0.2.1:443") from exc
