"""What a connection of ours is told to do beyond aioquic."""

from collections.abc import Callable
from dataclasses import dataclass, field

from antquic_server.protocol.parameters import ExtensionParameters
from antquic_server.protocol.seam.tls_context import TlsOptions


@dataclass(slots=True, kw_only=True)
class Tally:
    """What many connections count together; the one mutable part of their options."""

    undecryptable_packets: int = 0
    """Packets dropped because they did not decrypt: damaged or forged."""
    packets_without_key: int = 0
    """Packets dropped because their key is not there yet, or no longer: early, or repeated late."""
    observed_addresses_sent: int = 0
    """OBSERVED_ADDRESS frames written, repeats included."""
    mtu_probes_sent: int = 0
    mtu_probes_lost: int = 0
    """Probes that did not arrive, those the kernel refused included."""
    mtu_black_holes: int = 0
    """Times a path stopped to carry the size in use."""
    mtu_datagram_frames_dropped: int = 0
    """DATAGRAM frames that waited to be sent when the size shrank below them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOptions:
    """
    What a connection of ours does beyond aioquic; each None leaves aioquic's behaviour in place.

    ``new_connection_id`` and ``stateless_reset_token`` make the IDs we issue routable and resettable.
    ``stream_window_bytes`` and ``connection_window_bytes`` replace aioquic's windows, which double for as long as
    data flows, by sliding ones; they stop sliding while more than ``max_backlog_bytes`` wait to be sent or are held
    by the application, so a peer that sends and never reads costs a bounded amount of memory.
    ``mtu_initial`` replaces the datagram size of aioquic's configuration. ``mtu_max`` switches path MTU discovery on:
    it is the largest datagram, also the largest probe, and ``mtu_min`` (None: 1200) is what a connection falls back
    to. All are UDP payload in bytes, 1200 <= min <= initial <= max.
    ``key_update_packets`` is after how many packets a connection with ``tls`` takes new keys; half of what RFC 9001,
    section 6.6 allows for AES-GCM.
    """

    tls: TlsOptions | None = None
    extensions: ExtensionParameters | None = None
    max_candidates: int = 10
    new_connection_id: Callable[[], bytes] | None = None
    stateless_reset_token: Callable[[bytes], bytes] | None = None
    stream_window_bytes: int | None = None
    connection_window_bytes: int | None = None
    max_backlog_bytes: int = 1 << 22
    tally: Tally = field(default_factory=Tally)
    mtu_initial: int | None = None
    mtu_min: int | None = None
    mtu_max: int | None = None
    key_update_packets: int = 1 << 22


DEFAULT_OPTIONS = ConnectionOptions()
"""What a connection without options of its own gets: aioquic's behaviour, unchanged."""
