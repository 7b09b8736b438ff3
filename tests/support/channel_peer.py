"""A scripted peer with a connection to a node and a socket for relay channels: it does only what a test says."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from antquic_server.protocol.relay_channel import KEY_BYTES
from antquic_server.protocol.relay_control import (
    ChannelAnswer,
    ChannelMessage,
    ChannelOffer,
    ChannelOpened,
    ChannelRequest,
    decode_channel_message_untrusted,
    encode_channel_message,
    is_channel_message,
)
from support.channels import ChannelClient
from support.load import HANDSHAKE_TIMEOUT_S, LoadPeer, WatchedClient, node_port, start_peer, until
from support.node import Node

__all__ = ["ChannelPeer", "OpenChannel", "channel_peer", "open_channel"]

Kind = TypeVar("Kind", bound=ChannelMessage)
BIND_REPEAT_S = 0.25


class ChannelPeer:
    """A connected peer that has declared relay channels; ``leg`` is the socket that its channels use."""

    def __init__(self, peer: LoadPeer, leg: ChannelClient) -> None:
        self.peer = peer
        self.leg = leg
        self._heard: list[ChannelMessage] = []
        self._next_request = 1

    @property
    def peer_id(self) -> bytes:
        """Own peer id."""
        return bytes.fromhex(self.peer.peer_id)

    @property
    def slot(self) -> int:
        """The slot of the worker that has the connection."""
        return self.peer.slot

    def say(self, message: ChannelMessage) -> None:
        """Send the node a message about channels."""
        self.peer.connection.quic.send_message(encode_channel_message(message))
        self.peer.client.flush([self.peer.connection])

    def ask(self, target: bytes) -> int:
        """Ask for a channel and return the number of the request."""
        self._next_request += 1
        self.say(ChannelRequest(request_id=self._next_request, target=target))
        return self._next_request

    def hear(self, kind: type[Kind]) -> Kind | None:
        """Return the oldest message of a kind that was not returned before, if there is one."""
        connection = self.peer.connection
        for stream_id in sorted(connection.finished_streams):
            data = bytes(connection.messages.get(stream_id, b""))
            if is_channel_message(data):
                connection.finished_streams.discard(stream_id)
                del connection.messages[stream_id]
                message = decode_channel_message_untrusted(data)
                assert message is not None
                self._heard.append(message)
        for message in self._heard:
            if isinstance(message, kind):
                self._heard.remove(message)
                return message
        return None

    async def heard(self, kind: type[Kind], *, timeout_s: float = 10.0) -> Kind:
        """Wait for a message of a kind."""
        message = await until(lambda: self.hear(kind), timeout_s=timeout_s, what=kind.__name__)
        assert message is not None
        return message

    async def bind(self, channel_id: bytes, key: bytes, *, timeout_s: float = 10.0) -> None:
        """Bind the leg, again and again until the node says that it is bound."""
        async with asyncio.timeout(timeout_s):
            while True:
                self.leg.bind(channel_id, key)
                for _ in range(25):
                    if self.leg.is_bound(channel_id, key):
                        return
                    await asyncio.sleep(BIND_REPEAT_S / 25)

    def leave(self) -> None:
        """Close the connection and the socket."""
        self.peer.leave()
        self.leg.sock.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenChannel:
    """A channel that both have bound, and the worker that owns it."""

    channel_id: bytes
    initiator_key: bytes
    target_key: bytes
    token: bytes
    owner: int


@asynccontextmanager
async def channel_peer(node: Node, *, host: str = "127.0.0.1", slot: int | None = None) -> AsyncIterator[ChannelPeer]:
    """Connect a peer, at a worker of the test's choice if ``slot`` says one, which leaves at the end of the block."""
    workers = int(node.ready["workers"])
    while True:
        peer = start_peer(node, host=host, client=WatchedClient(workers=workers, host=host), relay_channels=True)
        await peer.connection.wait_connected(HANDSHAKE_TIMEOUT_S)
        if slot is None or peer.slot == slot:
            break
        peer.leave()
    await until(lambda: node.peer(peer.peer_id), timeout_s=10.0, what="peer in the directory")
    port = node_port(node, host)
    channel_peer = ChannelPeer(peer, ChannelClient((host, port)))
    try:
        yield channel_peer
    finally:
        channel_peer.leave()


async def open_channel(initiator: ChannelPeer, target: ChannelPeer) -> OpenChannel:
    """Have one peer reach another: asked, offered, accepted and bound by both."""
    request_id = initiator.ask(target.peer_id)
    offer = await target.heard(ChannelOffer)
    assert offer.initiator == initiator.peer_id
    target.say(ChannelAnswer(channel_id=offer.channel_id, accepted=True))
    opened = await initiator.heard(ChannelOpened)
    assert (opened.request_id, opened.target, opened.channel_id) == (request_id, target.peer_id, offer.channel_id)
    assert opened.token == offer.token
    assert len({opened.key, offer.key, bytes(KEY_BYTES)}) == 3
    await initiator.bind(opened.channel_id, opened.key)
    await target.bind(offer.channel_id, offer.key)
    return OpenChannel(
        channel_id=offer.channel_id,
        initiator_key=opened.key,
        target_key=offer.key,
        token=offer.token,
        owner=offer.channel_id[3] % initiator.peer.workers,
    )
