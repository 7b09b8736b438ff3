"""The channels of one peer: requests, offers, datagrams, and what nobody is to get away with."""

import pytest

from antquic_server.errors import RelayDecodeError
from antquic_server.peer.channel import UNANSWERED_S, Channel
from antquic_server.peer.link import Link
from antquic_server.peer.relay_paths import RelayPath
from antquic_server.peer.relays import LOST_UNANSWERED, LOST_UNKNOWN, Relays, RelaySurroundings, offers_channels
from antquic_server.peer.settings import PeerSettings
from antquic_server.peer.statistics import Tallies
from antquic_server.protocol.parameters import ExtensionParameters
from antquic_server.protocol.relay_channel import (
    bind_counter_untrusted,
    bind_nonce_untrusted,
    data_header,
    encode_bound,
    encode_challenge,
    encode_unknown,
)
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
from support.stand_in import StandIn, public_key_of

ME, PEER, NODE, OTHER_NODE = b"M" * 32, b"P" * 32, b"N" * 32, b"O" * 32
ID, KEY, TOKEN, NONCE = b"channel", b"K" * 32, b"T" * 16, b"N" * 8
PLACE = ("198.18.0.1", 10_000)


def node_link(peer_id: bytes = NODE, *, is_node: bool = True) -> Link:
    """A connection to a node."""
    quic = StandIn(public_key=public_key_of("n"), own_cid=bytes(8), first_cid=bytes(8), is_client=True)
    link = Link(number=1, quic=quic, path=PLACE, handshake_deadline_s=None, is_node=is_node)
    link.peer_id, link.ready = peer_id, True
    return link


class Desk:
    """Channels, and what they say and report."""

    def __init__(self, **settings: object) -> None:
        self.node = node_link()
        self.sent: list[ChannelMessage | None] = []
        self.added: list[Channel] = []
        self.opened: list[tuple[int, Channel]] = []
        self.refused: list[tuple[int, str]] = []
        self.lost: list[tuple[bytes, str]] = []
        self.tallies = Tallies()
        around = RelaySurroundings(
            send=self._send,
            node_link=lambda peer_id: self.node if peer_id == NODE else None,
            unix_s=lambda: 1000.0,
        )
        self.relays = Relays(
            around,
            observer=self,
            settings=PeerSettings(**settings),  # type: ignore[arg-type]
            own_peer_id=ME,
            tallies=self.tallies,
        )

    def _send(self, _link: Link, data: bytes) -> bool:
        self.sent.append(decode_channel_message_untrusted(data))
        return True

    def channel_added(self, channel: Channel, now_s: float) -> None:
        """Remember it."""
        self.added.append(channel)

    def channel_opened(self, request_id: int, channel: Channel, now_s: float) -> None:
        """Remember it."""
        self.opened.append((request_id, channel))

    def channel_refused(self, request_id: int, reason: str, now_s: float) -> None:
        """Remember it."""
        self.refused.append((request_id, reason))

    def channel_lost(self, channel: Channel, reason: str, now_s: float) -> None:
        """Remember it."""
        self.lost.append((channel.channel_id, reason))

    def hear(self, message: ChannelMessage, link: Link | None = None) -> None:
        """Have a node say something."""
        self.relays.message_untrusted(encode_channel_message(message), link or self.node, 0.0)

    def open(self) -> Channel:
        """Ask for a channel and get it."""
        request_id = self.relays.request(PEER, self.node)
        self.hear(ChannelOpened(request_id=request_id, target=PEER, channel_id=ID, key=KEY, token=TOKEN))
        return self.opened[-1][1]

    def offer(self, channel_id: bytes = ID, initiator: bytes = PEER) -> None:
        """Be offered a channel."""
        self.hear(ChannelOffer(channel_id=channel_id, initiator=initiator, key=KEY, token=TOKEN))


def test_a_request_is_answered() -> None:
    """By the channel, or by a refusal; a second answer is nobody's."""
    desk = Desk()
    channel = desk.open()
    assert desk.sent == [ChannelRequest(request_id=1, target=PEER)]
    assert (channel.peer_id, channel.node, channel.via, channel.opened_by_us) == (PEER, NODE, PLACE, True)
    assert channel.path == RelayPath(*PLACE, ID)
    assert desk.relays.find(channel.path) is channel
    assert desk.relays.find(PLACE) is None
    assert list(desk.relays) == desk.added == [channel]

    assert desk.relays.request(PEER, desk.node) == 2
    desk.hear(ChannelRefused(request_id=2, target=PEER, reason="node_sessions"))
    desk.hear(ChannelRefused(request_id=2, target=PEER, reason="node_sessions"))
    assert desk.refused == [(2, "node_sessions")]


@pytest.mark.parametrize("wrong", ["request", "target", "node", "forgotten", "again"])
def test_a_channel_nobody_asked_for_is_given_back(wrong: str) -> None:
    """Another number, another peer, another node, after we have stopped waiting, or one that is there already."""
    desk = Desk()
    if wrong == "again":
        desk.open()
    request_id = desk.relays.request(PEER, desk.node)
    if wrong == "forgotten":
        desk.relays.forget_request(request_id)
    opened = ChannelOpened(
        request_id=request_id + (wrong == "request"),
        target=ME if wrong == "target" else PEER,
        channel_id=ID,
        key=KEY,
        token=TOKEN,
    )
    desk.hear(opened, node_link(OTHER_NODE) if wrong == "node" else None)

    assert len(desk.opened) == (wrong == "again")
    assert desk.sent[-1] == ChannelClosed(channel_id=ID, reason="closed")
    assert desk.tallies.drops == {"channel_not_asked_for": 1}


def test_an_offer_is_taken() -> None:
    """The key of our leg comes with it; we do not dial through it."""
    desk = Desk()
    desk.offer()

    (channel,) = desk.added
    assert desk.sent == [ChannelAnswer(channel_id=ID, accepted=True)]
    assert (channel.peer_id, channel.opened_by_us) == (PEER, False)
    assert desk.opened == []
    assert desk.tallies.relay_channels_opened == 1


@pytest.mark.parametrize("settings", [{"relay": "never"}, {"accept_relays": False}, {"max_relays": 0}])
def test_an_offer_is_declined_if_settings_say_so(settings: dict[str, object]) -> None:
    """And nothing is kept."""
    desk = Desk(**settings)
    desk.offer()

    assert desk.sent == [ChannelAnswer(channel_id=ID, accepted=False)]
    assert len(desk.relays) == 0


def test_offers_are_bounded_and_make_sense() -> None:
    """So many, none twice, none from ourselves."""
    desk = Desk(max_relays=2)
    desk.offer(b"channel")
    desk.offer(b"channel")
    desk.offer(b"another", initiator=ME)
    desk.offer(b"another")
    desk.offer(b"toomany")

    assert [answer.accepted for answer in desk.sent if isinstance(answer, ChannelAnswer)] == [
        *(True, False, False),
        *(True, False),
    ]
    assert desk.tallies.drops == {"channel_offer_declined": 3}


def test_a_stranger_is_not_believed() -> None:
    """Who is no node of ours offers and closes nothing; one who takes us for a node is told that we are none."""
    desk = Desk()
    desk.open()
    stranger = node_link(OTHER_NODE, is_node=False)
    for message in (
        ChannelOffer(channel_id=b"another", initiator=PEER, key=KEY, token=TOKEN),
        ChannelClosed(channel_id=ID, reason="closed"),
    ):
        desk.hear(message, stranger)
    desk.hear(ChannelAnswer(channel_id=ID, accepted=True))
    desk.hear(ChannelClosed(channel_id=ID, reason="closed"), node_link(OTHER_NODE))
    assert len(desk.relays) == 1
    assert desk.lost == []
    assert desk.tallies.drops == {"channel_message": 3}

    desk.hear(ChannelRequest(request_id=5, target=PEER), stranger)
    assert desk.sent[-1] == ChannelRefused(request_id=5, target=PEER, reason="unsupported")
    with pytest.raises(RelayDecodeError):
        desk.relays.message_untrusted(b"AQRC\x01\x01short", desk.node, 0.0)
    desk.relays.message_untrusted(b"AQRC\x01\x63later version", desk.node, 0.0)


def test_data_goes_both_ways() -> None:
    """The same eight bytes before it in both directions."""
    desk = Desk()
    channel = desk.open()
    assert desk.relays.wrap(channel.path, [b"one", b"two"], 0.0) == (
        PLACE,
        [data_header(ID) + b"one", data_header(ID) + b"two"],
    )
    # As the kernel describes the same place.
    assert desk.relays.receive_untrusted(data_header(ID) + b"back", (*PLACE, 0, 0, b""), 0.0) == (b"back", channel.path)
    assert desk.relays.wrap(RelayPath(*PLACE, b"another"), [b"x"], 0.0) is None
    assert desk.tallies.drops == {"relay_path_gone": 1}


def test_datagrams_from_elsewhere_or_of_nothing_known_are_dropped() -> None:
    """Whoever has seen the id cannot inject from another address."""
    desk = Desk()
    desk.open()
    assert desk.relays.receive_untrusted(data_header(ID) + b"x", ("198.18.6.6", 10_000), 0.0) is None
    assert desk.relays.receive_untrusted(data_header(b"another") + b"x", PLACE, 0.0) is None
    for data in (b"", b"\x10", b"\x00channel", b"\x11channel" + bytes(24), b"\x3fchannel"):
        assert desk.relays.receive_untrusted(data, PLACE, 0.0) is None

    assert desk.tallies.drops == {"relay_source": 1, "relay_channel_gone": 2, "not_quic": 1, "relay_control": 3}


def test_binds_and_their_answers() -> None:
    """Due at once, on the way of the node; the answer is believed if it is the node's."""
    desk = Desk()
    channel = desk.open()
    ((path, (bind,)),) = desk.relays.take_binds(0.0)
    assert path == PLACE
    counter = bind_counter_untrusted(bind)
    assert desk.relays.receive_untrusted(encode_bound(ID, counter, b"X" * 32, NONCE), PLACE, 0.0) is None
    assert desk.relays.take_binds(0.3)
    assert desk.relays.receive_untrusted(encode_bound(ID, counter, KEY, NONCE), PLACE, 0.4) is None
    assert channel.is_bound
    assert desk.relays.take_binds(0.8) == []
    desk.relays.rebind(1.0)
    assert len(desk.relays.take_binds(1.0)) == 1
    with pytest.raises(RelayDecodeError):
        desk.relays.receive_untrusted(b"\x12channelshort", PLACE, 0.0)


def test_a_challenge_makes_the_next_bind_due() -> None:
    """If it is the node's; another bind with its nonce is what it asks for."""
    desk = Desk()
    channel = desk.open()
    ((_, (bind,)),) = desk.relays.take_binds(0.0)
    counter = bind_counter_untrusted(bind)
    assert desk.relays.receive_untrusted(encode_challenge(ID, counter, b"X" * 32, NONCE), PLACE, 0.1) is None
    assert desk.relays.take_binds(0.1) == []
    assert desk.tallies.drops == {"relay_control": 1}
    assert desk.relays.receive_untrusted(encode_challenge(ID, counter, KEY, NONCE), PLACE, 0.1) is None
    assert desk.relays.next_deadline_s() == 0.1
    ((_, (again,)),) = desk.relays.take_binds(0.1)
    assert bind_nonce_untrusted(again) == NONCE
    desk.relays.receive_untrusted(encode_bound(ID, counter + 1, KEY, NONCE), PLACE, 0.2)
    assert channel.is_bound
    assert desk.tallies.drops == {"relay_control": 1}
    # Of a channel that is gone it is known for what it is.
    desk.relays.receive_untrusted(encode_challenge(b"another", 1, KEY, NONCE), PLACE, 0.2)
    assert desk.tallies.drops == {"relay_control": 1, "relay_channel_gone": 1}


def test_a_channel_is_lost_in_four_ways() -> None:
    """The node closes it, does not know it, or does not answer; hanging up is our own doing."""
    desk = Desk()
    desk.open()
    desk.hear(ChannelClosed(channel_id=ID, reason="worker_lost"))
    desk.open()
    assert desk.relays.receive_untrusted(encode_unknown(ID, b"X" * 16), PLACE, 0.0) is None
    assert len(desk.relays) == 1
    desk.relays.receive_untrusted(encode_unknown(ID, TOKEN), PLACE, 0.0)
    desk.open()
    assert desk.relays.next_deadline_s() == 0.0
    desk.relays.handle_timer(UNANSWERED_S)
    assert desk.lost == [(ID, "worker_lost"), (ID, LOST_UNKNOWN), (ID, LOST_UNANSWERED)]
    assert desk.tallies.relay_channels_lost == {"worker_lost": 1, LOST_UNKNOWN: 1, LOST_UNANSWERED: 1}
    assert desk.relays.next_deadline_s() is None

    channel = desk.open()
    desk.relays.hang_up(channel)
    desk.relays.hang_up(channel)
    assert desk.sent[-1] == ChannelClosed(channel_id=ID, reason="closed")
    assert desk.sent[-2] != desk.sent[-1]
    assert len(desk.lost) == 3


def test_the_end_of_a_connection_to_a_node() -> None:
    """Its answers do not come any more, and its channels are looked after quickly; other nodes' are not."""
    desk = Desk()
    channel = desk.open()
    desk.relays.take_binds(0.0)
    desk.relays.request(PEER, desk.node)
    desk.relays.node_lost(OTHER_NODE, 0.1)
    assert (desk.refused, desk.relays.take_binds(0.1)) == ([], [])
    desk.relays.node_lost(NODE, 0.1)

    assert desk.refused == [(2, "connection_lost")]
    assert len(desk.relays.take_binds(0.1)) == 1
    assert channel.is_lost(1.2)
    # Nobody is there to be told.
    channel.node = OTHER_NODE
    before = len(desk.sent)
    desk.relays.hang_up(channel)
    assert len(desk.sent) == before


def test_who_offers_channels() -> None:
    """Whoever has said so."""
    link = node_link()
    assert not offers_channels(link)
    link.quic.remote_extensions = ExtensionParameters()
    assert not offers_channels(link)
    link.quic.remote_extensions = ExtensionParameters(relay_channels=True)
    assert offers_channels(link)
