"""
Having a node carry a connection: which nodes are asked in which order, and for what.

Two occasions. A peer could not be reached otherwise: the nodes are gone through once, those with channels first, within
a bounded time. Or what carried a connection is lost, with the worker that had it or with the whole node: then the same
connection goes on over another channel, and nodes are asked over and over for as long as it can live. Pure: time is an
argument.

=============  =====================================================================================================
step           what goes on
=============  =====================================================================================================
a channel      the node is asked, asks the other side, opens it; we dial through it, or move the connection to it
a stream       the node gives us a port; the other side is told of it by an introduction, and dialled from there
=============  =====================================================================================================
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from antquic_server.peer.channel import Channel
from antquic_server.peer.link import Link, Path
from antquic_server.peer.punching import Failure
from antquic_server.peer.relay_paths import StreamRelayPath
from antquic_server.peer.relay_stream import StreamRelay, StreamRelays
from antquic_server.peer.relays import Relays, offers_channels
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.relay_limits import Refusal

__all__ = ["MENDABLE", "NOT_REACHED", "NO_RELAY", "RETRY_S", "STEP_S", "RelayAttempts", "RelayingSurroundings"]

STEP_S = 6.0
"""For one node; it waits five seconds for the other side's word."""
REPAIR_STEP_S = 2.0
"""For one node, while a connection stands still."""
RETRY_S = 0.3
"""After the first round through the nodes, while a connection stands still; then ever longer, as nodes count."""
RETRY_GROWTH = 1.5
LONGEST_RETRY_S = 5.0
NOT_REACHED = "not_reached_through_the_relay"
NO_RELAY = "no_node_relays"

MENDABLE = frozenset(
    (
        Failure.NO_PATH,
        Failure.COORDINATOR_SILENT,
        Failure.COORDINATOR_ERROR,
        Failure.EXPIRED,
        Failure.RATE_LIMITED,
    )
)
"""Failures of hole punching that a relay may mend."""
_FINAL = frozenset((Refusal.TARGET_DECLINED, Refusal.SELF_TARGET))
"""Refusals that no other way to relay is to get around."""


class _Mode(Enum):
    CHANNEL = auto()
    STREAM = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayingSurroundings:
    """What attempts need of the rest of the peer."""

    node_links: Callable[[], list[Link]]
    may_stream: Callable[[Link], bool]
    """Whether a node may be asked for a stream relay."""
    dial: Callable[[Path, bytes, float, float], Link]
    """Path, peer id, now, deadline: dial through a relay."""
    introduce: Callable[[bytes, Link, float, float], None]
    """Peer id, node, now, deadline: have the other side told where our relay is."""
    move: Callable[[Link, Path, float, float], None]
    touch: Callable[[Link], None]
    ended: Callable[[bytes, str, Failure | None], None]
    """Peer id, word of the refusal, why not direct: an attempt to reach a peer has failed."""


@dataclass(slots=True, kw_only=True)
class _Attempt:
    target: bytes
    deadline_s: float
    why: Failure | None = None
    addresses: tuple[SocketAddress, ...] = ()
    repairs: Link | None = None
    """The connection that has lost its relay."""
    left: Path = None
    """The path it had then."""
    avoid: bytes | None = None
    """A node that does not answer any more, as it seems."""
    steps: list[tuple[_Mode, bytes]] = field(default_factory=list)
    refusal: str = NO_RELAY
    node: bytes = b""
    step_deadline_s: float | None = None
    """None between two steps."""
    again_at_s: float = 0.0
    rounds: int = 0
    request_id: int | None = None
    channel: Channel | None = None
    relay: StreamRelay | None = None
    dialled: list[Link] = field(default_factory=list)


class RelayAttempts:
    """Every attempt, at most one for each peer."""

    def __init__(self, around: RelayingSurroundings, *, relays: Relays, streams: StreamRelays) -> None:
        self._around = around
        self._relays = relays
        self._streams = streams
        self._attempts: dict[bytes, _Attempt] = {}

    def __contains__(self, target: bytes) -> bool:
        return target in self._attempts

    def begin(
        self,
        target: bytes,
        nodes: list[Link],
        now_s: float,
        *,
        timeout_s: float,
        why: Failure | None,
        addresses: tuple[SocketAddress, ...] = (),
        streams_too: bool = True,
    ) -> bool:
        """Reach a peer through one of these nodes; False if none of them can carry anything."""
        steps = [(_Mode.CHANNEL, node.peer_id) for node in nodes if node.peer_id is not None and offers_channels(node)]
        if streams_too:
            steps += [(_Mode.STREAM, node.peer_id) for node in nodes if node.peer_id and self._around.may_stream(node)]
        if not steps:
            return False
        attempt = _Attempt(
            target=target, deadline_s=now_s + timeout_s, why=why, addresses=addresses, steps=list(dict.fromkeys(steps))
        )
        self._attempts[target] = attempt
        self._next_step(attempt, now_s)
        return True

    def repair(self, link: Link, now_s: float, *, timeout_s: float, avoid: bytes | None = None) -> None:
        """Find another relay for a connection of ours that has lost its own; ``avoid`` is a node to ask last."""
        assert link.peer_id is not None, "only a ready connection is worth it"
        self._attempts[link.peer_id] = _Attempt(
            target=link.peer_id,
            deadline_s=now_s + timeout_s,
            repairs=link,
            left=link.path,
            avoid=avoid,
            again_at_s=now_s,
        )
        self.handle_timer(now_s)

    def path_by_stream(self, target: bytes, address: SocketAddress) -> Path | None:
        """Return the path to an address through the relay whose turn it is; None if none has one."""
        attempt = self._attempts.get(target)
        relay = None if attempt is None else attempt.relay
        return None if relay is None else relay.path_to(address)

    def uses(self, relay: StreamRelay) -> bool:
        """Whether an attempt goes on through a relay."""
        return any(attempt.relay is relay for attempt in self._attempts.values())

    def give_up(self, target: bytes) -> None:
        """End an attempt: nobody wants the peer any more."""
        attempt = self._attempts.pop(target, None)
        if attempt is not None:
            self._drop(attempt, keep=False)

    # What happens.

    def connected(self, target: bytes, live: Link) -> None:
        """Take in that a peer is connected: the attempt has succeeded, or is not needed any more."""
        attempt = self._attempts.get(target)
        if attempt is not None and attempt.repairs is None:
            if live.relayed and live.why_not_direct is None:
                # The other side has dialled the relay that we have for it.
                live.why_not_direct = attempt.why
            del self._attempts[target]
            self._drop(attempt, keep=True)

    def link_closed(self, link: Link, now_s: float) -> None:
        """Take in that a connection has ended: one that was dialled through a relay, or one to be repaired."""
        for attempt in list(self._attempts.values()):
            if attempt.repairs is link:
                del self._attempts[attempt.target]
                self._drop(attempt, keep=False)
            elif link in attempt.dialled:
                attempt.dialled.remove(link)
                if not attempt.dialled and attempt.channel is not None:
                    self._failed(attempt, NOT_REACHED, now_s)

    def moved(self, link: Link) -> None:
        """Take in that a connection has another path: a repaired one is on its way again."""
        attempt = self._attempts.get(link.peer_id or b"")
        if attempt is not None and attempt.repairs is link:
            del self._attempts[attempt.target]
            self._drop(attempt, keep=attempt.channel is not None and link.path == attempt.channel.path)

    def node_ready(self, now_s: float) -> None:
        """Take in that a node is connected: who stands still may ask it."""
        for attempt in self._attempts.values():
            if attempt.step_deadline_s is None:
                attempt.again_at_s = now_s

    def channel_opened(self, request_id: int, channel: Channel, now_s: float) -> None:
        """Take in a channel; one that nobody waits for is hung up."""
        attempt = self._by_request(request_id)
        if attempt is None:
            self._relays.hang_up(channel)
            return
        attempt.request_id, attempt.channel = None, channel
        self._use(attempt, channel.path, now_s)

    def channel_refused(self, request_id: int, reason: str, now_s: float) -> None:
        """Take in a refusal."""
        attempt = self._by_request(request_id)
        if attempt is not None:
            attempt.request_id = None
            self._failed(attempt, reason, now_s)

    def channel_lost(self, channel: Channel, reason: str, now_s: float) -> None:
        """Take in that a channel has ended which an attempt may be using."""
        for attempt in list(self._attempts.values()):
            if attempt.channel is channel:
                attempt.channel = None
                self._failed(attempt, reason, now_s)

    def relay_opened(self, relay: StreamRelay, now_s: float) -> None:
        """Take in that a stream relay has its address."""
        for attempt in list(self._attempts.values()):
            if attempt.relay is relay:
                self._stream_ready(attempt, relay, now_s)

    def relay_ended(self, relay: StreamRelay, reason: str, now_s: float) -> None:
        """Take in that a stream relay was refused, or is gone."""
        for attempt in list(self._attempts.values()):
            if attempt.relay is relay:
                attempt.relay = None
                self._failed(attempt, reason, now_s)

    # Steps.

    def _next_step(self, attempt: _Attempt, now_s: float) -> None:
        by_id = {link.peer_id: link for link in reversed(self._around.node_links())}
        while attempt.steps and now_s < attempt.deadline_s:
            mode, node = attempt.steps.pop(0)
            link = by_id.get(node)
            if link is None:
                continue
            attempt.node = node
            patience_s = STEP_S if attempt.repairs is None else REPAIR_STEP_S
            attempt.step_deadline_s = min(attempt.deadline_s, now_s + patience_s)
            if mode is _Mode.CHANNEL:
                attempt.request_id = self._relays.request(attempt.target, link)
                return
            attempt.relay = relay = self._streams.open(link, now_s)
            self._around.touch(link)
            if relay.address is not None:
                self._stream_ready(attempt, relay, now_s)
            return
        attempt.step_deadline_s = None
        if attempt.repairs is None:
            del self._attempts[attempt.target]
            self._around.ended(attempt.target, attempt.refusal, attempt.why)
        else:
            attempt.again_at_s = now_s + min(RETRY_S * RETRY_GROWTH**attempt.rounds, LONGEST_RETRY_S)
            attempt.rounds += 1

    def _use(self, attempt: _Attempt, path: Path, now_s: float) -> None:
        deadline_s = attempt.step_deadline_s or now_s
        if attempt.repairs is not None:
            self._around.move(attempt.repairs, path, now_s, deadline_s)
            return
        link = self._around.dial(path, attempt.target, now_s, deadline_s)
        link.why_not_direct = attempt.why
        attempt.dialled.append(link)

    def _stream_ready(self, attempt: _Attempt, relay: StreamRelay, now_s: float) -> None:
        if attempt.repairs is not None:
            path = relay.path_to(SocketAddress.from_host(attempt.left.host, attempt.left.port))
            if path is None:
                self._failed(attempt, Refusal.FAMILY.value, now_s)
            else:
                self._use(attempt, path, now_s)
            return
        for address in attempt.addresses:
            path = relay.path_to(address)
            if path is not None:
                self._use(attempt, path, now_s)
        # Its NAT may have to be opened towards the relay: it is told to dial there, as we now dial from there.
        self._around.introduce(attempt.target, relay.link, now_s, attempt.step_deadline_s or now_s)

    def _failed(self, attempt: _Attempt, reason: str, now_s: float) -> None:
        attempt.refusal = reason
        self._drop(attempt, keep=False)
        if reason in _FINAL and attempt.repairs is None:
            attempt.steps.clear()
        elif reason != Refusal.UNSUPPORTED and attempt.repairs is None:
            # What this node has refused in one way it will not do in the other.
            attempt.steps = [step for step in attempt.steps if step[1] != attempt.node]
        self._next_step(attempt, now_s)

    def _drop(self, attempt: _Attempt, *, keep: bool) -> None:
        """Leave the present step; ``keep`` what it has brought about."""
        if attempt.request_id is not None:
            self._relays.forget_request(attempt.request_id)
        channel, attempt.channel, attempt.relay, attempt.request_id = attempt.channel, None, None, None
        dialled, attempt.dialled = attempt.dialled, []
        if keep:
            return
        for link in dialled:
            if not link.ready and not link.closed:
                link.quic.abandon(0, "not needed")
                self._around.touch(link)
        if channel is not None:
            self._relays.hang_up(channel)

    def _by_request(self, request_id: int) -> _Attempt | None:
        return next((item for item in self._attempts.values() if item.request_id == request_id), None)

    # Time.

    def next_deadline_s(self) -> float | None:
        """Return when :meth:`handle_timer` is due."""
        times = [
            attempt.again_at_s if attempt.step_deadline_s is None else attempt.step_deadline_s
            for attempt in self._attempts.values()
        ]
        return min(times, default=None)

    def handle_timer(self, now_s: float) -> None:
        """Go on with the next node where one has taken too long, and give up what is over."""
        for attempt in list(self._attempts.values()):
            if attempt.step_deadline_s is not None:
                if now_s >= attempt.step_deadline_s:
                    reason = Refusal.TARGET_SILENT.value if attempt.request_id is not None else NOT_REACHED
                    self._failed(attempt, reason, now_s)
            elif attempt.repairs is not None and now_s >= attempt.again_at_s:
                self._again(attempt, now_s)

    def _again(self, attempt: _Attempt, now_s: float) -> None:
        """Begin another round of a repair, with the nodes that are there now."""
        if now_s >= attempt.deadline_s:
            del self._attempts[attempt.target]
            return
        by_stream = isinstance(attempt.left, StreamRelayPath)
        nodes = self._around.node_links()
        mode = _Mode.STREAM if by_stream else _Mode.CHANNEL
        able = [node for node in nodes if node.peer_id is not None and (by_stream or offers_channels(node))]
        able.sort(key=lambda node: node.peer_id == attempt.avoid)
        attempt.steps = [(mode, node.peer_id) for node in able if node.peer_id is not None]
        self._next_step(attempt, now_s)
