"""Messages out of streams: put together, bounded, handed to whoever they are for."""

from typing import Any

from aioquic.quic.events import StreamDataReceived

from antquic_server.peer.link import Link
from antquic_server.peer.messages import PARTIAL_MESSAGES, Messages, Receivers
from antquic_server.peer.settings import PeerSettings
from antquic_server.peer.statistics import Tallies
from antquic_server.protocol.coordination import Envelope
from antquic_server.protocol.liveness import PROBE_MAGIC
from antquic_server.protocol.relay_control import ChannelClosed, encode_channel_message
from support.coordination import ALICE, BOB, request
from support.stand_in import StandIn, public_key_of

LONGEST = 100


class Desk:
    """Messages of one connection, and where they go."""

    def __init__(self, *, is_node: bool = True) -> None:
        quic = StandIn(public_key=public_key_of("n"), own_cid=bytes(8), first_cid=bytes(8), is_client=True)
        self.stopped: list[int] = []
        quic.stop_stream = self._stop  # type: ignore[method-assign]
        self.link = Link(number=1, quic=quic, path=("198.18.0.1", 1), handshake_deadline_s=None, is_node=is_node)
        self.link.ready = True
        self.got: list[tuple[str, Any]] = []
        self.tallies = Tallies()
        receivers = Receivers(
            coordination=lambda envelope, _link, _now_s: self.got.append(("coordination", envelope)),
            channel=lambda data, _link, _now_s: self.got.append(("channel", data)),
            answer=lambda _link, data: self.got.append(("answer", data)),
            program=lambda _link, data: self.got.append(("program", data)),
        )
        settings = PeerSettings(max_message_bytes=LONGEST)
        self.messages = Messages(receivers, settings=settings, tallies=self.tallies)

    def _stop(self, stream_id: int, error_code: int) -> None:
        self.stopped.append(stream_id)

    def feed(self, data: bytes, *, stream_id: int = 3, end: bool = True) -> None:
        """Have data arrive on a stream."""
        event = StreamDataReceived(data=data, end_stream=end, stream_id=stream_id)
        self.messages.take_untrusted(self.link, event, 0.0)


def test_each_goes_to_whoever_it_is_for() -> None:
    """In one piece or in several."""
    desk = Desk()
    closed = encode_channel_message(ChannelClosed(channel_id=bytes(7), reason="closed"))
    for number, data in enumerate((b"hello", PROBE_MAGIC + bytes(16), closed)):
        desk.feed(data[:2], stream_id=3 + 4 * number, end=False)
        desk.feed(data[2:], stream_id=3 + 4 * number)
    desk.feed(b"", stream_id=99)

    assert [kind for kind, _ in desk.got] == ["program", "answer", "channel"]
    assert desk.got[0] == ("program", b"hello")
    assert desk.got[2] == ("channel", closed)
    assert desk.link.partial_messages == {}
    assert not desk.link.coordinates


def test_coordination_is_taken_from_nodes_only() -> None:
    """And makes it known that it is one."""
    desk = Desk()
    desk.messages._longest_bytes = 10_000
    desk.feed(request(ALICE, BOB))
    assert isinstance(desk.got[0][1], Envelope)
    assert desk.link.coordinates
    for stranger, data in ((Desk(is_node=False), request(ALICE, BOB)), (Desk(), request(ALICE, BOB)[:-3])):
        stranger.messages._longest_bytes = 10_000
        stranger.feed(data)
        assert stranger.got == []
        assert stranger.tallies.drops == {"coordination_message": 1}


def test_a_message_that_is_too_long_is_dropped() -> None:
    """Its sender is told to stop, unless it has ended by itself."""
    desk = Desk()
    desk.feed(bytes(LONGEST + 1), end=False)
    desk.feed(bytes(LONGEST + 1), stream_id=7)

    assert desk.stopped == [3]
    assert desk.got == []
    assert desk.tallies.drops == {"message_too_long": 2}


def test_all_unfinished_messages_together_are_bounded() -> None:
    """Many that never end would be as bad as one."""
    desk = Desk()
    for number in range(PARTIAL_MESSAGES + 1):
        desk.feed(bytes(LONGEST), stream_id=3 + 4 * number, end=False)

    assert len(desk.link.partial_messages) == PARTIAL_MESSAGES
    assert desk.tallies.drops == {"message_too_long": 1}
