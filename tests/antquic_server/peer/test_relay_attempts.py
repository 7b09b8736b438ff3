"""Which node is asked for what; whole attempts are tested with whole peers in ``test_relaying``."""

from typing import Any

import pytest

from antquic_server.peer.channel import Channel
from antquic_server.peer.link import Link, Path
from antquic_server.peer.punching import Failure
from antquic_server.peer.relay_attempts import (
    LONGEST_RETRY_S,
    NO_RELAY,
    NOT_REACHED,
    REPAIR_STEP_S,
    RETRY_S,
    STEP_S,
    RelayAttempts,
    RelayingSurroundings,
)
from antquic_server.peer.relay_paths import RelayPath, StreamRelayPath
from antquic_server.peer.relay_stream import StreamRelay
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.parameters import ExtensionParameters
from antquic_server.protocol.relay_limits import Refusal
from support.stand_in import StandIn, public_key_of

PEER = b"P" * 32
FAR = SocketAddress.parse("198.51.100.9:5000")
RELAY = SocketAddress.parse("203.0.113.7:4433")
ID = b"channel"
GONE = RelayPath("198.18.0.1", 1, b"gone...")
TIMEOUT_S = 12.0


def link(number: int, path: Path, *, channels: bool = True) -> Link:
    """A connection to a node, or to a peer."""
    quic = StandIn(public_key=public_key_of("n"), own_cid=bytes(8), first_cid=bytes(8), is_client=True)
    quic.remote_extensions = ExtensionParameters(relay_channels=channels)
    made = Link(number=number, quic=quic, path=path, handshake_deadline_s=None, is_node=True)
    made.peer_id, made.ready, made.dialled = bytes([number]) * 32, True, FAR
    return made


class FakeRelays:
    """Remembers requests for channels."""

    def __init__(self) -> None:
        self.requests: list[int] = []
        """Numbers of the nodes, in the order in which they were asked."""
        self.forgotten: list[int] = []
        self.hung_up: list[Channel] = []

    def request(self, target: bytes, node: Link) -> int:
        """Ask."""
        assert target == PEER
        self.requests.append(node.number)
        return len(self.requests)

    def forget_request(self, request_id: int) -> None:
        """Remember it."""
        self.forgotten.append(request_id)

    def hang_up(self, channel: Channel) -> None:
        """Remember it."""
        self.hung_up.append(channel)


class FakeStreams:
    """Remembers which node was asked for a stream relay."""

    def __init__(self) -> None:
        self.opened: list[int] = []
        self.ready = False

    def open(self, node: Link, now_s: float) -> StreamRelay:
        """Ask."""
        self.opened.append(node.number)
        relay = StreamRelay(len(self.opened), node, 0, now_s)
        relay.address = RELAY if self.ready else None
        return relay


class Desk:
    """Attempts with two nodes of ours and one that knows no channels."""

    def __init__(self) -> None:
        self.nodes = [
            link(1, ("198.18.0.1", 1)),
            link(2, ("198.18.0.2", 1)),
            link(3, ("198.18.0.3", 1), channels=False),
        ]
        self.relays = FakeRelays()
        self.streams = FakeStreams()
        self.dialled: list[Link] = []
        self.moves: list[tuple[Link, Path]] = []
        self.introduced: list[int] = []
        self.ended: list[tuple[str, Failure | None]] = []
        around = RelayingSurroundings(
            node_links=lambda: self.nodes,
            may_stream=lambda node: node.number == 3,
            dial=self._dial,
            introduce=lambda _target, node, _now_s, _deadline_s: self.introduced.append(node.number),
            move=lambda moved, path, _now_s, _deadline_s: self.moves.append((moved, path)),
            touch=lambda _: None,
            ended=lambda _target, refusal, why: self.ended.append((refusal, why)),
        )
        relays: Any = self.relays
        streams: Any = self.streams
        self.attempts = RelayAttempts(around, relays=relays, streams=streams)

    def _dial(self, path: Path, _target: bytes, _now_s: float, _deadline_s: float) -> Link:
        self.dialled.append(link(100 + len(self.dialled), path))
        self.dialled[-1].ready = False
        return self.dialled[-1]

    def begin(self, **facts: Any) -> None:
        """Try to reach the peer."""
        why = Failure.NO_PATH
        assert self.attempts.begin(PEER, self.nodes, 0.0, timeout_s=TIMEOUT_S, why=why, **facts)

    def channel(self, node: int = 1) -> Channel:
        """A channel of one of the nodes."""
        return Channel(
            channel_id=ID,
            key=bytes(32),
            token=bytes(16),
            peer_id=PEER,
            node=bytes([node]) * 32,
            via=(f"198.18.0.{node}", 1),
            opened_by_us=True,
            now_s=0.0,
            unix_s=0.0,
        )

    def refuse(self, reason: str = "node_sessions") -> None:
        """Have the request that waits refused."""
        self.attempts.channel_refused(len(self.relays.requests), reason, 0.0)


def test_channels_come_first_then_streams() -> None:
    """Each node is asked once, then the last refusal is the answer."""
    desk = Desk()
    desk.begin()
    assert PEER in desk.attempts
    desk.refuse()
    desk.refuse("peer_sessions")
    assert (desk.relays.requests, desk.streams.opened) == ([1, 2], [3])
    relay = next(iter(desk.attempts._attempts.values())).relay
    assert relay is not None
    assert desk.attempts.uses(relay)
    desk.attempts.relay_ended(relay, "status_503", 1.0)

    assert desk.ended == [("status_503", Failure.NO_PATH)]
    assert PEER not in desk.attempts


@pytest.mark.parametrize("reason", [Refusal.TARGET_DECLINED, Refusal.SELF_TARGET])
def test_who_does_not_want_is_not_asked_in_another_way(reason: Refusal) -> None:
    """The other side has said no."""
    desk = Desk()
    desk.begin()
    desk.refuse(reason.value)

    assert desk.relays.requests == [1]
    assert desk.ended == [(reason.value, Failure.NO_PATH)]


def test_a_peer_that_knows_no_channels_is_reached_by_a_stream_of_the_same_node() -> None:
    """What else a node refuses it would refuse so, too."""
    for reason, streams in ((Refusal.UNSUPPORTED, [1]), (Refusal.PEER_DENIED, [])):
        desk = Desk()
        desk.nodes = desk.nodes[:1]
        object.__setattr__(desk.attempts._around, "may_stream", lambda _: True)
        desk.begin()
        desk.refuse(reason.value)
        assert desk.streams.opened == streams


def test_without_a_node_that_relays_there_is_no_attempt() -> None:
    """Or with one that has gone meanwhile."""
    desk = Desk()
    assert not desk.attempts.begin(PEER, [], 0.0, timeout_s=TIMEOUT_S, why=None)
    nodes, desk.nodes = desk.nodes, []
    assert desk.attempts.begin(PEER, nodes, 0.0, timeout_s=TIMEOUT_S, why=None)
    assert desk.ended == [(NO_RELAY, None)]


def test_a_channel_is_dialled_through() -> None:
    """Whose handshake fails, or takes too long, gives way to the next node; one that succeeds ends the attempt."""
    desk = Desk()
    desk.begin()
    channel = desk.channel()
    desk.attempts.channel_opened(1, channel, 0.1)
    (dialled,) = desk.dialled
    assert (dialled.path, dialled.why_not_direct) == (RelayPath("198.18.0.1", 1, ID), Failure.NO_PATH)
    desk.attempts.link_closed(dialled, 1.0)
    assert desk.relays.hung_up == [channel]
    assert desk.relays.requests == [1, 2]

    other = desk.channel(2)
    desk.attempts.channel_opened(2, other, 1.1)
    desk.attempts.handle_timer(1.0 + STEP_S)
    assert desk.relays.hung_up == [channel, other]
    assert desk.dialled[1].quic.is_closing
    # The other side may have dialled what we have for it: such a connection is relayed for the same reason.
    theirs, direct = link(81, RelayPath("198.18.0.1", 1, ID)), link(82, ("198.18.0.9", 1))
    desk.attempts.connected(PEER, theirs)
    desk.attempts.connected(PEER, direct)
    assert (theirs.why_not_direct, direct.why_not_direct) == (Failure.NO_PATH, None)
    assert desk.ended == []
    assert desk.attempts.next_deadline_s() is None


def test_a_channel_that_comes_too_late_is_hung_up() -> None:
    """Nobody waits for it."""
    desk = Desk()
    desk.begin()
    desk.attempts.give_up(PEER)
    assert desk.relays.forgotten == [1]
    channel = desk.channel()
    desk.attempts.channel_opened(1, channel, 1.0)
    desk.attempts.channel_refused(1, "node_sessions", 1.0)
    desk.attempts.give_up(PEER)

    assert desk.relays.hung_up == [channel]


def test_the_time_is_bounded() -> None:
    """For each node, and for all of them."""
    desk = Desk()
    desk.begin()
    desk.attempts.handle_timer(STEP_S - 0.1)
    assert desk.relays.requests == [1]
    desk.attempts.handle_timer(STEP_S)
    assert desk.relays.requests == [1, 2]
    desk.attempts.handle_timer(TIMEOUT_S)

    assert desk.ended == [(Refusal.TARGET_SILENT.value, Failure.NO_PATH)]


def test_a_channel_lost_before_it_was_of_use_is_a_refusal() -> None:
    """Of its own reason; channels of others do not matter."""
    desk = Desk()
    desk.begin()
    channel = desk.channel()
    desk.attempts.channel_opened(1, channel, 0.1)
    desk.attempts.channel_lost(desk.channel(2), "idle", 0.2)
    desk.attempts.channel_lost(channel, "worker_lost", 0.2)

    assert desk.relays.requests == [1, 2]
    assert desk.relays.hung_up == []


def test_a_stream_dials_what_is_known_and_has_the_other_side_told() -> None:
    """From the relay's port; what its family does not reach is left out."""
    for ready in (True, False):
        desk = Desk()
        desk.nodes = desk.nodes[2:]
        desk.streams.ready = ready
        desk.begin(addresses=(FAR, SocketAddress.parse("[2001:db8::1]:1")))
        if not ready:
            assert desk.dialled == []
            relay = desk.attempts._attempts[PEER].relay
            assert relay is not None
            relay.address = RELAY
            desk.attempts.relay_opened(relay, 0.1)
        assert [item.path for item in desk.dialled] == [StreamRelayPath("198.51.100.9", 5000, 1)]
        assert desk.introduced == [3]
        assert desk.attempts.path_by_stream(PEER, FAR) == StreamRelayPath("198.51.100.9", 5000, 1)
        assert desk.attempts.path_by_stream(bytes(32), FAR) is None
        # One dial that fails is no reason to stop: the other side may dial us.
        desk.attempts.link_closed(desk.dialled[0], 1.0)
        assert desk.ended == []
        desk.attempts.handle_timer(STEP_S)
        assert desk.ended == [(NOT_REACHED, Failure.NO_PATH)]


# Repairs.


def standing(path: Path = GONE) -> Link:
    """A connection that has lost its relay."""
    made = link(80, path)
    made.peer_id = PEER
    return made


def test_a_repair_moves_the_connection() -> None:
    """To another channel, which stays; an introduction, or a connection of the peer, does not end it."""
    desk = Desk()
    broken = standing()
    desk.attempts.repair(broken, 0.0, timeout_s=30.0)
    desk.attempts.connected(PEER, broken)
    channel = desk.channel()
    desk.attempts.channel_opened(1, channel, 0.1)
    assert desk.moves == [(broken, channel.path)]
    broken.path = channel.path
    desk.attempts.moved(broken)

    assert PEER not in desk.attempts
    assert desk.relays.hung_up == []


def test_a_repair_that_direct_overtakes_gives_its_channel_back() -> None:
    """The connection has moved elsewhere."""
    desk = Desk()
    broken = standing()
    desk.attempts.repair(broken, 0.0, timeout_s=30.0)
    channel = desk.channel()
    desk.attempts.channel_opened(1, channel, 0.1)
    broken.path = ("198.18.1.1", 1)
    desk.attempts.moved(link(5, ("198.18.9.9", 1)))
    desk.attempts.moved(broken)

    assert desk.relays.hung_up == [channel]


def test_a_repair_goes_round_and_round_ever_more_slowly() -> None:
    """A refusal may be over in a moment; each round asks the nodes that are there, the suspect one last."""
    desk = Desk()
    desk.attempts.repair(standing(), 0.0, timeout_s=60.0, avoid=bytes([1]) * 32)
    waits, now_s = [], 0.0
    while PEER in desk.attempts:
        attempt = desk.attempts._attempts[PEER]
        while attempt.step_deadline_s is not None:
            desk.attempts.channel_refused(len(desk.relays.requests), Refusal.TARGET_UNKNOWN.value, now_s)
        at_s = desk.attempts.next_deadline_s()
        assert at_s is not None
        waits.append(at_s - now_s)
        now_s = at_s
        desk.attempts.handle_timer(now_s)

    assert desk.relays.requests[:4] == [2, 1, 2, 1]
    assert waits[0] == pytest.approx(RETRY_S)
    assert waits[-1] == pytest.approx(LONGEST_RETRY_S)
    assert 60 <= now_s < 60 + LONGEST_RETRY_S
    assert desk.ended == []


def test_a_node_that_comes_back_is_asked_at_once() -> None:
    """Not only when the wait is over."""
    desk = Desk()
    nodes, desk.nodes = desk.nodes, []
    desk.attempts.repair(standing(), 0.0, timeout_s=60.0)
    assert desk.relays.requests == []
    desk.nodes = nodes
    desk.attempts.node_ready(0.01)
    desk.attempts.handle_timer(0.01)
    assert desk.relays.requests == [1]
    # While one is being asked, that changes nothing.
    desk.attempts.node_ready(0.02)
    desk.attempts.handle_timer(0.02)
    assert desk.relays.requests == [1]
    desk.attempts.handle_timer(0.01 + REPAIR_STEP_S)
    assert desk.relays.requests == [1, 2]


def test_a_repair_by_stream_goes_to_the_same_place() -> None:
    """From another port; one that cannot reach it is no help."""
    for address, moved in ((RELAY, True), (None, False)):
        desk = Desk()
        desk.nodes = desk.nodes[2:]
        broken = standing(StreamRelayPath("2001:db8::1" if not moved else "198.51.100.9", 5000, 9))
        desk.attempts.repair(broken, 0.0, timeout_s=30.0)
        relay = desk.attempts._attempts[PEER].relay
        assert relay is not None
        relay.address = address or RELAY
        desk.attempts.relay_opened(relay, 0.1)
        assert desk.moves == ([(broken, StreamRelayPath("198.51.100.9", 5000, 1))] if moved else [])


def test_a_repair_ends_with_its_connection() -> None:
    """Other connections may end as they like."""
    desk = Desk()
    broken = standing()
    desk.attempts.repair(broken, 0.0, timeout_s=30.0)
    desk.attempts.link_closed(link(5, ("198.18.9.9", 1)), 0.1)
    assert PEER in desk.attempts
    desk.attempts.link_closed(broken, 0.1)
    assert PEER not in desk.attempts
    assert desk.relays.forgotten == [1]
