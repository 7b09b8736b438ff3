"""
A network in memory with NATs and a clock that jumps.

Hosts are whole peers without sockets (``antquic_server.peer.core``), over real QUIC connections or over stand-ins that
cost next to nothing; a node introduces them with the coordinator's own rules. NATs map and filter as RFC 4787 says, and
keep state like Linux: what has come in through a mapping is answered through that mapping. Everything is seeded.

:func:`direct_in_theory` says for which pairs of NATs a direct connection is possible at all.
"""

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from itertools import count
from typing import Any

from aioquic.quic.events import ConnectionTerminated, StreamDataReceived

from antquic_server.ipc.punch_messages import PunchReported
from antquic_server.peer.core import PeerCore
from antquic_server.peer.events import PeerEvent
from antquic_server.peer.factory import QuicFactory
from antquic_server.peer.link import Link, Quic
from antquic_server.peer.links import Links
from antquic_server.peer.settings import PeerSettings
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.address_discovery import Mapping as NatMapping
from antquic_server.protocol.coordination import (
    CoordinationAccepted,
    CoordinationMessage,
    CoordinationRejected,
    CoordinationRequest,
    Envelope,
    RejectionReason,
    decode_envelope_untrusted,
    encode_envelope,
)
from antquic_server.protocol.coordinator import PeerAddresses, choose_addresses, refusal
from antquic_server.protocol.punch_report import PREFIX as PUNCH_REPORT
from antquic_server.protocol.punch_report import PunchReport, decode_punch_report_untrusted
from antquic_server.protocol.raw_public_key import peer_id as derive_peer_id
from antquic_server.protocol.relay_control import ChannelMessage, encode_channel_message, is_channel_message
from antquic_server.supervisor.punches import Punches
from support.stand_in import StandIn, public_key_of
from support.virtual_relay import ChannelBroker, StreamPorts

__all__ = ["Dependence", "Host", "NatKind", "VirtualNetwork", "attempt", "direct_by_guessing", "direct_in_theory"]

Place = tuple[str, int]
START_S = 1000.0
FIRST_QUIC_BYTE = 0x40
TIMER_SLACK_S = 1e-6
PEER_PORT = 4433
MAX_STEPS = 200_000


class Dependence(Enum):
    """On what of the remote end a mapping or a filter depends (RFC 4787, sections 4.1 and 5)."""

    NOTHING = "ei"
    ADDRESS = "ad"
    ADDRESS_AND_PORT = "apd"


@dataclass(frozen=True, slots=True, kw_only=True)
class NatKind:
    """What a NAT does; ``step`` is the distance of ports given out one after the other, 0 for random ones."""

    mapping: Dependence
    filtering: Dependence
    step: int = 0

    @property
    def is_symmetric(self) -> bool:
        """Whether another mapping is made for another destination."""
        return self.mapping is not Dependence.NOTHING

    def __str__(self) -> str:
        return f"{self.mapping.value}m-{self.filtering.value}f-{self.step or 'random'}"


def direct_in_theory(one: NatKind | None, other: NatKind | None) -> bool:
    """
    Whether two hosts that dial each other's mapping towards a node get through, without guessing ports.

    One direction is enough: the answer takes the way of the question. None is a host without a NAT.
    """
    return _gets_in(one, other) or _gets_in(other, one)


def _gets_in(source: NatKind | None, destination: NatKind | None) -> bool:
    if destination is None or destination.filtering is Dependence.NOTHING:
        return True
    if destination.is_symmetric:
        # What it has sent to us left from another port than the one we send to.
        return False
    return destination.filtering is Dependence.ADDRESS or source is None or not source.is_symmetric


def direct_by_guessing(one: NatKind | None, other: NatKind | None) -> bool:
    """Whether they get through once each also dials the ports a counting NAT would give out next."""
    return direct_in_theory(one, other) or _guessed(one, other) or _guessed(other, one)


def _guessed(source: NatKind | None, destination: NatKind | None) -> bool:
    """Whether the mapping a symmetric NAT makes towards us can be guessed, and lets us in."""
    if destination is None or not destination.is_symmetric or not destination.step:
        return False
    if destination.filtering is not Dependence.ADDRESS_AND_PORT or source is None or not source.is_symmetric:
        return True
    return bool(source.step)


def _key(dependence: Dependence, remote: Place) -> tuple[Any, ...]:
    if dependence is Dependence.NOTHING:
        return ()
    return remote[:1] if dependence is Dependence.ADDRESS else remote


class Nat:
    """One NAT with one outside address."""

    def __init__(self, kind: NatKind, outside: str, randomness: random.Random) -> None:
        self.kind = kind
        self.outside = outside
        self._randomness = randomness
        self._next_port = randomness.randrange(20_000, 30_000)
        self._mappings: dict[tuple[Any, ...], int] = {}
        self._inside: dict[int, Place] = {}
        self._talked: set[tuple[Any, ...]] = set()
        self._sessions: dict[tuple[Place, Place], int] = {}

    def outwards(self, inside: Place, remote: Place) -> Place:
        """Return the outside address of a packet from ``inside`` to ``remote``."""
        port = self._sessions.get((inside, remote))
        if port is None:
            key = (inside, *_key(self.kind.mapping, remote))
            port = self._mappings.get(key)
            if port is None:
                port = self._mappings[key] = self._new_port()
                self._inside[port] = inside
        self._talked.add((port, *_key(self.kind.filtering, remote)))
        return self.outside, port

    def inwards(self, port: int, remote: Place) -> Place | None:
        """Return where a packet from ``remote`` to an outside port goes, None if it is dropped."""
        inside = self._inside.get(port)
        allowed = self.kind.filtering is Dependence.NOTHING
        if inside is None or not (allowed or (port, *_key(self.kind.filtering, remote)) in self._talked):
            return None
        self._sessions[inside, remote] = port
        return inside

    def rebind(self) -> None:
        """Forget every mapping: what is sent from now on comes from new ports, what arrives at old ones is dropped."""
        self._mappings.clear()
        self._inside.clear()
        self._talked.clear()
        self._sessions.clear()

    def _new_port(self) -> int:
        while True:
            if self.kind.step:
                self._next_port += self.kind.step
                return self._next_port
            port = self._randomness.randrange(30_000, 60_000)
            if port not in self._inside:
                return port


class Host:
    """A peer, perhaps behind a NAT; ``events`` is everything its core has told."""

    def __init__(self, network: "VirtualNetwork", name: str, nat: Nat | None, core: PeerCore, place: Place) -> None:
        self.name = name
        self.nat = nat
        self.core = core
        self.place = place
        self.events: list[PeerEvent] = []
        self._network = network

    @property
    def peer_id(self) -> bytes:
        """The peer's id."""
        return self.core.own_peer_id

    def receive(self, data: bytes, source: Place, now_s: float) -> None:
        """Take in a datagram."""
        self.core.receive_datagram(data, source, now_s)

    def flush(self, now_s: float) -> None:
        """Send what is due."""
        out, _ = self.core.flush(now_s)
        for path, datagrams in out:
            for data in datagrams:
                self._network.send(self, path, data)
        self.events += self.core.take_events()

    def next_deadline_s(self) -> float | None:
        """When it wants to be woken."""
        return self.core.next_deadline_s()

    def handle_timer(self, now_s: float) -> None:
        """Wake it."""
        self.core.handle_timer(now_s)

    def connected_to(self, other: "Host") -> bool:
        """Whether it has a live connection to another host."""
        return self.core.live_link(other.peer_id) is not None


class Node:
    """A coordinator by the rules of ours, at a public address."""

    def __init__(self, network: "VirtualNetwork", place: Place) -> None:
        self.place = place
        self.nat = None
        self.requests = 0
        self.silent = False
        """Never answer a request."""
        self.refuse: RejectionReason | None = None
        """Reject every request for this reason."""
        self._network = network
        self._links = Links(
            observer=self,
            make_server=lambda cid: network.make_quic(
                f"node-{place[0]}", first_cid=cid, relay_channels=self.offers_channels
            ),
            handshake_timeout_s=5,
            keep_alive_s=0,
            max_connections=1000,
        )
        self._by_peer: dict[bytes, Link] = {}
        self.offers_channels = True
        """Whether it is one of ours; set it before peers connect."""
        self.channels = ChannelBroker(
            randbytes=network.randbytes,
            link_to=self._by_peer.get,
            tell=self._tell,
            send=lambda where, data: network.send(self, where, data),
        )
        self.streams = StreamPorts(network, self, self._links.touch)
        self.reports: list[tuple[bytes, PunchReport]] = []
        """What peers have said about their hole punches, and who."""
        self.punches = Punches(lambda _: NatMapping.UNKNOWN, lambda _: False, self.channels.connects)

    @property
    def address(self) -> SocketAddress:
        """Where it is."""
        return SocketAddress.from_host(*self.place)

    def candidates(self, peer_id: bytes) -> list[SocketAddress]:
        """Return the addresses that a peer has told."""
        return list(self._by_peer[peer_id].quic.candidates)  # type: ignore[attr-defined]

    def lose_connections(self, *, silently: bool = True) -> None:
        """Lose every connection, as when its worker dies; the peers get a stateless reset, or nothing."""
        for link in self._links:
            if silently:
                self._links._forget(link)
            else:
                link.quic.close(error_code=0, reason_phrase="the worker has died")
                self._links.touch(link)
            self.streams.link_closed(link)
        self._by_peer.clear()

    def knows(self, peer_id: bytes) -> bool:
        """Whether a peer is connected."""
        return peer_id in self._by_peer

    def receive(self, data: bytes, source: Place, now_s: float) -> None:
        """Take in a datagram."""
        if data[0] < FIRST_QUIC_BYTE:
            self.channels.datagram(data, source)
        else:
            self._links.receive_datagram(data, source, now_s)

    def flush(self, now_s: float) -> None:
        """Send what is due."""
        for path, datagrams in self._links.flush(now_s)[0]:
            for data in datagrams:
                self._network.send(self, path, data)

    def next_deadline_s(self) -> float | None:
        """When it wants to be woken."""
        return self._links.next_deadline_s()

    def handle_timer(self, now_s: float) -> None:
        """Wake it."""
        self._links.handle_timer(now_s)

    def link_ready(self, link: Link, now_s: float) -> None:
        """Remember a peer."""
        assert link.peer_id is not None
        self._by_peer[link.peer_id] = link

    def link_closed(self, link: Link, event: ConnectionTerminated) -> None:
        """Forget a peer."""
        if link.peer_id is not None and self._by_peer.get(link.peer_id) is link:
            del self._by_peer[link.peer_id]
        self.streams.link_closed(link)

    def link_event(self, link: Link, event: Any, now_s: float) -> None:
        """Serve a request."""
        if not isinstance(event, StreamDataReceived) or self.silent:
            return
        if not event.stream_id & 2:
            self.streams.stream_event(link, event)
            return
        if is_channel_message(event.data):
            self.channels.message(event.data, link)
            return
        if event.data.startswith(PUNCH_REPORT):
            assert link.peer_id is not None
            report = decode_punch_report_untrusted(event.data)
            self.reports.append((link.peer_id, report))
            self.punches.reported(
                PunchReported(
                    peer_id=link.peer_id,
                    other=report.other,
                    succeeded=report.succeeded,
                    nat_mapping=report.nat_mapping,
                ),
                now_s,
            )
            return
        envelope = decode_envelope_untrusted(event.data)
        assert envelope is not None
        request = envelope.message
        assert isinstance(request, CoordinationRequest)
        self.requests += 1
        self.punches.tick(now_s)
        reason = self.refuse or refusal(envelope, request, now_unix_ms=int(now_s * 1000), take_token=lambda: True)
        target = self._by_peer.get(request.target)
        if reason is None and target is None:
            reason = RejectionReason.UNKNOWN_TARGET
        answer: CoordinationMessage
        if reason is not None or target is None:
            assert reason is not None
            answer = CoordinationRejected(
                initiator=request.initiator, target=request.target, round=request.round, reason=reason
            )
        else:
            chosen = choose_addresses(_seen(link), _seen(target))
            assert chosen is not None
            by_relay = self.streams.at(link) if request.round > 1 else None
            if not by_relay and not self.streams.at(target):
                self.punches.introduced(request.initiator, request.target, now_s)
            chosen = (by_relay or chosen[0], self.streams.at(target) or chosen[1])
            answer = CoordinationAccepted(
                initiator=request.initiator,
                target=request.target,
                round=request.round,
                initiator_addrs=(chosen[0],),
                target_addrs=(chosen[1],),
            )
            self._answer(target, envelope, answer)
        self._answer(link, envelope, answer)

    def _tell(self, link: Link, message: ChannelMessage) -> None:
        link.quic.send_message(encode_channel_message(message))
        self._links.touch(link)

    def _answer(self, link: Link, envelope: Envelope, message: CoordinationMessage) -> None:
        copy = Envelope(request_id=envelope.request_id, expires_at_unix_ms=envelope.expires_at_unix_ms, message=message)
        link.quic.send_message(encode_envelope(copy))
        self._links.touch(link)


def _seen(link: Link) -> PeerAddresses:
    return PeerAddresses(observed=SocketAddress.from_host(*link.path[:2]))


class VirtualNetwork:
    """Hosts, NATs, one or more nodes, and the time; delays in seconds are drawn evenly from a range."""

    def __init__(
        self,
        *,
        seed: int = 0,
        loss: float = 0.0,
        delay_s: tuple[float, float] = (0.01, 0.03),
        settings: PeerSettings | None = None,
        real: bool = False,
    ) -> None:
        self.now_s = START_S
        self.loss = loss
        self.settings = settings or PeerSettings(relay="never")
        self.sent: Counter[str] = Counter()
        self.drop: Callable[[Place, Place], bool] = lambda _source, _destination: False
        """Which packets a firewall on the way swallows, by the outside address of either end."""
        self._delay_s = delay_s
        self._real = real
        self._randomness = random.Random(seed)
        self._order = count()
        self._numbers = count(1)
        self._in_flight: list[tuple[float, int, Place, Place, bytes]] = []
        self._members: list[Any] = []
        self._behind: dict[str, Nat] = {}
        self._at: dict[Place, Any] = {}
        self._factories: dict[str, QuicFactory] = {}
        self.nodes: list[Node] = []

    # Building.

    def add_node(self) -> Node:
        """Add a coordinator."""
        node = Node(self, (f"198.18.0.{len(self.nodes) + 1}", 10_000))
        self.nodes.append(node)
        self.join(node)
        return node

    def add_host(self, nat: NatKind | None = None, *, settings: PeerSettings | None = None) -> Host:
        """Add a peer, behind a NAT of its own unless ``nat`` is None; it connects to every node at once."""
        number = next(self._numbers)
        name = f"host-{number}"
        place = (f"10.0.{number}.2" if nat else f"198.18.1.{number}", PEER_PORT)
        box = None if nat is None else Nat(nat, f"198.18.2.{number}", self._randomness)
        used = settings or self.settings
        local = SocketAddress.from_host(*place)
        core = PeerCore(
            settings=used,
            own_peer_id=derive_peer_id(self._public_key(name, relay_channels=used.relay != "never")),
            make_client=lambda _: self.make_quic(name, relay_channels=used.relay != "never"),
            make_server=lambda cid: self.make_quic(name, first_cid=cid, relay_channels=used.relay != "never"),
            path_to=lambda address: (str(address.host), address.port),
            local_addresses=lambda: [local],
            unix_s=lambda: self.now_s,
        )
        host = Host(self, name, box, core, place)
        if box is not None:
            self._behind[box.outside] = box
        self.join(host)
        for node in self.nodes:
            core.dial(SocketAddress.from_host(*node.place), self.now_s)
            self.run(partial(node.knows, host.peer_id), limit_s=10)
        return host

    def make_quic(self, name: str, *, first_cid: bytes | None = None, relay_channels: bool = False) -> Quic:
        """Make a connection of a member, a server's if ``first_cid`` is given."""
        if self._real:
            factory = self._factory(name, relay_channels=relay_channels)
            return factory.client("peer") if first_cid is None else factory.server(first_cid)
        return StandIn(
            public_key=public_key_of(name),
            own_cid=self._randomness.randbytes(8),
            first_cid=first_cid or self._randomness.randbytes(8),
            is_client=first_cid is None,
            relay_channels=relay_channels,
        )

    def _factory(self, name: str, *, relay_channels: bool = True) -> QuicFactory:
        if name not in self._factories:
            self._factories[name] = QuicFactory(
                PeerSettings(
                    identity_seed=name.encode().ljust(32, b"."),
                    pqc_provider="cryptography",
                    relay="auto" if relay_channels else "never",
                )
            )
        return self._factories[name]

    def _public_key(self, name: str, *, relay_channels: bool) -> bytes:
        if not self._real:
            return public_key_of(name)
        return self._factory(name, relay_channels=relay_channels).identity.public_key

    def join(self, member: Any) -> None:
        """Put a member on the network, at its place."""
        self._members.append(member)
        self._at[member.place] = member

    def leave(self, member: Any) -> None:
        """Take a member off the network."""
        self._members.remove(member)
        del self._at[member.place]

    def randbytes(self, count: int) -> bytes:
        """Draw bytes."""
        return self._randomness.randbytes(count)

    # Running.

    def connect_peer(self, initiator: Host, target: Host | bytes) -> None:
        """Have a host ask for a connection to another."""
        peer_id = target if isinstance(target, bytes) else target.peer_id
        initiator.core.connect_peer(peer_id, initiator.core.node_links, self.now_s)
        initiator.flush(self.now_s)

    def send(self, sender: Any, destination: Place, data: bytes) -> None:
        """Put a datagram on the wire."""
        source = sender.place if sender.nat is None else sender.nat.outwards(sender.place, destination)
        self.sent["datagrams"] += 1
        if self._randomness.random() < self.loss or self.drop(source, destination):
            return
        at_s = self.now_s + self._randomness.uniform(*self._delay_s)
        heapq.heappush(self._in_flight, (at_s, next(self._order), source, destination, data))

    def run(self, done: Callable[[], bool], *, limit_s: float) -> bool:
        """Let time pass until ``done()`` or for ``limit_s`` virtual seconds; returns whether it is done."""
        end_s = self.now_s + limit_s
        for member in self._members:
            member.flush(self.now_s)
        for _ in range(MAX_STEPS):
            if done():
                return True
            if not self._step(end_s):
                return done()
        raise AssertionError("the network never comes to rest")

    def _step(self, end_s: float) -> bool:
        due = [at_s for member in self._members if (at_s := member.next_deadline_s()) is not None]
        if self._in_flight:
            due.append(self._in_flight[0][0])
        if not due or min(due) > end_s:
            self.now_s = end_s
            return False
        # A little late, as every real timer is: exactly on time, rounding may make a deadline seem not yet reached.
        self.now_s = max(self.now_s, min(due)) + (TIMER_SLACK_S if self._real else 0.0)
        touched: dict[Any, None] = {}
        while self._in_flight and self._in_flight[0][0] <= self.now_s:
            _, _, source, destination, data = heapq.heappop(self._in_flight)
            member = self._receiver(source, destination)
            if member is not None:
                member.receive(data, source, self.now_s)
                touched[member] = None
        for member in self._members:
            deadline_s = member.next_deadline_s()
            if deadline_s is not None and deadline_s <= self.now_s:
                member.handle_timer(self.now_s)
                touched[member] = None
        for member in touched:
            member.flush(self.now_s)
        return True

    def _receiver(self, source: Place, destination: Place) -> Any:
        nat = self._behind.get(destination[0])
        if nat is None:
            return self._at.get(destination)
        inside = nat.inwards(destination[1], source)
        return None if inside is None else self._at.get(inside)


def attempt(network: VirtualNetwork, initiator: Host, target: Host, *, limit_s: float = 40.0) -> bool:
    """Have one host reach another; returns whether both have a connection once the attempt is over."""
    network.connect_peer(initiator, target)

    def both() -> bool:
        return initiator.connected_to(target) and target.connected_to(initiator)

    core = initiator.core

    def over() -> bool:
        return target.peer_id not in core.introductions and target.peer_id not in core.relaying.attempts

    network.run(lambda: both() or over(), limit_s=limit_s)
    return both() or (initiator.connected_to(target) and network.run(both, limit_s=limit_s))
