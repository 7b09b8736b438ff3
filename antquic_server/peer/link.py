"""One QUIC connection as a peer keeps it: the state machine, whose it is, its deadlines, its first flight."""

from collections.abc import Sequence
from typing import Any, Protocol

from antquic_server.peer.relay_paths import is_relayed
from antquic_server.protocol.address import SocketAddress

__all__ = ["BURST_OFFSETS_S", "Link", "Path", "Quic"]

BURST_OFFSETS_S = (0.05, 0.15, 0.35, 0.75, 1.35)
"""
When the first flight is repeated, after it was first sent.

Two sides that were introduced begin to dial within half a round trip of each other, and whoever is first has its first
packets thrown away by the other's NAT. Probes of QUIC itself follow only after 200 ms and then ever more slowly.
"""

Path = Any
"""Where datagrams go: a tuple that begins with host and port; opaque otherwise."""


class Quic(Protocol):
    """What a link needs of ``NodeQuicConnection``; tests put something cheaper here."""

    held_by_application_bytes: int
    observed_by_peer: Any
    remote_extensions: Any

    @property
    def handshake_complete(self) -> bool:
        """See ``NodeQuicConnection``, as for all of these."""

    @property
    def is_pristine(self) -> bool: ...  # noqa: D102

    @property
    def path_mtu_bytes(self) -> int: ...  # noqa: D102

    @property
    def unanswered_probes(self) -> int: ...  # noqa: D102

    @property
    def is_closing(self) -> bool: ...  # noqa: D102

    @property
    def can_migrate(self) -> bool: ...  # noqa: D102

    @property
    def open_streams(self) -> int: ...  # noqa: D102

    @property
    def close_code(self) -> int | None: ...  # noqa: D102

    @property
    def close_reason(self) -> str: ...  # noqa: D102

    @property
    def peer_public_key(self) -> bytes | None: ...  # noqa: D102

    @property
    def issued_connection_ids(self) -> list[bytes]: ...  # noqa: D102

    @property
    def peer_reset_tokens(self) -> list[bytes]: ...  # noqa: D102

    def connect(self, addr: Any, now: float) -> None: ...  # noqa: D102
    def receive_datagram(self, data: bytes, addr: Any, now: float) -> None: ...  # noqa: D102
    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Any]]: ...  # noqa: D102
    def next_event(self) -> Any: ...  # noqa: D102
    def get_timer(self) -> float | None: ...  # noqa: D102
    def handle_timer(self, now: float) -> None: ...  # noqa: D102
    def get_peer_address(self) -> Any: ...  # noqa: D102
    def use_path(self, addr: Any, now: float) -> None: ...  # noqa: D102
    def send_ping(self, uid: int) -> None: ...  # noqa: D102
    def send_message(self, data: bytes) -> bool: ...  # noqa: D102
    def send_datagram_frame(self, data: bytes) -> None: ...  # noqa: D102
    def stop_stream(self, stream_id: int, error_code: int) -> None: ...  # noqa: D102
    def reset_stream(self, stream_id: int, error_code: int) -> None: ...  # noqa: D102
    def get_next_available_stream_id(self) -> int: ...  # noqa: D102
    def send_stream_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None: ...  # noqa: D102
    def stream_is_writable(self, stream_id: int) -> bool: ...  # noqa: D102
    def stream_backlog_bytes(self, stream_id: int) -> int: ...  # noqa: D102
    def send_backlog_bytes(self) -> int: ...  # noqa: D102
    def advertise_address(self, frame: Any) -> None: ...  # noqa: D102
    def is_on_path(self, addr: Any) -> bool: ...  # noqa: D102
    def probe_path(self, addr: Any) -> bool: ...  # noqa: D102
    def abandon_path(self, addr: Any) -> None: ...  # noqa: D102
    def close(self, error_code: int = 0, frame_type: int | None = None, reason_phrase: str = "") -> None: ...  # noqa: D102
    def abandon(self, code: int, reason: str) -> None: ...  # noqa: D102
    def export_keying_material(self, label: bytes, context: bytes, length: int) -> bytes: ...  # noqa: D102


class Link:
    """
    A connection with what the peer library keeps about it.

    ``number`` is unique within the endpoint. ``dialled`` is the address we dialled, None for one that was accepted.
    ``expected_peer_id`` is whom we dialled, None when anybody will do. ``introduced`` marks dials of a hole punch,
    ``is_node`` connections on which introductions are asked for and believed.
    """

    __slots__ = (
        "address_proven",
        "bursts_left_s",
        "closed",
        "connection_ids",
        "coordinates",
        "dialled",
        "drain_at_s",
        "expected_peer_id",
        "first_flight",
        "handshake_deadline_s",
        "introduced",
        "is_node",
        "keep_alive_at_s",
        "last_data_s",
        "last_received_s",
        "look_again_at_s",
        "number",
        "partial_messages",
        "path",
        "peer_id",
        "probing",
        "punched",
        "quic",
        "ready",
        "relayed_by",
        "silence_at_s",
        "spare",
        "superseded_at_s",
        "timer_at_s",
        "why_not_direct",
    )

    def __init__(
        self,
        *,
        number: int,
        quic: Quic,
        path: Path,
        handshake_deadline_s: float | None,
        dialled: SocketAddress | None = None,
        expected_peer_id: bytes | None = None,
        introduced: bool = False,
        is_node: bool = False,
        address_proven: bool = False,
    ) -> None:
        self.number = number
        self.quic = quic
        self.path = path
        self.dialled = dialled
        self.expected_peer_id = expected_peer_id
        self.introduced = introduced
        self.is_node = is_node
        self.address_proven = address_proven
        """A client came back with the token of a Retry."""
        self.handshake_deadline_s: float | None = handshake_deadline_s
        self.keep_alive_at_s: float | None = None
        self.drain_at_s: float | None = None
        """When a superseded connection is closed, if nothing moves on it any more."""
        self.last_data_s = 0.0
        """When stream data last arrived."""
        self.last_received_s = 0.0
        """When anything last arrived."""
        self.silence_at_s: float | None = None
        """When to ask whether the other side is still there, if no more data has come; see ``peer.recovery``."""
        self.look_again_at_s = 0.0
        """When the peer may be looked for anew, should it not answer; see ``peer.recovery``."""
        self.superseded_at_s = 0.0
        self.timer_at_s: float | None = None
        """When it wants to be woken; the table's bookkeeping."""
        self.peer_id: bytes | None = None
        self.ready = False
        """The handshake is complete and the peer is known."""
        self.punched = False
        """It came about through an introduction."""
        self.coordinates = False
        """It has answered or introduced us: a node, not just somebody whose address we knew."""
        self.spare = False
        """It only shows a way for the live connection, and carries nothing."""
        self.why_not_direct: str | None = None
        """Why it is relayed, as far as we know: a word of ``punching.Failure``."""
        self.relayed_by: bytes | None = None
        """Peer id of the node that carries it."""
        self.probing: list[Path] = []
        """Further paths by which the other side may answer: those the connection may move to."""
        self.closed = False
        self.connection_ids: set[bytes] = set()
        self.partial_messages: dict[int, bytearray] = {}
        """Unidirectional streams that have not ended yet."""
        self.first_flight: list[bytes] = []
        self.bursts_left_s: list[float] = []
        """When the first flight is to be repeated, latest first."""

    @property
    def relayed(self) -> bool:
        """Whether a node carries it now."""
        return is_relayed(self.path)

    def known_path(self, path: Path) -> Path:
        """Return our own form of a path: the same place may be described by the kernel instead of by us."""
        if not is_relayed(path):
            for known in (self.path, *self.probing):
                if path[:2] == known[:2] and not is_relayed(known):
                    return known
        return path

    @property
    def dialled_by_us(self) -> bool:
        """Whether we are the client."""
        return self.dialled is not None

    @property
    def last_progress_s(self) -> float:
        """When stream data last arrived or, as long as there is some to send, anything: it may be acknowledged."""
        return self.last_received_s if self.quic.send_backlog_bytes() else self.last_data_s

    def keep_first_flight(self, datagrams: Sequence[bytes], now_s: float) -> None:
        """Remember what a dial began with, and plan to repeat it."""
        self.first_flight = list(datagrams)
        self.burst_again(now_s)

    def burst_again(self, now_s: float) -> None:
        """Plan the repetitions anew."""
        self.bursts_left_s = [now_s + offset_s for offset_s in reversed(BURST_OFFSETS_S)]

    def forget_first_flight(self) -> None:
        """Repeat it no more: QUIC itself repeats what is needed."""
        self.bursts_left_s.clear()
        self.first_flight = []

    def take_burst(self, now_s: float) -> list[bytes]:
        """Return the first flight if it is time to repeat it and nobody has answered yet."""
        if not self.quic.is_pristine:
            self.forget_first_flight()
            return []
        due = False
        while self.bursts_left_s and self.bursts_left_s[-1] <= now_s:
            self.bursts_left_s.pop()
            due = True
        return self.first_flight if due else []

    def next_deadline_s(self) -> float | None:
        """The earliest of all deadlines of this connection."""
        times = [self.quic.get_timer(), self.handshake_deadline_s, self.keep_alive_at_s, self.drain_at_s]
        times.append(self.silence_at_s)
        if self.bursts_left_s:
            times.append(self.bursts_left_s[-1])
        return min((at_s for at_s in times if at_s is not None), default=None)
