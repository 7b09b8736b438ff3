"""How to feed damaged input to what the peer library reads from the network."""

from collections.abc import Callable

from aioquic.quic.events import StreamDataReceived

from antquic_server.peer.admission import Admission
from antquic_server.peer.channel import Channel
from antquic_server.peer.link import Link
from antquic_server.peer.messages import Messages, Receivers
from antquic_server.peer.relays import Relays, RelaySurroundings
from antquic_server.peer.settings import PeerSettings
from antquic_server.peer.statistics import Tallies
from antquic_server.protocol.liveness import PROBE_MAGIC
from antquic_server.protocol.relay_channel import data_header, encode_bound, encode_challenge, encode_unknown
from antquic_server.protocol.relay_control import (
    ChannelClosed,
    ChannelOffer,
    ChannelOpened,
    ChannelRefused,
    ChannelRequest,
    encode_channel_message,
)
from support.coordination import ALICE, BOB, request
from support.initials import first_flight
from support.stand_in import StandIn, public_key_of

__all__ = ["PEER_FEEDS"]

ID, KEY, TOKEN = b"channel", b"K" * 32, b"T" * 16
PLACE = ("198.18.0.1", 10_000)
CHANNEL = Channel(
    channel_id=ID, key=KEY, token=TOKEN, peer_id=BOB, node=ALICE, via=PLACE, opened_by_us=True, now_s=0.0, unix_s=1.0
)
QUIC = StandIn(public_key=public_key_of("n"), own_cid=bytes(8), first_cid=bytes(8), is_client=True)
NODE = Link(number=1, quic=QUIC, path=PLACE, handshake_deadline_s=None, is_node=True)
NODE.peer_id, NODE.ready = ALICE, True


class _Nobody:
    """Is told everything, and does nothing."""

    def channel_added(self, *_: object) -> None: ...
    def channel_opened(self, *_: object) -> None: ...
    def channel_refused(self, *_: object) -> None: ...
    def channel_lost(self, *_: object) -> None: ...


def _relays() -> Relays:
    around = RelaySurroundings(send=lambda *_: True, node_link=lambda _: NODE, unix_s=lambda: 1.0)
    return Relays(around, observer=_Nobody(), settings=PeerSettings(), own_peer_id=bytes(32), tallies=Tallies())


def _with_channel() -> Relays:
    relays = _relays()
    relays.message_untrusted(encode_channel_message(OFFER), NODE, 0.0)
    return relays


OFFER = ChannelOffer(channel_id=ID, initiator=BOB, key=KEY, token=TOKEN)
CHANNEL_MESSAGES = [
    encode_channel_message(message)
    for message in (
        OFFER,
        ChannelOpened(request_id=1, target=BOB, channel_id=ID, key=KEY, token=TOKEN),
        ChannelRefused(request_id=1, target=BOB, reason="node_sessions"),
        ChannelClosed(channel_id=ID, reason="worker_lost"),
        ChannelRequest(request_id=1, target=BOB),
    )
]
BOUND, GONE = encode_bound(ID, 5, KEY, bytes(8)), encode_unknown(ID, TOKEN)
CHALLENGE = encode_challenge(ID, 5, KEY, b"N" * 8)
RECEIVERS = Receivers(
    coordination=lambda *_: None,
    channel=lambda *_: None,
    answer=lambda *_: None,
    program=lambda *_: None,
)
MESSAGES = Messages(RECEIVERS, settings=PeerSettings(), tallies=Tallies())
RELAYS = _with_channel()

ADMISSION = Admission()
CROWD = [Link(number=number, quic=QUIC, path=PLACE, handshake_deadline_s=None) for number in range(20)]
"""Enough for a Retry."""

PEER_FEEDS: dict[str, tuple[Callable[[bytes], object], list[bytes]]] = {
    "antquic_server.peer.admission.Admission.judge_untrusted": (
        lambda data: ADMISSION.judge_untrusted(data, ("198.18.0.2", 1), data[6:14], CROWD, 0.0),
        first_flight(),
    ),
    "antquic_server.peer.channel.Channel.bound_untrusted": (lambda data: CHANNEL.bound_untrusted(data, 0.0), [BOUND]),
    "antquic_server.peer.channel.Channel.challenged_untrusted": (
        lambda data: CHANNEL.challenged_untrusted(data, 0.0),
        [CHALLENGE],
    ),
    "antquic_server.peer.channel.Channel.is_gone_untrusted": (CHANNEL.is_gone_untrusted, [GONE]),
    "antquic_server.peer.messages.Messages.take_untrusted": (
        lambda data: MESSAGES.take_untrusted(NODE, StreamDataReceived(data=data, end_stream=True, stream_id=3), 0.0),
        [*CHANNEL_MESSAGES, request(ALICE, BOB), PROBE_MAGIC + bytes(16)],
    ),
    "antquic_server.peer.relays.Relays.message_untrusted": (
        lambda data: RELAYS.message_untrusted(data, NODE, 0.0),
        CHANNEL_MESSAGES,
    ),
    "antquic_server.peer.relays.Relays.receive_untrusted": (
        lambda data: _with_channel().receive_untrusted(data, PLACE, 0.0),
        [BOUND, CHALLENGE, GONE, data_header(ID) + b"payload"],
    ),
}
