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

from aioquic.quic.events import (
    ConnectionTerminated,
    DatagramFrameReceived,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)

from antquic_server.peer.dials import Dials, failed_dial
from antquic_server.peer.events import (
    AddressObserved,
    DatagramArrived,
    LinkReady,
    LiveLinkChanged,
    MessageArrived,
    PeerEvent,
    PeerGone,
    StreamActivity,
)
from antquic_server.peer.introductions import Introductions, Surroundings
from antquic_server.peer.link import Link, Path, Quic
from antquic_server.peer.links import Links
from antquic_server.peer.messages import Messages, Receivers
from antquic_server.peer.nat_behaviour import NatObserver, PortGrowth
from antquic_server.peer.punch_reports import report_punch
from antquic_server.peer.pursuits import Pursuits, PursuitSurroundings
from antquic_server.peer.recovery import Recovery, data_arrived
from antquic_server.peer.registry import RANK_BYTES, RANK_CONTEXT, RANK_LABEL, Candidate, Registry
from antquic_server.peer.relaying import CoreSurroundings, Relaying
from antquic_server.peer.settings import PeerSettings
from antquic_server.peer.statistics import PeerStatistics, Tallies
from antquic_server.peer.superseding import drained, supersede
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.frames import ObservedAddress
from antquic_server.protocol.seam.connection import ExtensionFrameReceived

__all__ = ["PeerCore"]

_UNIDIRECTIONAL = 2
_FIRST_QUIC_BYTE = 0x40
"""QUIC sets this bit (RFC 9000, section 17.2); what comes without it is about relay channels."""


class PeerCore:
    """One peer; see the module text for how to drive it."""

    def __init__(
        self,
        *,
        settings: PeerSettings,
        own_peer_id: bytes,
        make_client: Callable[[str], Quic],
        make_server: Callable[..., Quic],
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
        self._local_addresses = local_addresses
        self._events: deque[PeerEvent] = deque()
        self._now_s = 0.0
        self._dials = Dials(
            links=self.links,
            make_client=make_client,
            path_to=path_to,
            path_by_stream=self._path_by_stream,
            tallies=self.tallies,
        )
        self.introductions = self._make_introductions(unix_s)
        self.recovery = Recovery(self.registry, self.links.find, self.links.touch, self._look_for)
        self.relaying = self._make_relaying(unix_s)
        self._pursuits = self._make_pursuits()
        receivers = Receivers(
            coordination=self.introductions.handle_message,
            channel=self.relaying.message,
            answer=self._send_message,
            program=lambda link, data: self._events.append(MessageArrived(link=link, data=data)),
        )
        self._messages = Messages(receivers, settings=settings, tallies=self.tallies)

    def _make_introductions(self, unix_s: Callable[[], float]) -> Introductions:
        around = Surroundings(
            send=self._send_message,
            find=self.links.find,
            own_candidates=self._own_candidates,
            port_growth=self._port_growth,
            dial=self._dials.candidate,
            ended=lambda *told: self._pursuits.punch_ended(*told),  # noqa: PLW0108 - the pursuits are made last
            unix_s=unix_s,
        )
        return Introductions(around, settings=self.settings, own_peer_id=self.own_peer_id, tallies=self.tallies)

    def _make_relaying(self, unix_s: Callable[[], float]) -> Relaying:
        around = CoreSurroundings(
            send=self._send_message,
            touch=self.links.touch,
            links=lambda: list(self.links),
            node_links=lambda: self.node_links,
            live_link=self.live_link,
            receive=self.links.receive_datagram,
            dial=self._dials.relayed,
            introductions=self.introductions,
            adopt=self._adopt,
            close_spare=self._dials.supersede,
            failed=lambda *told: self._pursuits.relay_failed(*told),  # noqa: PLW0108 - likewise
            tell=self._events.append,
            unix_s=unix_s,
        )
        return Relaying(around, settings=self.settings, own_peer_id=self.own_peer_id, tallies=self.tallies)

    def _make_pursuits(self) -> Pursuits:
        around = PursuitSurroundings(
            now_s=lambda: self._now_s,
            live_link=self.live_link,
            cancel_dials=self._dials.cancel,
            tell=self._events.append,
            report=self._report_punch,
        )
        return Pursuits(
            around,
            introductions=self.introductions,
            relaying=self.relaying,
            settings=self.settings,
            own_peer_id=self.own_peer_id,
            tallies=self.tallies,
        )

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
        return self._dials.direct(address, now_s, now_s + self.settings.dial_timeout_s)

    def connect_peer(
        self, target: bytes, coordinators: list[Link], now_s: float, deadline_s: float | None = None
    ) -> None:
        """
        Reach a peer through a node; ends with ``PunchEnded``.

        Hole punching has ``discovery_timeout_s``, or until ``deadline_s``. After ``relay_after_s`` of it a node that
        offers channels is asked to carry the connection; any relay, if it comes to that, has ``relay_timeout_s`` more.
        """
        self._now_s = now_s
        self._pursuits.begin(target, coordinators, now_s, deadline_s)

    def _look_for(self, target: bytes, now_s: float) -> None:
        if self.node_links:
            self.connect_peer(target, self.node_links, now_s)

    def close_peer(self, peer_id: bytes, code: int, reason: str) -> None:
        """Close every connection to one peer, superseded ones and those not complete as well; flush afterwards."""
        self.registry.outdate(peer_id, self.links.newest_number)
        found = [self.links.find(number) for number in self.registry.numbers(peer_id)]
        for link in [*found, *self.relaying.close_peer(peer_id)]:
            if link is not None:
                link.quic.close(error_code=code, reason_phrase=reason)
                self.links.touch(link)
        self._dials.cancel(peer_id)

    def close(self, code: int, reason: str, *, relayed_only: bool = False) -> None:
        """Close every connection, or every one that a node carries; flush afterwards."""
        for link in self.links:
            if link.relayed or not relayed_only:
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
            **self.relaying.facts(),
        )

    # Driving.

    def receive_datagram(self, data: bytes, path: Path, now_s: float) -> None:
        """Take in one datagram."""
        self.tallies.datagrams_received += 1
        self.tallies.bytes_received += len(data)
        self._now_s = now_s
        if data and data[0] < _FIRST_QUIC_BYTE:
            self.relaying.receive(data, path, now_s)
        else:
            self.links.receive_datagram(data, path, now_s)

    def next_deadline_s(self) -> float | None:
        """Return when :meth:`handle_timer` is due."""
        parts = (self.links, self.introductions, self.relaying)
        times = [part.next_deadline_s() for part in parts]
        return min((at_s for at_s in times if at_s is not None), default=None)

    def handle_timer(self, now_s: float) -> None:
        """Fire what is due."""
        self._now_s = now_s
        for link in self.links.handle_timer(now_s):
            if link.drain_at_s is not None and now_s >= link.drain_at_s:
                touched = drained(link, None if link.peer_id is None else self.live_link(link.peer_id), now_s)
                self.links.touch(touched or link)
            self.recovery.check(link, now_s)
        self.introductions.handle_timer(now_s)
        self.relaying.handle_timer(now_s)

    def flush(self, now_s: float) -> tuple[list[tuple[Path, list[bytes]]], list[Link]]:
        """Return what is to be sent, by path, and which connections have moved."""
        self._now_s = now_s
        out: list[tuple[Path, list[bytes]]] = []
        moved: dict[Link, None] = {}
        while True:
            written, seen = self.links.flush(now_s)
            moved |= dict.fromkeys(seen)
            out += self.relaying.carry(written, now_s)
            self.relaying.look(seen, now_s)
            if not self.links.has_touched:
                break
        out += self.relaying.channels.take_binds(now_s)
        for _, datagrams in out:
            self.tallies.datagrams_sent += len(datagrams)
            self.tallies.bytes_sent += sum(map(len, datagrams))
        return out, list(moved)

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
        if self.registry.is_outdated(peer_id, link.number):
            # A handshake that was under way when the program closed the connection to this peer.
            link.ready = False
            self._dials.supersede(link)
            return
        before = self.live_link(peer_id)
        # The other side's dial may come in after ours has ended the attempt.
        succeeds_punched = before is not None and before.punched
        link.punched = link.introduced or peer_id in self.introductions or succeeds_punched or link.relayed
        self.tallies.connected(punched=link.punched, relayed=link.relayed)
        if self.relaying.keep_as_spare(link, before, now_s):
            assert before is not None, "a spare is one beside another connection"
            self._events.append(LinkReady(link=link, live=before))
        else:
            self._adopt(link, now_s)
        self.introductions.connected(peer_id, now_s, directly=not link.relayed)
        self._dials.cancel(peer_id)
        if link.is_node:
            self.relaying.node_ready(link, now_s)

    def _adopt(self, link: Link, now_s: float) -> None:
        """Take a connection in among those of its peer, of which one is live."""
        peer_id = link.peer_id
        assert peer_id is not None, "a link is ready only with its peer known"
        rank = link.quic.export_keying_material(RANK_LABEL, RANK_CONTEXT, RANK_BYTES)
        before = self.live_link(peer_id)
        candidate = Candidate(number=link.number, dialled_by_us=link.dialled_by_us, rank=rank)
        decision = self.registry.add(peer_id, candidate)
        live = self.links.find(decision.live)
        assert live is not None, "the registry knows existing links only"
        loser = link if live is not link else before
        if decision.superseded is not None and loser is not None:
            self.tallies.superseded_connections += 1
            supersede(loser, live, now_s)
            self.links.touch(loser)
            self.links.touch(live)
        self.recovery.found(link, now_s)
        self.relaying.link_taken(link, live, now_s)
        self._events.append(LinkReady(link=link, live=live))

    def link_closed(self, link: Link, event: ConnectionTerminated) -> None:
        """Find out what the end of a connection means; see ``Links``."""
        self.relaying.link_closed(link, self._now_s)
        if not link.ready or link.peer_id is None:
            if link.dialled is not None and not link.introduced:
                self.tallies.failed_connections += 1
                self._events.append(failed_dial(link, event.reason_phrase))
            return
        if link.number not in self.registry.numbers(link.peer_id):
            # A spare, of which nobody has heard.
            return
        was_live = self.registry.live(link.peer_id) == link.number
        number = self.registry.remove(link.peer_id, link.number)
        live = self.links.find(number)
        spare = self.relaying.live_lost(link.peer_id, live, self._now_s) if was_live else None
        if spare is not None:
            self._adopt(spare, self._now_s)
            live = self.live_link(link.peer_id)
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
                self._messages.take_untrusted(link, event, now_s)
                return
        if isinstance(event, ExtensionFrameReceived):
            if isinstance(event.frame, ObservedAddress) and event.used and link.is_node and link.dialled is not None:
                own = link.quic.observed_by_peer.address
                if own is not None and self.nat.observe(link.dialled, own, order=link.number):
                    self.relaying.address_changed(now_s)
                    self._events.append(AddressObserved())
        elif isinstance(event, DatagramFrameReceived):
            self._events.append(DatagramArrived(link=link, data=event.data))
        elif isinstance(event, StreamDataReceived | StreamReset | StopSendingReceived):
            link.partial_messages.pop(event.stream_id, None)
            if self.relaying.streams.owns(link, event.stream_id):
                self.relaying.stream_event(link, event, now_s)
            else:
                self._events.append(StreamActivity(link=link, event=event))

    # Messages.

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

    def _report_punch(self, number: int, other: bytes, succeeded: bool) -> None:
        report_punch(self.links.find(number), other, succeeded, self.nat, self._send_message)

    # Relays.

    def _path_by_stream(self, target: bytes, address: SocketAddress) -> Path | None:
        return self.relaying.attempts.path_by_stream(target, address)
