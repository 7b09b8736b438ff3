"""One connection as a worker sees it: the QUIC state machine, its IDs in the table, its deadlines."""

from enum import Enum

from antquic_server.net.udp import PathAddress
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.limits import TokenBucket
from antquic_server.protocol.seam.connection import NodeQuicConnection

MAX_HANDSHAKE_DATAGRAMS = 64
"""Per connection, until its handshake is complete. An ant-quic peer sends about ten; this leaves room for several
repetitions of each."""


CANDIDATE_REPORTS_PER_S = 0.2
CANDIDATE_REPORT_BURST = 20.0
"""How often the hub hears that a peer's advertised addresses have changed; an honest one has a few, at the start."""


class StreamOwner(Enum):
    """Who gets what arrives on a unidirectional stream that carries no message of the node's own."""

    APPLICATION = "application"
    NOBODY = "nobody"


class Connection:
    """
    A QUIC connection with what the endpoint keeps about it.

    ``number`` is unique within the worker and names the connection towards the hub. ``path`` is the one the peer
    uses now. ``started_s`` is when its first packet was let in, in monotonic seconds.
    """

    __slots__ = (
        "_candidate_reports",
        "_candidates",
        "bytes_received",
        "bytes_sent",
        "channel_rates",
        "connection_ids",
        "control_streams",
        "handshake_datagrams",
        "handshake_deadline_s",
        "keep_alive_at_s",
        "number",
        "path",
        "peer_id",
        "punch_report_rate",
        "quic",
        "ready",
        "reported_bytes_received",
        "reported_bytes_sent",
        "service_state",
        "started_s",
        "timer_at_s",
        "timer_entries_s",
    )

    def __init__(
        self,
        *,
        number: int,
        quic: NodeQuicConnection,
        path: PathAddress,
        handshake_deadline_s: float,
        started_s: float = 0.0,
    ) -> None:
        self.number = number
        self.started_s = started_s
        self.quic = quic
        self.path = path
        self.handshake_deadline_s: float | None = handshake_deadline_s
        self.handshake_datagrams = 0
        """Datagrams received before the handshake was complete."""
        self.keep_alive_at_s: float | None = None
        self.bytes_received = 0
        self.bytes_sent = 0
        """UDP payload of the whole connection; what ``talkers`` has reported of it stands in the next two."""
        self.reported_bytes_received = 0
        self.reported_bytes_sent = 0
        self.connection_ids: set[bytes] = set()
        self.control_streams: dict[int, bytes | StreamOwner] = {}
        """By unidirectional stream: the beginning of what may be a message for the node, or whose the stream is."""
        self.channel_rates: object = None
        """Belongs to ``channel_control``."""
        self.peer_id: bytes | None = None
        self.punch_report_rate: TokenBucket | None = None
        """Belongs to ``punch_reports``."""
        self.ready = False
        """The handshake is complete."""
        self.service_state: object = None
        """Belongs to the service that handles the connection's streams."""
        self.timer_at_s: float | None = None
        self.timer_entries_s: list[float] = []
        self._candidates: tuple[SocketAddress, ...] = ()
        self._candidate_reports: TokenBucket | None = None

    @property
    def proven_host(self) -> str:
        """
        The peer's address as far as it is proven: what limits by address are charged to; empty before any is.

        ``path`` follows the peer at once, and so names whatever address it writes into a packet, whosever that is.
        """
        proven = self.quic.validated_address
        return "" if proven is None else str(SocketAddress.from_host(proven[0], 0).normalised().host)

    def take_handshake_datagram(self) -> bool:
        """Count a datagram towards the handshake's budget; False once that is spent."""
        # Repeating one Initial for ever must not cost more than a look at the table.
        self.handshake_datagrams += 1
        return self.handshake_datagrams <= MAX_HANDSHAKE_DATAGRAMS

    def take_candidate_report(self, now_s: float) -> bool:
        """Return whether to report changed candidates now, and consider it done; too many changes have to wait."""
        candidates = tuple(self.quic.candidates)
        if candidates == self._candidates:
            return False
        if self._candidate_reports is None:
            self._candidate_reports = TokenBucket(CANDIDATE_REPORTS_PER_S, CANDIDATE_REPORT_BURST)
        if not self._candidate_reports.take(now_s):
            return False
        self._candidates = candidates
        return True

    def next_deadline_s(self) -> float | None:
        """The earliest of QUIC's own timer, the handshake deadline and the keep-alive."""
        deadline_s: float | None = self.quic.get_timer()
        for other_s in (self.handshake_deadline_s, self.keep_alive_at_s):
            if other_s is not None and (deadline_s is None or other_s < deadline_s):
                deadline_s = other_s
        return deadline_s
