"""
Channels of a node, opened as peers open them: request, offer, answer, bind datagrams with their MACs.

Every channel has two peers of its own, each with a key and a connection to the node. Its data go from a socket in the
sender's place to one in the receiver's.
"""

import asyncio
import itertools
import select
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from antquic_server.bench.load_client import ClientConnection, ClientSettings, LoadClient, random_node_key
from antquic_server.bench.node_process import ServerUnderTest
from antquic_server.bench.relay_contender import Contender, RelaySession, prove
from antquic_server.bench.relay_place import RECEIVER, SENDER, Place
from antquic_server.errors import CannotBootError
from antquic_server.pqc.pool import PqcPool
from antquic_server.protocol.raw_public_key import peer_id
from antquic_server.protocol.relay_channel import (
    BOUND,
    NO_NONCE,
    bind_nonce_untrusted,
    data_header,
    encode_bind,
    is_bind_answer_untrusted,
)
from antquic_server.protocol.relay_control import (
    ChannelAnswer,
    ChannelMessage,
    ChannelOffer,
    ChannelOpened,
    ChannelRefused,
    ChannelRequest,
    decode_channel_message_untrusted,
    encode_channel_message,
    is_channel_message,
)
from antquic_server.protocol.relay_limits import Refusal

__all__ = ["CHANNEL", "Peer", "connect_peers", "open_channels"]

CHANNEL: Final = "channel relay"

TIMEOUT_S: Final = 20.0
_HANDSHAKES_AT_ONCE: Final = 8
_BIND_REPEAT_S: Final = 0.25
_ASK_AGAIN_S: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A connection to the node, and who it says it is."""

    client: LoadClient
    connection: ClientConnection
    peer_id: bytes

    def send(self, message: ChannelMessage) -> None:
        """Send a message about channels."""
        quic = self.connection.quic
        stream_id = quic.get_next_available_stream_id(is_unidirectional=True)
        quic.send_stream_data(stream_id, encode_channel_message(message), end_stream=True)
        self.client.flush([self.connection])

    async def receive(self) -> ChannelMessage:
        """Return the next message about channels."""
        while True:
            data = await self.connection.read_message(TIMEOUT_S)
            message = decode_channel_message_untrusted(data) if is_channel_message(data) else None
            if message is not None:
                return message


@dataclass(slots=True, kw_only=True)
class _Leg:
    """One side of a channel: proves where it sends from."""

    sock: socket.socket
    node: tuple[str, int]
    channel_id: bytes
    key: bytes
    counter: int = field(default_factory=lambda: time.time_ns() // 1000)
    nonce: bytes = NO_NONCE

    def bind(self) -> None:
        """Bind, again and again until the node says so."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline_s:
            self.counter += 1
            bind = encode_bind(self.channel_id, self.counter, self.key, self.nonce)
            self.sock.sendto(bind, self.node)
            if self._is_bound(bind, time.monotonic() + _BIND_REPEAT_S):
                return
        raise CannotBootError("node does not answer the bind of a channel")

    def _is_bound(self, bind: bytes, deadline_s: float) -> bool:
        """Wait for the answer to a bind; False if it has to be sent again, at once when the node has a nonce for it."""
        while (remaining_s := deadline_s - time.monotonic()) > 0:
            if not select.select([self.sock], [], [], remaining_s)[0]:
                return False
            try:
                datagram = self.sock.recv(2048)
            except BlockingIOError:
                continue
            if is_bind_answer_untrusted(datagram, bind, self.key):
                self.nonce = bind_nonce_untrusted(datagram)
                return datagram[0] == BOUND
        return False


@asynccontextmanager
async def connect_peers(
    place: Place, role: str, node: tuple[str, int], pool: PqcPool, count: int
) -> AsyncIterator[list[Peer]]:
    """Connect that many peers, each with a key of its own, all from one socket."""
    client = LoadClient(open_socket=lambda: place.udp(role))
    peers: list[Peer] = []
    try:
        for start in range(0, count, _HANDSHAKES_AT_ONCE):
            group = []
            for _ in range(min(_HANDSHAKES_AT_ONCE, count - start)):
                key = random_node_key(pool)
                settings = ClientSettings(pqc=pool, node_key=key, relay_channels=True)
                connection = client.connect(*node, settings)
                group.append(Peer(client=client, connection=connection, peer_id=peer_id(key.public_key)))
            await asyncio.gather(*(peer.connection.wait_connected(TIMEOUT_S) for peer in group))
            peers += group
        yield peers
    finally:
        for peer in peers:
            peer.connection.close()
        client.close()


@asynccontextmanager
async def open_channels(place: Place, server: ServerUnderTest, pool: PqcPool, count: int) -> AsyncIterator[Contender]:
    """
    Open that many channels through a node and bind both legs of each.

    Raises:
        CannotBootError: The node refuses, or does not deliver.
        ConnectionError: The node does not answer.
    """
    front, back = (place.front, server.port), (place.back, server.port)
    async with AsyncExitStack() as stack:
        initiators = await stack.enter_async_context(connect_peers(place, SENDER, front, pool, count))
        targets = await stack.enter_async_context(connect_peers(place, RECEIVER, back, pool, count))
        legs: list[_Leg] = []
        sessions = []
        for initiator, target in zip(initiators, targets, strict=True):
            opened, offer = await _open(initiator, target)
            out = stack.enter_context(place.udp(SENDER))
            arrival = stack.enter_context(place.udp(RECEIVER))
            out.connect(front)
            legs.append(_Leg(sock=out, node=front, channel_id=opened.channel_id, key=opened.key))
            legs.append(_Leg(sock=arrival, node=back, channel_id=offer.channel_id, key=offer.key))
            for leg in legs[-2:]:
                leg.bind()
            header = data_header(opened.channel_id)
            sessions.append(RelaySession(out=out, arrival=arrival, header=partial(_same, header)))

        def keep() -> None:
            for leg in legs:
                leg.bind()

        contender = Contender(name=CHANNEL, pid=server.pid, sessions=sessions, header_arrives=True, keep=keep)
        prove(contender)
        yield contender


async def _open(initiator: Peer, target: Peer) -> tuple[ChannelOpened, ChannelOffer]:
    """Have one peer ask for a channel to another that accepts."""
    deadline_s = time.monotonic() + TIMEOUT_S
    for request_id in itertools.count(1):
        answer = await _ask(initiator, target, request_id)
        if isinstance(answer, tuple):
            return answer
        # The node as a whole learns a moment after the handshake that a peer is there.
        if _word(answer) != Refusal.TARGET_UNKNOWN or time.monotonic() > deadline_s:
            raise CannotBootError(f"node does not open a channel: {_word(answer)}")
        await asyncio.sleep(_ASK_AGAIN_S)
    raise AssertionError  # numbers do not end


async def _ask(initiator: Peer, target: Peer, request_id: int) -> tuple[ChannelOpened, ChannelOffer] | ChannelMessage:
    """Ask once; returns what each peer was told, or what the initiator was told instead of being served."""
    initiator.send(ChannelRequest(request_id=request_id, target=target.peer_id))
    reading = [asyncio.ensure_future(peer.receive()) for peer in (initiator, target)]
    try:
        await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED)
        if reading[0].done():
            return reading[0].result()
        offer = reading[1].result()
        if not isinstance(offer, ChannelOffer):
            raise CannotBootError(f"node sends a peer no offer but {type(offer).__name__}")
        target.send(ChannelAnswer(channel_id=offer.channel_id, accepted=True))
        opened = await reading[0]
    finally:
        for reader in reading:
            reader.cancel()
    return (opened, offer) if isinstance(opened, ChannelOpened) else opened


def _word(message: ChannelMessage) -> str:
    return message.reason if isinstance(message, ChannelRefused) else type(message).__name__


def _same(header: bytes, _payload_bytes: int) -> bytes:
    return header
