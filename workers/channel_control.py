"""
Tells peers and the hub of each other's wishes about relay channels.

What a peer says comes on unidirectional streams (``protocol.relay_control``), and only an authenticated peer that has
declared the transport parameter ``relay_channels`` is listened to. What is decided about it is the hub's business.
"""

from typing import Final

from antquic_server.errors import RelayDecodeError
from antquic_server.ipc.relay_messages import (
    ChannelAnswerIn,
    ChannelAsk,
    ChannelClosedOut,
    ChannelHangUp,
    ChannelOfferOut,
    ChannelOpenedOut,
    ChannelRefusedOut,
)
from antquic_server.protocol.limits import TokenBucket
from antquic_server.protocol.relay_control import (
    ChannelAnswer,
    ChannelClosed,
    ChannelMessage,
    ChannelOffer,
    ChannelOpened,
    ChannelRefused,
    ChannelRequest,
    decode_channel_message_untrusted,
    encode_channel_message,
)
from antquic_server.protocol.relay_limits import Refusal, RelayMode
from antquic_server.stats.counters import CounterSet
from workers.connection import Connection
from workers.coordination import Surroundings

REQUESTS_PER_S: Final = 2.0
REQUESTS_BURST: Final = 16.0
"""Of one connection. A peer asks when punching has failed, which takes it seconds, and again after a worker's death for
each channel it had there."""

MESSAGES_PER_S: Final = 20.0
MESSAGES_BURST: Final = 200.0
"""Of any kind, of one connection; beyond it they are not even read. A popular peer answers many offers."""

FromHub = ChannelOfferOut | ChannelOpenedOut | ChannelRefusedOut | ChannelClosedOut


class Rates:
    """What one connection may still say."""

    __slots__ = ("messages", "requests")

    def __init__(self) -> None:
        self.messages = TokenBucket(MESSAGES_PER_S, MESSAGES_BURST)
        self.requests = TokenBucket(REQUESTS_PER_S, REQUESTS_BURST)


class ChannelControl:
    """The conversation about channels, of one worker."""

    def __init__(self, surroundings: Surroundings, counters: CounterSet) -> None:
        self._around = surroundings
        self._counters = counters

    # What peers say.

    def handle_message_untrusted(self, connection: Connection, data: bytes) -> None:
        """Pass on one message of a peer, or drop and count it."""
        self._count(self._handle_untrusted(connection, data))

    def count_malformed(self) -> None:
        """Count a message that was too long to be one."""
        self._count("malformed")

    def _handle_untrusted(self, connection: Connection, data: bytes) -> str:
        """Do so and return how it is counted."""
        if connection.peer_id is None:
            return "unauthenticated"
        if not knows_channels(connection):
            return "undeclared"
        rates = connection.channel_rates
        if not isinstance(rates, Rates):
            rates = connection.channel_rates = Rates()
        now_s = self._around.monotonic_s()
        if not rates.messages.take(now_s):
            return "rate_limited"
        try:
            message = decode_channel_message_untrusted(data)
        except RelayDecodeError:
            return "malformed"
        if isinstance(message, ChannelRequest):
            allowed = bool(connection.proven_host) and rates.requests.take(now_s)
            return self._ask(connection, connection.peer_id, message, allowed=allowed)
        if isinstance(message, ChannelAnswer):
            told = self._around.tell_hub(
                ChannelAnswerIn(peer_id=connection.peer_id, channel_id=message.channel_id, accepted=message.accepted)
            )
            return "answer" if told else "hub_busy"
        if isinstance(message, ChannelClosed):
            told = self._around.tell_hub(
                ChannelHangUp(peer_id=connection.peer_id, channel_id=message.channel_id, reason=message.reason)
            )
            return "closed" if told else "hub_busy"
        return "unexpected"

    def _ask(self, connection: Connection, peer_id: bytes, request: ChannelRequest, *, allowed: bool) -> str:
        question = ChannelAsk(
            connection=connection.number,
            peer_id=peer_id,
            host=connection.proven_host,
            request_id=request.request_id,
            target=request.target,
        )
        if allowed and self._around.tell_hub(question):
            return "request"
        refusal = Refusal.INTERNAL if allowed else Refusal.OPEN_RATE
        self._counters.add("relay_refusals", 1, RelayMode.CHANNEL, refusal)
        self._send(connection, ChannelRefused(request_id=request.request_id, target=request.target, reason=refusal))
        return "hub_busy" if allowed else "rate_limited"

    # What the hub says.

    def tell_peer(self, message: FromHub) -> None:
        """Tell a peer what the hub has to say to it, if it is still there."""
        peer_id = message.target if isinstance(message, ChannelOfferOut) else message.peer_id
        connection = self._around.find(message.connection)
        if connection is None or connection.peer_id != peer_id or not knows_channels(connection):
            self._count("peer_gone")
            return
        self._send(connection, _for_peer(message))

    def _send(self, connection: Connection, message: ChannelMessage) -> None:
        if connection.quic.is_closing or not connection.quic.send_message(encode_channel_message(message)):
            self._count("answer_blocked")
            return
        self._around.flush(connection)

    def _count(self, outcome: str) -> None:
        self._counters.add("channel_messages", 1, outcome)


def knows_channels(connection: Connection) -> bool:
    """Tell whether the peer has declared that it knows relay channels."""
    declared = connection.quic.remote_extensions
    return declared is not None and declared.relay_channels


def _for_peer(message: FromHub) -> ChannelMessage:
    if isinstance(message, ChannelOfferOut):
        return ChannelOffer(
            channel_id=message.channel_id, initiator=message.initiator, key=message.key, token=message.token
        )
    if isinstance(message, ChannelOpenedOut):
        return ChannelOpened(
            request_id=message.request_id,
            target=message.target,
            channel_id=message.channel_id,
            key=message.key,
            token=message.token,
        )
    if isinstance(message, ChannelRefusedOut):
        return ChannelRefused(request_id=message.request_id, target=message.target, reason=message.reason)
    return ChannelClosed(channel_id=message.channel_id, reason=message.reason)
