"""
What supervisor and worker say to each other.

The conversation, as a timeline (S supervisor, W worker; one channel per worker)::

    W → S  Hello             version of these messages, process id; a stranger is refused
    S → W  Assign            "you are slot 2": settings, secrets, which descriptors to read
    W → S  Ready             the worker reads its sockets now
    W → S  Heartbeat         every heartbeat interval, from the worker's own event loop
    S → W  HeartbeatAck      what the worker must know of the others
    W → S  PeerUp, PeerDown  authenticated peers come and go (the hub's directory)
    W → S  Introduce         a peer here asks for another: the hub passes it to the worker that has the other
    S → W  Introduce         … which tells its peer, and answers
    W → S  Introduced        … to the hub, which passes the answer back
    S → W  Introduced        … to the worker that asked
    W → S  PunchReported     a peer here says how its attempt to meet another has ended
    W → S  RelayReserve      a peer here wants a relay session: may it?
    S → W  RelayReserved     yes and how fast, or which limit forbids it
    W → S  RelayAddress      where a stream session is reached
    W → S  RelayUsage, RelayReleased         what sessions have moved, and that one has ended
    S → W  RelayRate, RelayRevoked           a session's new rate, or its end
    S → W  RelayShare        how much all sessions of the worker together may move
    W → S  ChannelAsk        a peer here wants a channel to another
    S → W  ChannelCreate     the worker that is to own it makes it
    W → S  ChannelCreated    … and the hub asks the target
    S → W  ChannelOfferOut   … through the worker that has the target
    W → S  ChannelAnswerIn   … which passes the target's answer on
    S → W  ChannelOpenedOut, ChannelRefusedOut      what the worker tells the initiator
    W → S  ChannelHangUp     a peer here has closed a channel
    W → S  ChannelEnded      the owner says that one has ended
    S → W  ChannelDestroy    the owner is to end one
    S → W  ChannelClosedOut  a peer here is to be told that a channel has ended
    W → S  TopTalkers        the peers that move the most bytes here, every two seconds
    S → W  LimitsChanged     limits that may change while the node runs
    S → W  LogLevels         levels that hold from now on
    S → W  CertificateChanged    the certificate for connections from now on
    S → W  QlogStart, QlogStop    the connections of a peer are to be traced, or no longer
    W → S  QlogWritten, QlogEnded    the trace of one connection is complete, or all of them
    S → W  Drain             stop accepting, close connections, then leave
    W → S  Drained           nothing is left; the process exits
    W → S  BootFailed        the worker cannot start and says why

A process is started without a slot and receives one by ``Assign``: a spare that has done its imports can
so replace a dead worker in milliseconds.

Every message is a frozen dataclass of plain values. ``codec`` writes one as a msgpack array
``[kind, field, field, …]`` in the order of the fields, so fields are only ever appended, with a default, and
``VERSION`` rises when that is not enough.
"""

from dataclasses import dataclass, field

from antquic_server.ipc.log_messages import LogLevels, QlogEnded, QlogStart, QlogStop, QlogWritten
from antquic_server.ipc.punch_messages import PunchReported
from antquic_server.ipc.relay_messages import (
    ChannelAnswerIn,
    ChannelAsk,
    ChannelClosedOut,
    ChannelCreate,
    ChannelCreated,
    ChannelDestroy,
    ChannelEnded,
    ChannelHangUp,
    ChannelOfferOut,
    ChannelOpenedOut,
    ChannelRefusedOut,
    RelayAddress,
    RelayRate,
    RelayReleased,
    RelayReserve,
    RelayReserved,
    RelayRevoked,
    RelayShare,
    RelayUsage,
)
from antquic_server.ipc.talker_messages import TopTalkers

VERSION = 1

MAX_MESSAGE_BYTES = 1 << 22
"""A settings message is about 20 kB, a statistics snapshot about 10 kB; 4 MiB is never reached honestly."""

Counters = dict[str, float]
"""Flat counter snapshot; keys as in ``stats.counters`` (``name`` or ``name|label|label``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """First message of a worker."""

    version: int
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketDescriptor:
    """One inherited UDP socket: ``fd``, its family (``AF_INET``/``AF_INET6`` number) and bound address."""

    fd: int
    family: int
    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Assign:
    """
    The slot a worker takes over, with everything it needs to serve it.

    ``settings`` is the configuration model in plain values (``config.model.to_plain``). ``identity_seed`` is the
    32-byte ML-DSA-65 seed of the node key, ``root_secret`` 32 random bytes of this supervisor, from which Retry
    token keys are derived. ``steering_fds[i]`` sends a stray datagram to slot ``i``; ``steering_fd`` receives those
    for this slot. ``cpu`` is the core to pin to, -1 for none. ``generation`` counts the workers this slot has had.
    """

    slot: int
    worker_count: int
    generation: int
    cpu: int
    settings: dict[str, object]
    identity_seed: bytes
    root_secret: bytes
    certificate_pem: bytes
    certificate_key_pem: bytes
    sockets: list[SocketDescriptor]
    steering_fd: int
    steering_fds: list[int]
    echo: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateChanged:
    """The X.509 certificate was renewed; connections that begin from now on get this one. Both as in ``Assign``."""

    certificate_pem: bytes
    certificate_key_pem: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The worker serves its slot."""

    slot: int
    generation: int
    pqc_provider: str
    offloads: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class BootFailed:
    """The worker cannot start; ``reason`` is one line for the operator."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """Sign of life from the worker's own event loop, with its cumulative counters and current gauges."""

    sequence: int
    connections: int
    handshakes_in_flight: int
    loop_lag_s: float
    counters: Counters


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatAck:
    """Answer to a heartbeat: connections held by all other workers together."""

    sequence: int
    connections_elsewhere: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerUp:
    """
    An authenticated peer has a connection here, or has moved; ``connection`` is unique within the worker.

    ``readable`` is False for a connection on which the peer does not read what we send (a bare request);
    ``channels`` says that it knows relay channels. ``advertised`` are the addresses it has advertised on it, at most
    ``nat.max_candidates``, ``reached_at`` is the address of ours that it sends to.
    """

    peer_id: bytes
    connection: int
    host: str
    port: int
    readable: bool = True
    channels: bool = False
    advertised: list[str] = field(default_factory=list)
    reached_at: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerDown:
    """That connection is gone."""

    peer_id: bytes
    connection: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Introduced:
    """
    How an :class:`Introduce` ended; its fields are repeated, so that the asking worker need not remember them.

    ``reason`` is empty if both sides were given addresses, else a ``RejectionReason``.
    """

    request_id: int
    expires_at_unix_ms: int
    round: int
    initiator: bytes
    target: bytes
    slot: int
    connection: int
    reason: str
    initiator_address: str = ""
    target_address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Introduce:
    """
    A peer of the sending worker asks to be introduced to another.

    ``connection`` is the one it asked on; ``address`` and ``advertised`` say where it can be reached, as text. The hub
    fills in ``slot`` (of the asking worker) and ``target_connection`` before it passes the message on, and leaves in
    ``advertised``, or puts in ``target_advertised``, the one address to be used where the families differ. Where the
    target is reached through a relay session, ``target_relay`` is named to the initiator instead of what the worker
    sees.
    """

    request_id: int
    expires_at_unix_ms: int
    round: int
    initiator: bytes
    target: bytes
    connection: int
    address: str
    advertised: list[str]
    slot: int = -1
    target_connection: int = -1
    target_advertised: list[str] = field(default_factory=list)
    target_relay: str = ""

    def answer(self, *, reason: str = "", initiator_address: str = "", target_address: str = "") -> Introduced:
        """Return the answer: a reason to refuse, or one address of each side."""
        return Introduced(
            request_id=self.request_id,
            expires_at_unix_ms=self.expires_at_unix_ms,
            round=self.round,
            initiator=self.initiator,
            target=self.target,
            slot=self.slot,
            connection=self.connection,
            reason=reason,
            initiator_address=initiator_address,
            target_address=target_address,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Stop accepting, close every connection with an application close, leave within ``deadline_s``."""

    deadline_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """The worker has closed ``connections`` connections and is about to exit."""

    connections: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsChanged:
    """The operator has changed limits; ``settings`` are all settings in plain values, as in :class:`Assign`."""

    settings: dict[str, object]


Message = (
    Hello
    | Assign
    | Ready
    | BootFailed
    | Heartbeat
    | HeartbeatAck
    | PeerUp
    | PeerDown
    | Introduce
    | Introduced
    | Drain
    | Drained
    | RelayReserve
    | RelayReserved
    | RelayReleased
    | RelayUsage
    | RelayRate
    | RelayRevoked
    | LimitsChanged
    | CertificateChanged
    | RelayShare
    | ChannelAsk
    | ChannelCreate
    | ChannelCreated
    | ChannelOfferOut
    | ChannelAnswerIn
    | ChannelOpenedOut
    | ChannelRefusedOut
    | ChannelHangUp
    | ChannelEnded
    | ChannelDestroy
    | ChannelClosedOut
    | RelayAddress
    | LogLevels
    | QlogStart
    | QlogStop
    | QlogWritten
    | QlogEnded
    | PunchReported
    | TopTalkers
)

KINDS: dict[int, type[Message]] = {
    0: Hello,
    1: Assign,
    2: Ready,
    3: BootFailed,
    4: Heartbeat,
    5: HeartbeatAck,
    6: PeerUp,
    7: PeerDown,
    8: Drain,
    9: Drained,
    10: Introduce,
    11: Introduced,
    12: CertificateChanged,
    20: RelayReserve,
    21: RelayReserved,
    22: RelayReleased,
    23: RelayUsage,
    24: RelayRate,
    25: RelayRevoked,
    26: LimitsChanged,
    27: RelayShare,
    30: ChannelAsk,
    31: ChannelCreate,
    32: ChannelCreated,
    33: ChannelOfferOut,
    34: ChannelAnswerIn,
    35: ChannelOpenedOut,
    36: ChannelRefusedOut,
    37: ChannelHangUp,
    38: ChannelEnded,
    39: ChannelDestroy,
    40: ChannelClosedOut,
    45: RelayAddress,
    50: PunchReported,
    55: TopTalkers,
    60: LogLevels,
    61: QlogStart,
    62: QlogStop,
    63: QlogWritten,
    64: QlogEnded,
}
"""Wire number of each message; numbers are never reused."""
