"""
What supervisor and worker say to each other about relaying; ``messages`` has the timeline.

Messages from the hub that a peer is to be told of end in ``Out``, those that repeat what a peer has said in ``In``.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayReserve:
    """
    A peer of this worker asks for a relay session; ``session`` is unique within the worker.

    ``host`` is the peer's numeric address, which its prefix follows from: one that it has proven to be its own.
    """

    session: int
    peer_id: bytes
    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayReserved:
    """
    The hub's answer: the limit that refuses the session, or how fast it may be.

    ``refusal`` is a ``protocol.relay_limits.Refusal`` or empty; the hub has counted it in ``relay_refusals``, a worker
    counts what it refuses by itself. Rates are bytes per second of both directions together, ``burst_bytes`` what may
    pass at once after a silence, ``start_bytes`` what may at the very beginning; less than nothing is a debt.
    """

    session: int
    refusal: str
    rate_bytes_per_s: float = 0.0
    burst_bytes: float = 0.0
    start_bytes: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayAddress:
    """A stream session has its port: whatever is sent to ``address`` (text with port) reaches its peer."""

    session: int
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayReleased:
    """
    A session has ended, after ``moved_bytes`` more than last reported.

    The hub counts the session until it is told, so a worker whose queue is full has to say it again.
    """

    session: int
    moved_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayUsage:
    """Bytes that sessions have moved since the last report, in two lists of one length; only those that moved any."""

    sessions: list[int]
    moved_bytes: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayRate:
    """A session may be this fast from now on: its peer has opened or closed others, or limits have changed."""

    session: int
    rate_bytes_per_s: float
    burst_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayRevoked:
    """A session has to end; ``reason`` is a ``protocol.relay_limits.Refusal``."""

    session: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayShare:
    """All relay sessions of the worker together may be this fast: its part of ``relay.bandwidth_bytes_per_s``."""

    rate_bytes_per_s: float
    burst_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelAsk:
    """
    The peer of ``connection`` asks for a channel to ``target``; ``host`` is its numeric address, which it has proven.

    Answered with :class:`ChannelOpenedOut` or :class:`ChannelRefusedOut`, which repeat ``connection``, ``request_id``
    and ``target``.
    """

    connection: int
    peer_id: bytes
    host: str
    request_id: int
    target: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelCreate:
    """
    Own this channel: ``initiator_key`` and ``target_key`` prove its legs (``protocol.relay_channel``).

    Rates are as in :class:`RelayReserved`. For :class:`RelayUsage`, :class:`RelayRate` and
    :class:`RelayRevoked` the number of a channel's session is its ``channel_id``, read as a big-endian integer with bit
    56 set, which no stream session's number has.
    """

    channel_id: bytes
    initiator_key: bytes
    target_key: bytes
    rate_bytes_per_s: float
    burst_bytes: float
    start_bytes: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelCreated:
    """The owner has it; ``refusal`` is empty, or says why not."""

    channel_id: bytes
    refusal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelOfferOut:
    """Ask the peer ``target``, on ``connection``, whether ``initiator`` may reach it by this channel."""

    connection: int
    target: bytes
    initiator: bytes
    channel_id: bytes
    key: bytes
    token: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelAnswerIn:
    """The peer ``peer_id`` has answered an offer."""

    peer_id: bytes
    channel_id: bytes
    accepted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelOpenedOut:
    """Tell the peer ``peer_id``, on ``connection``, that its channel is there."""

    connection: int
    peer_id: bytes
    request_id: int
    target: bytes
    channel_id: bytes
    key: bytes
    token: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelRefusedOut:
    """Tell the peer ``peer_id``, on ``connection``, which limit or rule forbids the channel."""

    connection: int
    peer_id: bytes
    request_id: int
    target: bytes
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelHangUp:
    """The peer ``peer_id`` does not want the channel any more."""

    peer_id: bytes
    channel_id: bytes
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelEnded:
    """
    The owner has ended a channel by itself: nobody used it; ``moved_bytes`` since last reported.

    ``owed_bytes`` have passed before it was their time: the last train of a channel may be longer than what it might
    still send.
    """

    channel_id: bytes
    reason: str
    moved_bytes: int
    owed_bytes: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelDestroy:
    """End this channel; the owner answers with :class:`ChannelEnded`."""

    channel_id: bytes
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelClosedOut:
    """Tell the peer ``peer_id``, on ``connection``, that a channel has ended."""

    connection: int
    peer_id: bytes
    channel_id: bytes
    reason: str
