"""
Everything a peer does with nodes that carry its traffic, behind one door for the core.

============================  ========================================================================================
part                          does
============================  ========================================================================================
``relays``                    channels: requests, offers, binds, which datagram belongs to which
``relay_stream``              stream relays, as their client
``relay_attempts``            which node is asked for what, when punching has failed or a relay is lost
``relay_listener``            a relay that is kept, for being reached
``moves``, ``upgrades``       connections change their path, to another relay or to a direct one
============================  ========================================================================================

A datagram that a link sends over a relay is wrapped for the node here, and what nodes bring is unwrapped.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from antquic_server.errors import RelayDecodeError
from antquic_server.peer.channel import Channel
from antquic_server.peer.events import PathChanged, RelayListening
from antquic_server.peer.introductions import Introductions
from antquic_server.peer.link import Link, Path
from antquic_server.peer.moves import Moves
from antquic_server.peer.punching import Failure
from antquic_server.peer.relay_attempts import MENDABLE, RelayAttempts, RelayingSurroundings
from antquic_server.peer.relay_listener import RelayListener
from antquic_server.peer.relay_paths import RelayPath, StreamRelayPath, is_relayed
from antquic_server.peer.relay_stream import StreamRelay, StreamRelays
from antquic_server.peer.relays import LOST_UNANSWERED, LOST_UNKNOWN, Relays, RelaySurroundings
from antquic_server.peer.settings import PeerSettings
from antquic_server.peer.statistics import Tallies
from antquic_server.peer.upgrades import Upgrades
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.relay_limits import RelayEnd

__all__ = ["HANG_UP_S", "CoreSurroundings", "Relaying"]

HANG_UP_S = 2.0
"""How long a relay stays after its connection has left it: packets may be on their way through it."""
UNUSED_S = 30.0
"""How long a relay stays through which no connection comes about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreSurroundings:
    """What relaying needs of the core."""

    send: Callable[[Link, bytes], bool]
    touch: Callable[[Link], None]
    links: Callable[[], list[Link]]
    node_links: Callable[[], list[Link]]
    live_link: Callable[[bytes], Link | None]
    receive: Callable[[bytes, Path, float], None]
    """Take in a datagram of QUIC."""
    dial: Callable[[Path, bytes, float, float], Link]
    introductions: Introductions
    adopt: Callable[[Link, float], None]
    close_spare: Callable[[Link], None]
    failed: Callable[[bytes, str, Failure | None], None]
    """Peer id, word of the refusal, why not direct: a peer is not reached through a relay either."""
    tell: Callable[[PathChanged | RelayListening], None]
    unix_s: Callable[[], float]


class Relaying:
    """The relays of one peer; see the module text for its parts."""

    def __init__(
        self, around: CoreSurroundings, *, settings: PeerSettings, own_peer_id: bytes, tallies: Tallies
    ) -> None:
        self._around = around
        self._settings = settings
        self._tallies = tallies
        self._paths: dict[Link, Path] = {}
        """Relayed connections and the path each was last seen on."""
        self._leaving: list[tuple[float, Path]] = []
        """Relays to be ended unless something uses them, and when."""
        channels = RelaySurroundings(send=around.send, node_link=self._node_link, unix_s=around.unix_s)
        self.channels = Relays(channels, observer=self, settings=settings, own_peer_id=own_peer_id, tallies=tallies)
        self.streams = StreamRelays(self, tallies)
        self._moves = Moves(touch=around.touch, moved=self._moved, failed=self._move_failed)
        self._upgrades = Upgrades(
            moves=self._moves,
            punch=self._punch,
            adopt=around.adopt,
            close=around.close_spare,
            enabled=settings.relay == "auto",
        )
        self.attempts = RelayAttempts(
            RelayingSurroundings(
                node_links=around.node_links,
                may_stream=lambda node: node.coordinates or settings.relay == "only",
                dial=around.dial,
                introduce=self._introduce,
                move=self._moves.begin,
                touch=around.touch,
                ended=self._attempt_failed,
            ),
            relays=self.channels,
            streams=self.streams,
        )
        self.listener = RelayListener(
            streams=self.streams, node_links=around.node_links, touch=around.touch, changed=self._listening
        )
        if settings.relay_listen:
            self.listener.wanted = True

    # Reaching a peer.

    def begin(
        self,
        target: bytes,
        nodes: list[Link],
        now_s: float,
        *,
        why: Failure | None,
        addresses: tuple[SocketAddress, ...] = (),
        channels_only_s: float | None = None,
    ) -> bool:
        """
        Have one of the nodes carry a connection to a peer; False if none of them can.

        ``why`` is the failure of hole punching, which may be one that no relay mends; None if it was not tried. With
        ``channels_only_s`` it is to be a channel, within so many seconds.
        """
        if self._settings.relay == "never" or (why is not None and why not in MENDABLE):
            return False
        any_relay = channels_only_s is None
        timeout_s = self._settings.relay_timeout_s if channels_only_s is None else channels_only_s
        return target in self.attempts or self.attempts.begin(
            target, nodes, now_s, timeout_s=timeout_s, why=why, addresses=addresses, streams_too=any_relay
        )

    def _attempt_failed(self, target: bytes, refusal: str, why: Failure | None) -> None:
        self._tallies.relay_refusals[refusal] += 1
        self._around.failed(target, refusal, why)

    def close_peer(self, peer_id: bytes) -> list[Link]:
        """End everything that goes on for a peer; returns further connections to close."""
        self.attempts.give_up(peer_id)
        return self._upgrades.give_up(peer_id)

    def hang_up(self) -> None:
        """End every relay; flush afterwards."""
        for channel in self.channels:
            self.channels.hang_up(channel)
        for relay in self.streams:
            self.streams.close(relay)
            self._around.touch(relay.link)

    def facts(self) -> dict[str, Any]:
        """Return what the statistics say of relays."""
        addresses = tuple(str(relay.address) for relay in self.streams if relay.address is not None)
        counts = {"relay_channels": len(self.channels), "relay_streams": len(self.streams)}
        return {**counts, "relay_addresses": addresses}

    def _introduce(self, target: bytes, node: Link, now_s: float, deadline_s: float) -> None:
        """Have the other side told of the relay we have at a node, and be told where it is."""
        if target not in self._around.introductions:
            self._around.introductions.begin(target, [node.number], now_s, deadline_s, first_round=2)

    def _punch(self, target: bytes, now_s: float) -> bool:
        nodes = self._around.node_links()
        if not nodes or target in self._around.introductions:
            return False
        self._around.introductions.begin(target, [link.number for link in nodes], now_s)
        return True

    def _listening(self, address: SocketAddress | None, reason: str) -> None:
        self._around.tell(RelayListening(address=address, reason=reason))

    # What the core reports.

    def keep_as_spare(self, link: Link, live: Link | None, now_s: float) -> bool:
        """Decide about a new connection: whether it only shows a way for the live one."""
        assert link.peer_id is not None, "a link is ready only with its peer known"
        if live is not None:
            # It may have moved a moment ago, and nobody has looked since.
            self.look([live], now_s)
        return self._upgrades.keep(link.peer_id, link, live, now_s)

    def link_taken(self, link: Link, live: Link, now_s: float) -> None:
        """Take in a new connection, and which one of its peer is live now."""
        assert link.peer_id is not None, "a link is ready only with its peer known"
        if link.relayed:
            link.relayed_by = self._carrier(link)
            self._paths[link] = link.path
        self._watch(link.peer_id, live, now_s)
        self.attempts.connected(link.peer_id, live)

    def _watch(self, peer_id: bytes, live: Link | None, now_s: float) -> None:
        if live is not None and live.relayed:
            self._upgrades.watch(peer_id, live, now_s)
        else:
            self._upgrades.forget(peer_id)

    def node_ready(self, link: Link, now_s: float) -> None:
        """Take in that a node is connected."""
        self.attempts.node_ready(now_s)
        self.listener.node_ready(link, now_s)

    def link_closed(self, link: Link, now_s: float) -> None:
        """Take in that a connection has ended: what it carried, what carried it."""
        self._moves.give_up(link)
        self._upgrades.link_closed(link)
        self.attempts.link_closed(link, now_s)
        self.streams.link_closed(link, now_s)
        if link.ready and link.is_node and link.peer_id is not None:
            self.channels.node_lost(link.peer_id, now_s)
        before = self._paths.pop(link, None)
        if before is not None:
            self._leave(link.path, now_s, wait_s=0.0)

    def live_lost(self, peer_id: bytes, live: Link | None, now_s: float) -> Link | None:
        """Take in that the live connection of a peer has ended, and which one is live now; returns a spare if none."""
        self._watch(peer_id, live, now_s)
        return self._upgrades.take_spare(peer_id) if live is None else None

    def address_changed(self, now_s: float) -> None:
        """Take in that our address, or what is known of our NAT, has changed."""
        self.channels.rebind(now_s)
        self._upgrades.hurry(now_s)

    # Datagrams.

    def receive(self, data: bytes, path: Path, now_s: float) -> None:
        """Take in a datagram whose first byte is not QUIC's."""
        try:
            found = self.channels.receive_untrusted(data, path, now_s)
        except RelayDecodeError:
            self._tallies.drops["relay_malformed"] += 1
            return
        if found is not None:
            self._tallies.relayed_bytes_received += len(found[0])
            self._around.receive(*found, now_s)

    def message(self, data: bytes, link: Link, now_s: float) -> None:
        """Take in a message about channels."""
        try:
            self.channels.message_untrusted(data, link, now_s)
        except RelayDecodeError:
            self._tallies.drops["channel_message"] += 1

    def stream_event(self, link: Link, event: object, now_s: float) -> None:
        """Take in what happens on the stream of a relay."""
        for data, path in self.streams.stream_event(link, event, now_s):
            self._tallies.relayed_bytes_received += len(data)
            self._around.receive(data, path, now_s)

    def carry(self, out: list[tuple[Path, list[bytes]]], now_s: float) -> list[tuple[Path, list[bytes]]]:
        """Return what is to be sent as it goes to the network; what goes into streams is written there instead."""
        plain: list[tuple[Path, list[bytes]]] = []
        for path, datagrams in out:
            if isinstance(path, RelayPath):
                wrapped = self.channels.wrap(path, datagrams, now_s)
                if wrapped is None:
                    continue
                plain.append(wrapped)
            elif isinstance(path, StreamRelayPath):
                carrier = self.streams.send(path, datagrams)
                if carrier is None:
                    continue
                self._around.touch(carrier)
            else:
                plain.append((path, datagrams))
                continue
            self._tallies.relayed_bytes_sent += sum(map(len, datagrams))
        return plain

    def look(self, links: list[Link], now_s: float) -> None:
        """Take in which connections were looked after: some may have another path now."""
        for link in links:
            before = self._paths.get(link)
            if link.closed:
                continue
            if before is None and link.relayed and link.ready:
                # One that had stopped, and goes on through a relay.
                self._paths[link] = link.path
                link.relayed_by = self._carrier(link)
                if link.peer_id is not None and self._around.live_link(link.peer_id) is link:
                    self._upgrades.watch(link.peer_id, link, now_s)
            if before is None:
                continue
            if link in self._moves:
                self._moves.look(link, before, now_s)
            elif link.path != before:
                # The other side has moved it.
                self._moved(link, before, now_s)

    # What the parts report.

    def channel_added(self, channel: Channel, now_s: float) -> None:
        """See ``relays.Observer`` and ``relay_stream.Observer``, as for the next five."""
        self._leaving.append((now_s + UNUSED_S, channel.path))

    def channel_opened(self, request_id: int, channel: Channel, now_s: float) -> None:  # noqa: D102
        self.attempts.channel_opened(request_id, channel, now_s)

    def channel_refused(self, request_id: int, reason: str, now_s: float) -> None:  # noqa: D102
        self.attempts.channel_refused(request_id, reason, now_s)

    def channel_lost(self, channel: Channel, reason: str, now_s: float) -> None:  # noqa: D102
        self.attempts.channel_lost(channel, reason, now_s)
        node = self._node_link(channel.node)
        if node is not None and reason in (LOST_UNKNOWN, LOST_UNANSWERED):
            # The worker that had it may have had our connection as well: a stateless reset would say so.
            node.quic.send_ping(0)
            self._around.touch(node)
        if reason != RelayEnd.CLOSED:
            # The other side does not hang up on a connection that it wants to keep.
            self._repair(channel.path, now_s, avoid=channel.node if reason == LOST_UNANSWERED else None)

    def relay_opened(self, relay: StreamRelay, now_s: float) -> None:  # noqa: D102
        self._leaving.append((now_s + UNUSED_S, StreamRelayPath("", 0, relay.number)))
        self.attempts.relay_opened(relay, now_s)
        self.listener.opened(relay)

    def relay_ended(self, relay: StreamRelay, reason: str, now_s: float) -> None:  # noqa: D102
        self.attempts.relay_ended(relay, reason, now_s)
        self.listener.ended(relay, reason, now_s)
        for link in self._around.links():
            if isinstance(link.path, StreamRelayPath) and link.path.session == relay.number:
                self._repair(link.path, now_s)

    def _repair(self, path: Path, now_s: float, avoid: bytes | None = None) -> None:
        """Find another way for the connections of ours that have lost theirs."""
        for link in list(self._paths):
            useful = link.ready and not link.quic.is_closing and link.dialled_by_us and link.peer_id is not None
            if useful and link.path == path and (link.peer_id or b"") not in self.attempts:
                self.attempts.repair(link, now_s, timeout_s=self._settings.idle_timeout_s, avoid=avoid)

    def _moved(self, link: Link, before: Path, now_s: float) -> None:
        assert link.peer_id is not None, "only ready connections move"
        link.path = link.quic.get_peer_address() or link.path
        self.attempts.moved(link)
        if link.relayed:
            self._tallies.moved_to_relay += 1
            link.relayed_by = self._carrier(link)
            self._paths[link] = link.path
        else:
            self._tallies.moved_to_direct += 1
            link.relayed_by = link.why_not_direct = None
            link.punched = True
            self._paths.pop(link, None)
            self._upgrades.arrived(link.peer_id, now_s, by_us=link.dialled_by_us)
        self._leave(before, now_s, wait_s=HANG_UP_S)
        self._around.tell(PathChanged(link=link))

    def _move_failed(self, link: Link, path: Path, now_s: float) -> None:
        self._tallies.failed_moves += 1
        if link.peer_id is not None and not is_relayed(path):
            self._upgrades.move_failed(link.peer_id, link, now_s)

    def _leave(self, path: Path, now_s: float, *, wait_s: float) -> None:
        """End the relay behind a path once nothing of ours uses it."""
        if is_relayed(path):
            self._leaving.append((now_s + wait_s, path))

    def _end_unused(self, path: Path) -> None:
        channel, relay = self.channels.find(path), self.streams.find(path)
        if channel is not None and channel.path not in self._paths.values():
            self.channels.hang_up(channel)
        if relay is not None and relay is not self.listener.relay:
            sessions = {used.session for used in self._paths.values() if isinstance(used, StreamRelayPath)}
            if relay.number not in sessions and not self.attempts.uses(relay):
                self.streams.close(relay)
                self._around.touch(relay.link)

    def _carrier(self, link: Link) -> bytes | None:
        found = self.channels.find(link.path) or self.streams.find(link.path)
        return None if found is None else found.node

    def _node_link(self, node: bytes) -> Link | None:
        return next((link for link in self._around.node_links() if link.peer_id == node), None)

    # Time.

    def next_deadline_s(self) -> float | None:
        """Return when :meth:`handle_timer` is due."""
        parts = (self.channels, self.streams, self.attempts, self.listener, self._moves, self._upgrades)
        times = [part.next_deadline_s() for part in parts]
        times += [at_s for at_s, _ in self._leaving]
        return min((at_s for at_s in times if at_s is not None), default=None)

    def handle_timer(self, now_s: float) -> None:
        """Fire what is due; flush afterwards."""
        for part in (self.channels, self.streams, self.attempts, self.listener, self._moves):
            part.handle_timer(now_s)
        self._upgrades.handle_timer(now_s, self._is_direct)
        due = [item for item in self._leaving if item[0] <= now_s]
        self._leaving = [item for item in self._leaving if item[0] > now_s]
        for _, path in due:
            self._end_unused(path)

    def _is_direct(self, peer_id: bytes) -> bool:
        live = self._around.live_link(peer_id)
        return live is not None and not live.relayed
