"""
The channels that this worker owns, and the path that their datagrams take through it.

A route leads from a bound leg to the other one. It is found with one look into one table, and a whole train follows it
with one system call::

    key     8 bytes of header (kind 0x10, channel id)                          the packet's first bytes
            source address: host, port (IPv6: flow information, scope)         who has proven to be the leg, and there
    value   destination: address, socket, and the address of ours to send from
            counters: bytes, datagrams, and the tokens of the session

A route is there only while both legs are bound, and only binds write it. The shape is that of a BPF map::

    struct key    { u8 header[8]; u8 host[16]; be16 port; u16 zero; };
    struct value  { u8 host[16]; u8 from[16]; be16 port; u16 socket; u32 zero; u64 bytes; u64 datagrams; };

Lengths are fixed, and no entry points to another. A packet filter with these entries would forward what is forwarded
here; what finds no entry would come up to this process as it does now, to be judged datagram by datagram.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import Final

from antquic_server.errors import RelayDecodeError
from antquic_server.net.udp import Destination, PathAddress, SendResult, UdpSocket
from antquic_server.protocol.limits import TokenBucket
from antquic_server.protocol.relay_channel import (
    BIND,
    DATA,
    HEADER_BYTES,
    KEY_BYTES,
    NO_NONCE,
    UNKNOWN_BYTES,
    bind_counter_untrusted,
    bind_nonce_untrusted,
    channel_token,
    data_header,
    encode_bound,
    encode_challenge,
    encode_unknown,
    verify_leg_untrusted,
)
from antquic_server.protocol.relay_limits import RelayMode
from antquic_server.protocol.relay_proof import AddressProofs
from antquic_server.protocol.routing import owner_slot
from antquic_server.stats.counters import CounterSet
from workers.relay_meter import MIN_COST_BYTES, SessionMeter

BINDS_PER_S: Final = 10.0
BINDS_BURST: Final = 40.0
"""
Binds of one channel, since each costs a few HMACs: two legs that repeat theirs every quarter of a second send 8 in a
second, and only who knows the channel's id can use up its share.
"""

_Source = tuple[object, ...]

header_number: Final = Struct("=Q").unpack_from
"""Reads a header as one number, alone in a tuple: much faster than copying eight bytes out of a view."""


class Leg:
    """One end of a channel; ``path`` is None until the first bind that has proven an address."""

    __slots__ = ("bound_at_s", "counter", "destination", "key", "path", "source")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.counter = -1
        """Of the last bind, whether its address was proven or not; another must be greater."""
        self.path: PathAddress | None = None
        self.source: _Source = ()
        self.destination: Destination | None = None
        self.bound_at_s = 0.0


class Channel:
    """A channel with its two legs."""

    __slots__ = ("binds", "channel_id", "created_s", "header_number", "initiator", "session", "target")

    def __init__(
        self, channel_id: bytes, *, initiator_key: bytes, target_key: bytes, session: SessionMeter, now_s: float
    ) -> None:
        self.channel_id = channel_id
        (self.header_number,) = header_number(data_header(channel_id))
        self.initiator = Leg(initiator_key)
        self.target = Leg(target_key)
        self.session = session
        self.created_s = now_s
        self.binds = TokenBucket(BINDS_PER_S, BINDS_BURST)

    def last_bind_s(self) -> float | None:
        """When the leg that has been silent longer was last bound; None unless both have been."""
        if self.initiator.path is None or self.target.path is None:
            return None
        return min(self.initiator.bound_at_s, self.target.bound_at_s)


class Route:
    """What a train of a bound leg needs to go on."""

    __slots__ = ("destination", "session", "socket")

    def __init__(self, destination: Destination, socket: UdpSocket, session: SessionMeter) -> None:
        self.destination = destination
        self.socket = socket
        self.session = session


class ChannelTable:
    """
    All channels of one slot.

    ``secret`` makes the tokens of ``unknown`` datagrams, of which ``unknowns_per_s`` are sent at most.
    """

    def __init__(
        self,
        *,
        slot: int,
        worker_count: int,
        sockets: list[UdpSocket],
        counters: CounterSet,
        secret: bytes,
        unknowns_per_s: float,
    ) -> None:
        self._slot = slot
        self._worker_count = worker_count
        self._sockets = sockets
        self._counters = counters
        self._secret = secret
        self.proofs = AddressProofs(os.urandom(KEY_BYTES))
        self._unknowns = TokenBucket(unknowns_per_s, max(1.0, unknowns_per_s) if unknowns_per_s else 0.0)
        self._channels: dict[bytes, Channel] = {}
        self._drop_keys: dict[str, str] = {}
        self.routes: dict[tuple[int, _Source], Route] = {}
        """By the header of a channel, as a number, and the address of a leg, as the socket gives it."""

    def __len__(self) -> int:
        return len(self._channels)

    def __contains__(self, channel_id: bytes) -> bool:
        return channel_id in self._channels

    def __iter__(self) -> Iterator[Channel]:
        return iter(self._channels.values())

    # Life.

    def owns(self, channel_id: bytes) -> bool:
        """Whether the packet filter steers a channel with this id here."""
        return owner_slot(data_header(channel_id), self._worker_count) == self._slot

    def add(self, channel: Channel) -> None:
        """Take a channel in, with legs that are not bound yet."""
        self._channels[channel.channel_id] = channel

    def remove(self, channel_id: bytes) -> Channel | None:
        """Forget a channel and return it; None if it is not there."""
        channel = self._channels.pop(channel_id, None)
        if channel is not None:
            for leg in (channel.initiator, channel.target):
                self.routes.pop((channel.header_number, leg.source), None)
        return channel

    # Data.

    def follow(self, route: Route, train: memoryview, segment_size: int, now_s: float) -> None:
        """Pass on a train, all of which must be of the channel whose route this is, as far as limits allow."""
        self.follow_run(route, (train,), len(train), segment_size, now_s)

    def follow_run(
        self, route: Route, pieces: Sequence[memoryview], size: int, segment_size: int, now_s: float
    ) -> None:
        """Pass on a train as ``follow`` does, of ``size`` bytes that lie in several pieces of whole datagrams."""
        count = 1 if size <= segment_size else -(-size // segment_size)
        session = route.session
        refusal = session.refuses(max(size, count * MIN_COST_BYTES), now_s)
        if refusal:
            self.drop(refusal, count)
            return
        failure = route.socket.send_run(route.destination, pieces, size, segment_size)
        if failure is None:
            session.passed_bytes += size
            session.passed_datagrams += count
        else:
            self._count_failure(failure, count)
            session.passed_bytes += min(size, failure.sent * segment_size)
            session.passed_datagrams += failure.sent

    def _count_failure(self, result: SendResult, count: int) -> None:
        if result.dropped:
            self.drop("above_link_mtu" if result.errno == errno.EMSGSIZE else "send_error", result.dropped)
        if result.handled < count:
            # Never queued: whoever sends too fast for the link has to be told so by loss.
            self.drop("blocked", count - result.handled)

    def drop(self, reason: str, count: int = 1) -> None:
        """Count datagrams of channels that went nowhere."""
        key = self._drop_keys.get(reason)
        if key is None:
            key = self._drop_keys[reason] = self._counters.declare("relay_drops", RelayMode.CHANNEL, reason)
        self._counters.values[key] += count

    # Everything else.

    def refuse(self, header: bytes, source: _Source, count: int, now_s: float) -> bool:
        """
        Drop data that has no route, if there is nothing to be said to it; False if each has to be looked at.

        Floods end here, a train at a time: of data that is not from a leg, and of ids that somebody guesses once
        enough of them have been answered.
        """
        if header[0] != DATA:
            return False
        channel = self._channels.get(header[1:])
        if channel is not None:
            self.drop(self._why_not_routed(channel, source), count)
            return True
        if owner_slot(header, self._worker_count) != self._slot:
            return False
        if self._unknowns.take(now_s):
            self._unknowns.give_back(1.0)
            return False
        self.drop("unknown_channel_unanswered", count)
        return True

    def receive_untrusted(self, data: bytes, path: PathAddress, now_s: float) -> None:
        """
        Deal with one datagram that has the header of a channel: a bind, data, or what is neither of these.

        Never raises. A channel of another slot is not spoken for: datagrams of its own reach its owner.
        """
        channel = self._channels.get(data[1:HEADER_BYTES])
        kind = data[0]
        if channel is None:
            self._answer_unknown(data, path, now_s)
        elif kind == DATA:
            self._receive_data(channel, data, path, now_s)
        elif kind == BIND:
            self._receive_bind_untrusted(channel, data, path, now_s)
        else:
            self.drop("unexpected_kind")

    def _receive_data(self, channel: Channel, data: bytes, path: PathAddress, now_s: float) -> None:
        source = source_of(path)
        route = self.routes.get((channel.header_number, source))
        if route is not None:
            self.follow(route, memoryview(data), len(data), now_s)
        else:
            self.drop(self._why_not_routed(channel, source))

    @staticmethod
    def _why_not_routed(channel: Channel, source: _Source) -> str:
        return "other_leg_unbound" if source in (channel.initiator.source, channel.target.source) else "unbound_source"

    def _receive_bind_untrusted(self, channel: Channel, data: bytes, path: PathAddress, now_s: float) -> None:
        try:
            counter = bind_counter_untrusted(data)
        except RelayDecodeError:
            self.drop("bind_malformed")
            return
        if not channel.binds.take(now_s):
            self.drop("bind_rate")
            return
        if verify_leg_untrusted(data, channel.initiator.key):
            leg, other = channel.initiator, channel.target
        elif verify_leg_untrusted(data, channel.target.key):
            leg, other = channel.target, channel.initiator
        else:
            self.drop("bad_mac")
            return
        if counter <= leg.counter:
            self.drop("replayed_bind")
        elif source_of(path) == other.source:
            # Two legs at one address would be one: what comes from there could not be told apart.
            self.drop("bind_collision")
        else:
            leg.counter = counter
            self._answer_bind(channel, leg, other, bind_nonce_untrusted(data), path, now_s)

    def _answer_bind(  # noqa: PLR0917 - what is known of one bind
        self, channel: Channel, leg: Leg, other: Leg, nonce: bytes, path: PathAddress, now_s: float
    ) -> None:
        """
        Take a bind if its nonce was sent to where it comes from; challenge it if not, with nothing changed.

        Who has the key of a leg can forge its source: without this the node would send a stranger, at full rate, what
        comes from the other leg, which may be the same peer's. That goes for an address which is bound already, too:
        the peer may have left it to somebody else.
        """
        channel_id, source = channel.channel_id, source_of(path)
        next_nonce = self.proofs.nonce(channel_id, leg.key, source, now_s)
        encode_answer = encode_challenge
        if self.proofs.proves(nonce, channel_id=channel_id, leg_key=leg.key, source=source, now_s=now_s):
            leg.bound_at_s = now_s
            if path != leg.path:
                self._move(channel, leg, other, path)
            encode_answer = encode_bound
        elif nonce != NO_NONCE:
            self.drop("bind_unproven")
        self._reply(path, encode_answer(channel_id, leg.counter, leg.key, next_nonce))

    def _move(self, channel: Channel, leg: Leg, other: Leg, path: PathAddress) -> None:
        self.routes.pop((channel.header_number, leg.source), None)
        socket = self._sockets[path.socket_index]
        leg.path = path
        leg.source = source_of(path)
        leg.destination = socket.destination(path)
        if other.path is not None and other.destination is not None:
            other_socket = self._sockets[other.path.socket_index]
            self.routes[channel.header_number, leg.source] = Route(other.destination, other_socket, channel.session)
            self.routes[channel.header_number, other.source] = Route(leg.destination, socket, channel.session)

    def _answer_unknown(self, data: bytes, path: PathAddress, now_s: float) -> None:
        channel_id = data[1:HEADER_BYTES]
        if not self.owns(channel_id):
            self.drop("other_slot")
        elif data[0] not in (DATA, BIND):
            self.drop("unexpected_kind")
        elif len(data) < UNKNOWN_BYTES or not self._unknowns.take(now_s):
            # An answer longer than what it answers would make this node an amplifier.
            self.drop("unknown_channel_unanswered")
        else:
            self.drop("unknown_channel")
            self._reply(path, encode_unknown(channel_id, channel_token(self._secret, channel_id)))

    def _reply(self, path: PathAddress, datagram: bytes) -> None:
        result = self._sockets[path.socket_index].send(path, (datagram,))
        values = self._counters.values
        values["datagrams_sent"] += result.sent
        values["bytes_sent"] += result.sent * len(datagram)
        if not result.sent:
            self._count_failure(result, 1)


def source_of(path: PathAddress) -> _Source:
    """Return the remote end of a path in the form in which a socket says where a datagram comes from."""
    return path[:4] if ":" in path.host else path[:2]
