"""What a node of the virtual network does as a relay: channels by the rules of ours, and ports for streams."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aioquic.quic.events import StreamDataReceived

from antquic_server.peer.link import Link
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.relay_channel import (
    BIND,
    CHANNEL_ID_BYTES,
    DATA,
    HEADER_BYTES,
    KEY_BYTES,
    TOKEN_BYTES,
    bind_counter_untrusted,
    bind_nonce_untrusted,
    encode_bound,
    encode_challenge,
    encode_unknown,
    verify_leg_untrusted,
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
)
from antquic_server.protocol.relay_limits import Refusal, RelayEnd
from antquic_server.protocol.relay_proof import AddressProofs
from antquic_server.protocol.relay_stream import (
    BIND_REQUEST,
    MAX_FRAME_BYTES,
    ConnectUdpResponse,
    MessageReader,
    decode_frame_untrusted,
    encode_frame,
    encode_response,
    frame_header,
)

if TYPE_CHECKING:
    from support.virtual_network import Node, Place, VirtualNetwork

__all__ = ["ChannelBroker", "StreamPorts"]


@dataclass(slots=True, kw_only=True)
class _Leg:
    peer_id: bytes
    key: bytes
    place: "Place | None" = None
    counter: int = 0


@dataclass(slots=True, kw_only=True)
class _Channel:
    channel_id: bytes
    token: bytes
    request: ChannelRequest
    legs: tuple[_Leg, _Leg]
    open: bool = False


class ChannelBroker:
    """The channels of one node."""

    def __init__(
        self,
        *,
        randbytes: Callable[[int], bytes],
        link_to: Callable[[bytes], Link | None],
        tell: Callable[[Link, ChannelMessage], None],
        send: Callable[["Place", bytes], None],
    ) -> None:
        self.refuse: str | None = None
        """Refuse every request for this reason."""
        self.silent = False
        """Answer no request."""
        self.deaf = False
        """Lose every datagram."""
        self.carried = 0
        self.channels: dict[bytes, _Channel] = {}
        self._dead: dict[bytes, bytes] = {}
        """Tokens of channels that are gone."""
        self._randbytes = randbytes
        self._proofs = AddressProofs(bytes(KEY_BYTES))
        self._link_to = link_to
        self._tell = tell
        self._send = send

    def connects(self, one: bytes, other: bytes) -> bool:
        """Whether there is a channel between two peers."""
        return any({leg.peer_id for leg in channel.legs} == {one, other} for channel in self.channels.values())

    def message(self, data: bytes, link: Link) -> None:
        """Take in what a peer says about channels."""
        message = decode_channel_message_untrusted(data)
        assert link.peer_id is not None
        if isinstance(message, ChannelRequest):
            self._requested(message, link, link.peer_id)
        elif isinstance(message, ChannelAnswer):
            self._answered(message)
        elif isinstance(message, ChannelClosed):
            channel = self.channels.pop(message.channel_id, None)
            for leg in channel.legs if channel is not None else ():
                other = self._link_to(leg.peer_id)
                if other is not None and leg.peer_id != link.peer_id:
                    self._tell(other, message)

    def _requested(self, request: ChannelRequest, link: Link, initiator: bytes) -> None:
        if self.silent:
            return
        target = self._link_to(request.target)
        reason = self.refuse
        if reason is None and target is None:
            reason = Refusal.TARGET_UNKNOWN.value
        if reason is None and target is not None and not target.quic.remote_extensions.relay_channels:
            reason = Refusal.UNSUPPORTED.value
        if reason is not None or target is None:
            assert reason is not None
            self._tell(link, ChannelRefused(request_id=request.request_id, target=request.target, reason=reason))
            return
        channel = _Channel(
            channel_id=self._randbytes(CHANNEL_ID_BYTES),
            token=self._randbytes(TOKEN_BYTES),
            request=request,
            legs=(
                _Leg(peer_id=initiator, key=self._randbytes(KEY_BYTES)),
                _Leg(peer_id=request.target, key=self._randbytes(KEY_BYTES)),
            ),
        )
        self.channels[channel.channel_id] = channel
        offer = ChannelOffer(
            channel_id=channel.channel_id, initiator=initiator, key=channel.legs[1].key, token=channel.token
        )
        self._tell(target, offer)

    def _answered(self, answer: ChannelAnswer) -> None:
        channel = self.channels.get(answer.channel_id)
        link = None if channel is None else self._link_to(channel.legs[0].peer_id)
        if channel is None or link is None:
            return
        request_id, target = channel.request.request_id, channel.request.target
        if not answer.accepted:
            del self.channels[answer.channel_id]
            reason = Refusal.TARGET_DECLINED.value
            self._tell(link, ChannelRefused(request_id=request_id, target=target, reason=reason))
            return
        channel.open = True
        opened = ChannelOpened(
            request_id=request_id,
            target=target,
            channel_id=channel.channel_id,
            key=channel.legs[0].key,
            token=channel.token,
        )
        self._tell(link, opened)

    def kill(self, *, announce: bool) -> None:
        """Lose every channel, as when their worker dies; the peers are told, or find out."""
        for channel in list(self.channels.values()):
            self._dead[channel.channel_id] = channel.token
            del self.channels[channel.channel_id]
            for leg in channel.legs:
                link = self._link_to(leg.peer_id)
                if announce and link is not None:
                    closed = ChannelClosed(channel_id=channel.channel_id, reason=RelayEnd.WORKER_LOST.value)
                    self._tell(link, closed)

    def datagram(self, data: bytes, source: "Place") -> None:
        """Take in a datagram that is not QUIC's."""
        channel_id = data[1:HEADER_BYTES]
        channel = self.channels.get(channel_id)
        if self.deaf:
            return
        if channel is None:
            if channel_id in self._dead:
                self._send(source, encode_unknown(channel_id, self._dead[channel_id]))
            return
        if data[0] == BIND:
            self._bind(channel, data, source)
        elif data[0] == DATA:
            here = [index for index, leg in enumerate(channel.legs) if leg.place == source]
            there = None if not here else channel.legs[1 - here[0]].place
            if there is not None:
                self.carried += 1
                self._send(there, data)

    def _bind(self, channel: _Channel, data: bytes, source: "Place") -> None:
        counter = bind_counter_untrusted(data)
        for leg in channel.legs:
            if counter > leg.counter and verify_leg_untrusted(data, leg.key):
                leg.counter = counter
                nonce = self._proofs.nonce(channel.channel_id, leg.key, source, 0.0)
                proven = bind_nonce_untrusted(data) == nonce
                if proven:
                    leg.place = source
                encode = encode_bound if proven else encode_challenge
                self._send(source, encode(channel.channel_id, counter, leg.key, nonce))


@dataclass(slots=True, kw_only=True, eq=False)
class _Port:
    """One port of a node, for one stream; a member of the network."""

    network: "VirtualNetwork"
    node: "Node"
    place: "Place"
    link: Link
    stream_id: int
    touch: Callable[[Link], None]
    nat: None = None
    reader: MessageReader = field(default_factory=lambda: MessageReader(MAX_FRAME_BYTES))

    def receive(self, data: bytes, source: "Place", _now_s: float) -> None:
        header = frame_header(SocketAddress.from_host(*source))
        if not self.link.closed:
            self.link.quic.send_stream_data(self.stream_id, encode_frame(header, data))
            self.touch(self.link)

    def flush(self, now_s: float) -> None:
        self.node.flush(now_s)

    def next_deadline_s(self) -> float | None:
        return None

    def handle_timer(self, _now_s: float) -> None:
        """There is none."""

    def feed(self, data: bytes) -> None:
        self.reader.feed(data)
        while (body := self.reader.next_untrusted()) is not None:
            target, payload = decode_frame_untrusted(body)
            self.network.send(self, (str(target.host), target.port), payload)


class StreamPorts:
    """The stream relays of one node."""

    def __init__(self, network: "VirtualNetwork", node: "Node", touch: Callable[[Link], None]) -> None:
        self.refuse: str | None = None
        self.ports: dict[tuple[int, int], _Port] = {}
        self._network = network
        self._node = node
        self._touch = touch
        self._next_port = 40_000

    def at(self, link: Link) -> SocketAddress | None:
        """The relay address of a peer."""
        for (number, _), port in self.ports.items():
            if number == link.number:
                return SocketAddress.from_host(*port.place)
        return None

    def stream_event(self, link: Link, event: Any) -> None:
        """Take in data of a bidirectional stream."""
        if not isinstance(event, StreamDataReceived):
            return
        port = self.ports.get((link.number, event.stream_id))
        if port is not None:
            port.feed(event.data)
            if event.end_stream:
                self.close(port)
            return
        if event.data != BIND_REQUEST:
            return
        if self.refuse is not None:
            answer, end = ConnectUdpResponse(status=503, reason=self.refuse), True
        else:
            self._next_port += 1
            place = (self._node.place[0], self._next_port)
            port = _Port(
                network=self._network,
                node=self._node,
                place=place,
                link=link,
                stream_id=event.stream_id,
                touch=self._touch,
            )
            self.ports[link.number, event.stream_id] = port
            self._network.join(port)
            answer, end = ConnectUdpResponse(status=200, address=SocketAddress.from_host(*place)), False
        link.quic.send_stream_data(event.stream_id, encode_response(answer), end_stream=end)
        self._touch(link)

    def close(self, port: _Port) -> None:
        """Free a port."""
        self._network.leave(port)
        self.ports = {key: value for key, value in self.ports.items() if value is not port}

    def link_closed(self, link: Link) -> None:
        """Free the ports of a connection."""
        for (number, _), port in list(self.ports.items()):
            if number == link.number:
                self.close(port)
