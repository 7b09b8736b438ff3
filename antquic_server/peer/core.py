"""
A whole peer without sockets and clocks.

Datagrams and the time go in, datagrams and events come out; the shell (``peer.endpoint``) and the virtual network of
the tests drive it in the same way::

    core.receive_datagram(data, path, now_s)     for everything that has arrived
    core.handle_timer(now_s)                     when core.next_deadline_s() has come
    for path, datagrams in core.flush(now_s)     after either, and after every call that writes
    core.take_events()                           after each flush
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from aioquic.quic.events import ConnectionTerminated, DatagramFrameReceived, StreamDataReceived, StreamReset

from antquic_server.errors import CoordinationDecodeError
from antquic_server.peer.events import (
    AddressObserved,
    DatagramArrived,
    DialFailed,
    LinkReady,
    LiveLinkChanged,
    MessageArrived,
    PeerEvent,
    PeerGone,
    PunchEnded,
    StreamActivity,
)
from antquic_server.peer.introductions import Introductions, Surroundings
from antquic_server.peer.link import Link, Path, Quic
from antquic_server.peer.links import Links
from antquic_server.peer.nat_behaviour import NatObserver, PortGrowth
from antquic_server.peer.punching import DETAILS, Failure
from antquic_server.peer.recovery import Recovery, data_arrived
from antquic_server.peer.registry import RANK_BYTES, RANK_CONTEXT, RANK_LABEL, Candidate, Registry
from antquic_server.peer.settings import PeerSettings
from antquic_server.peer.statistics import PeerStatistics, Tallies
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.codepoints import ApplicationErrorCode
from antquic_server.protocol.coordination import decode_envelope_untrusted, is_coordination_message
from antquic_server.protocol.frames import ObservedAddress
from antquic_server.protocol.liveness import answer_probe_untrusted
from antquic_server.protocol.seam.connection import ExtensionFrameReceived

__all__ = ["DIRECT_SERVER_NAME", "PUNCH_SERVER_NAME", "PeerCore"]

DIRECT_SERVER_NAME = "peer"
PUNCH_SERVER_NAME = "nat-traversal-peer"
DRAIN_S = 5.0
"""Silence after which a superseded connection is closed; ant-quic's own grace."""
_UNIDIRECTIONAL = 2
_PARTIAL_MESSAGES = 4
"""Unfinished messages of one peer may together be as long as this many of the longest."""


class PeerCore:
    """One peer; see the module text for how to drive it."""

    def __init__(
        self,
        *,
        settings: PeerSettings,
        own_peer_id: bytes,
        make_client: Callable[[str], Quic],
        make_server: Callable[[bytes], Quic],
        path_to: Callable[[SocketAddress], Path | None],
        local_addresses: Callable[[], list[SocketAddress]],
        unix_s: Callable[[], float],
    ) -> None:
        self.settings = settings
        self.own_peer_id = own_peer_id
        self.tallies = Tallies()
        self.registry = Registry()
        self.nat = NatObserver()
        self.links = Links(
            observer=self,
            make_server=make_server,
            handshake_timeout_s=settings.dial_timeout_s,
            keep_alive_s=settings.keep_alive_s,
            max_connections=settings.max_connections,
        )
        self._make_client = make_client
        self._path_to = path_to
        self._local_addresses = local_addresses
        self._events: deque[PeerEvent] = deque()
        around = Surroundings(
            send=self._send_message,
            find=self.links.find,
            own_candidates=self._own_candidates,
            port_growth=self._port_growth,
            dial=self._dial_candidate,
            ended=self._punch_ended,
            unix_s=unix_s,
        )
        self.introductions = Introductions(around, settings=settings, own_peer_id=own_peer_id, tallies=self.tallies)
        self.recovery = Recovery(self.registry, self.links.find, self.links.touch, self._look_for)

    # What callers ask for.

    def live_link(self, peer_id: bytes) -> Link | None:
        """Return the connection to use for a peer."""
        return self.links.find(self.registry.live(peer_id))

    @property
    def node_links(self) -> list[Link]:
        """Connections to nodes, newest first, the live one of each node only."""
        found = [link for link in self.links if link.is_node and link.ready and not link.quic.is_closing]
        return [link for link in reversed(found) if link.drain_at_s is None]

    def dial(self, address: SocketAddress, now_s: float) -> Link | None:
        """Dial a node or a peer whose address is known; None if no socket of ours can send there."""
        path = self._path_to(address)
        if path is None:
            return None
        return self.links.dial(
            self._make_client(DIRECT_SERVER_NAME),
            path,
            now_s=now_s,
            deadline_s=now_s + self.settings.dial_timeout_s,
            dialled=address,
            is_node=True,
        )

    def connect_peer(
        self, target: bytes, coordinators: list[Link], now_s: float, deadline_s: float | None = None
    ) -> None:
        """Reach a peer through a node, within ``discovery_timeout_s`` or sooner; ends with ``PunchEnded``."""
        if not self.introductions.is_asking(target):
            self.introductions.begin(target, [link.number for link in coordinators], now_s, deadline_s)

    def _look_for(self, target: bytes, now_s: float) -> None:
        if self.node_links:
            self.connect_peer(target, self.node_links, now_s)

    def close_peer(self, peer_id: bytes, code: int, reason: str) -> None:
        """Close every connection to one peer, superseded ones as well; flush afterwards."""
        for number in self.registry.numbers(peer_id):
            link = self.links.find(number)
            if link is not None:
                link.quic.close(error_code=code, reason_phrase=reason)
                self.links.touch(link)
        self._cancel_dials(peer_id)

    def close(self, code: int, reason: str) -> None:
        """Close every connection; flush afterwards."""
        for link in self.links:
            link.quic.close(error_code=code, reason_phrase=reason)
            self.links.touch(link)

    def statistics(self) -> PeerStatistics:
        """Return a snapshot of all figures."""
        newest = self.nat.addresses[:1]
        ipv4 = not newest or newest[0].is_ipv4
        live = [(peer_id, self.live_link(peer_id)) for peer_id in self.registry.peers]
        return PeerStatistics.of(
            self.tallies,
            active_connections=len(self.registry),
            connected_nodes=len(self.node_links),
            external_addresses=tuple(map(str, self.nat.addresses)),
            nat_mapping=self.nat.mapping(ipv4=ipv4).value,
            nat_port_step=self.nat.port_step(ipv4=ipv4),
            path_mtu_bytes={peer_id.hex(): link.quic.path_mtu_bytes for peer_id, link in live if link is not None},
            drops=dict(self.tallies.drops + self.links.drops),
        )

    # Driving.

    def receive_datagram(self, data: bytes, path: Path, now_s: float) -> None:
        """Take in one datagram."""
        self.tallies.datagrams_received += 1
        self.tallies.bytes_received += len(data)
        self.links.receive_datagram(data, path, now_s)

    def next_deadline_s(self) -> float | None:
        """Return when :meth:`handle_timer` is due."""
        times = (self.links.next_deadline_s(), self.introductions.next_deadline_s())
        return min((at_s for at_s in times if at_s is not None), default=None)

    def handle_timer(self, now_s: float) -> None:
        """Fire what is due."""
        for link in self.links.handle_timer(now_s):
            if link.drain_at_s is not None and now_s >= link.drain_at_s:
                self._drained(link, now_s)
            self.recovery.check(link, now_s)
        self.introductions.handle_timer(now_s)

    def flush(self, now_s: float) -> tuple[list[tuple[Path, list[bytes]]], list[Link]]:
        """Return what is to be sent, by path, and which connections have moved."""
        out, seen = self.links.flush(now_s)
        for _, datagrams in out:
            self.tallies.datagrams_sent += len(datagrams)
            self.tallies.bytes_sent += sum(map(len, datagrams))
        return out, seen

    def take_events(self) -> list[PeerEvent]:
        """Return what has happened since the last call."""
        events = list(self._events)
        self._events.clear()
        return events

    # What the table of connections reports.

    def link_ready(self, link: Link, now_s: float) -> None:
        """Decide which connection of the peer is live; see ``Links``."""
        peer_id = link.peer_id
        assert peer_id is not None, "a link is ready only with its peer known"
        if peer_id == self.own_peer_id:
            link.ready = False
            link.quic.close(error_code=0, reason_phrase="connected to itself")
            return
        rank = link.quic.export_keying_material(RANK_LABEL, RANK_CONTEXT, RANK_BYTES)
        before = self.live_link(peer_id)
        # The other side's dial may come in after ours has ended the attempt.
        succeeds_punched = before is not None and before.punched
        link.punched = link.introduced or peer_id in self.introductions or succeeds_punched
        self.tallies.successful_connections += 1
        if link.punched:
            self.tallies.punched_connections += 1
        else:
            self.tallies.direct_connections += 1
        decision = self.registry.add(
            peer_id, Candidate(number=link.number, dialled_by_us=link.dialled_by_us, rank=rank)
        )
        live = self.links.find(decision.live)
        assert live is not None, "the registry knows existing links only"
        if decision.superseded is not None:
            self._supersede(link if live is not link else before, live, now_s)
        self.recovery.found(link, now_s)
        self.introductions.connected(peer_id, now_s)
        self._cancel_dials(peer_id)
        self._events.append(LinkReady(link=link, live=live))

    def link_closed(self, link: Link, event: ConnectionTerminated) -> None:
        """Find out what the end of a connection means; see ``Links``."""
        if not link.ready or link.peer_id is None:
            if link.dialled is not None and not link.introduced:
                self.tallies.failed_connections += 1
                timed_out = event.reason_phrase in ("handshake timeout", "Idle timeout")
                failure = Failure.DIAL_TIMEOUT if timed_out else Failure.REFUSED
                detail = DETAILS[failure] if timed_out or not event.reason_phrase else event.reason_phrase
                self._events.append(DialFailed(link=link, failure=failure, detail=detail))
            return
        was_live = self.registry.live(link.peer_id) == link.number
        number = self.registry.remove(link.peer_id, link.number)
        live = self.links.find(number)
        if live is None:
            self._events.append(PeerGone(peer_id=link.peer_id, code=event.error_code, reason=event.reason_phrase))
        elif was_live:
            live.drain_at_s = None
            self._events.append(LiveLinkChanged(peer_id=link.peer_id, live=live))
        self.introductions.link_lost(link, link.last_received_s)

    def link_event(self, link: Link, event: Any, now_s: float) -> None:
        """Sort what arrives on a connection; see ``Links``."""
        if isinstance(event, StreamDataReceived):
            data_arrived(link, now_s)
            if event.stream_id & _UNIDIRECTIONAL:
                self._collect_untrusted(link, event, now_s)
                return
        if isinstance(event, ExtensionFrameReceived):
            if isinstance(event.frame, ObservedAddress) and event.used and link.is_node and link.dialled is not None:
                own = link.quic.observed_by_peer.address
                if own is not None and self.nat.observe(link.dialled, own, order=link.number):
                    self._events.append(AddressObserved())
        elif isinstance(event, DatagramFrameReceived):
            self._events.append(DatagramArrived(link=link, data=event.data))
        else:
            if isinstance(event, StreamReset):
                link.partial_messages.pop(event.stream_id, None)
            self._events.append(StreamActivity(link=link, event=event))

    # Messages.

    def _collect_untrusted(self, link: Link, event: StreamDataReceived, now_s: float) -> None:
        """Put a unidirectional stream together; at its end it is one message."""
        partial = link.partial_messages
        data = partial.get(event.stream_id)
        if data is None:
            data = partial[event.stream_id] = bytearray()
        data += event.data
        longest = self.settings.max_message_bytes
        too_much = sum(map(len, partial.values())) > _PARTIAL_MESSAGES * longest
        if len(data) > longest or too_much:
            del partial[event.stream_id]
            self.tallies.drops["message_too_long"] += 1
            if not event.end_stream:
                link.quic.stop_stream(event.stream_id, ApplicationErrorCode.NONE)
        elif event.end_stream:
            del partial[event.stream_id]
            self._message_untrusted(link, bytes(data), now_s)

    def _message_untrusted(self, link: Link, data: bytes, now_s: float) -> None:
        if not data:
            return
        if is_coordination_message(data):
            try:
                envelope = decode_envelope_untrusted(data)
            except CoordinationDecodeError:
                envelope = None
            if envelope is None or not link.is_node or not link.ready:
                self.tallies.drops["coordination_message"] += 1
                return
            self.introductions.handle_message(envelope, link, now_s)
            return
        answer = answer_probe_untrusted(data)
        if answer is not None:
            self._send_message(link, answer)
        else:
            self._events.append(MessageArrived(link=link, data=data))

    def _send_message(self, link: Link, data: bytes) -> bool:
        sent = not link.quic.is_closing and link.quic.send_message(data)
        self.links.touch(link)
        return sent

    # Hole punching.

    def _own_candidates(self, coordinator: Link) -> list[SocketAddress]:
        found: list[SocketAddress] = []
        if coordinator.dialled is not None:
            found = self.nat.candidates(
                coordinator.dialled, self.settings.max_candidates, predict=self.settings.enable_symmetric_nat
            )
        return found or self._local_addresses()[: self.settings.max_candidates]

    def _port_growth(self, coordinator: Link) -> PortGrowth:
        return PortGrowth() if coordinator.dialled is None else self.nat.port_growth(coordinator.dialled)

    def _dial_candidate(self, address: SocketAddress, target: bytes, now_s: float, deadline_s: float) -> None:
        for link in self.links:
            if link.introduced and link.dialled == address and link.expected_peer_id == target and not link.ready:
                link.handshake_deadline_s = deadline_s
                link.burst_again(now_s)
                link.bursts_left_s.append(now_s)
                self.links.touch(link)
                return
        path = self._path_to(address)
        if path is None:
            self.tallies.drops["no_route"] += 1
            return
        self.links.dial(
            self._make_client(PUNCH_SERVER_NAME),
            path,
            now_s=now_s,
            deadline_s=deadline_s,
            dialled=address,
            expected_peer_id=target,
            introduced=True,
        )

    def _punch_ended(self, target: bytes, failure: Failure | None, invited: bool) -> None:
        if failure is None:
            self.tallies.successful_hole_punches += 1
        else:
            self.tallies.failed_hole_punches += 1
            self._cancel_dials(target)
        self._events.append(PunchEnded(target=target, failure=failure, invited=invited))

    def _cancel_dials(self, target: bytes) -> None:
        """End the dials that are not needed any more; whoever has heard of one is told."""
        for link in self.links:
            wanted = link.ready or link.quic.handshake_complete
            if link.introduced and link.expected_peer_id == target and not wanted:
                if link.quic.is_pristine:
                    link.quic.abandon(0, "not needed")
                else:
                    link.quic.close(error_code=ApplicationErrorCode.SUPERSEDED, reason_phrase="Superseded")
                self.links.touch(link)

    # Several connections to one peer.

    def _supersede(self, loser: Link | None, live: Link, now_s: float) -> None:
        if loser is None:
            return
        self.tallies.superseded_connections += 1
        loser.superseded_at_s = now_s
        loser.drain_at_s = now_s + DRAIN_S
        live.drain_at_s = None
        # An older connection that stays must prove that somebody is still there.
        live.quic.send_ping(0)
        self.links.touch(loser)
        self.links.touch(live)

    def _drained(self, link: Link, now_s: float) -> None:
        """Close a superseded connection once nothing moves on it, or the other one if that turns out dead."""
        quiet_since_s = max(link.last_progress_s, link.superseded_at_s)
        if now_s - quiet_since_s < DRAIN_S:
            link.drain_at_s = quiet_since_s + DRAIN_S
            return
        live = None if link.peer_id is None else self.live_link(link.peer_id)
        link.drain_at_s = None
        if live is not None and live is not link and live.last_received_s < link.superseded_at_s:
            live.quic.abandon(0, "no sign of life")
            self.links.touch(live)
            return
        link.quic.close(error_code=ApplicationErrorCode.SUPERSEDED, reason_phrase="Superseded")
        self.links.touch(link)
