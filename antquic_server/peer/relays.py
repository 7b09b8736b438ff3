"""
The channels of one peer: who is asked for them, whose offers are taken, which datagram belongs to which.

A channel is asked for, and offered, over the connection to a node (``protocol.relay_control``); its datagrams go to the
node's port from the socket that everything else goes through (``protocol.relay_channel``). An offer is believed from a
node that we dialled ourselves. Pure: datagrams and the time come in, datagrams go out as return values, everything
else through :class:`Observer`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from antquic_server.peer.channel import Channel
from antquic_server.peer.link import Link, Path
from antquic_server.peer.relay_paths import RelayPath
from antquic_server.peer.settings import PeerSettings
from antquic_server.peer.statistics import Tallies
from antquic_server.protocol.relay_channel import BOUND, CHALLENGE, DATA, HEADER_BYTES, UNKNOWN
from antquic_server.protocol.relay_control import (
    ChannelAnswer,
    ChannelClosed,
    ChannelOffer,
    ChannelOpened,
    ChannelRefused,
    ChannelRequest,
    decode_channel_message_untrusted,
    encode_channel_message,
)
from antquic_server.protocol.relay_limits import Refusal, RelayEnd

__all__ = ["LOST_UNANSWERED", "LOST_UNKNOWN", "Observer", "RelaySurroundings", "Relays", "offers_channels"]

LOST_UNKNOWN = "unknown_to_the_node"
LOST_UNANSWERED = "node_silent"


class Observer(Protocol):
    """Whoever is told what becomes of requests and channels."""

    def channel_added(self, channel: Channel, now_s: float) -> None:
        """Handle a channel that is there from now on, whoever has asked for it."""

    def channel_opened(self, request_id: int, channel: Channel, now_s: float) -> None:
        """Handle a channel that was asked for."""

    def channel_refused(self, request_id: int, reason: str, now_s: float) -> None:
        """Handle a refusal; ``reason`` is a word."""

    def channel_lost(self, channel: Channel, reason: str, now_s: float) -> None:
        """Handle the end of a channel that we did not end ourselves; it is forgotten already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaySurroundings:
    """What channels need of the rest of the peer."""

    send: Callable[[Link, bytes], bool]
    node_link: Callable[[bytes], Link | None]
    """The connection to a node, by its peer id."""
    unix_s: Callable[[], float]


def offers_channels(node: Link) -> bool:
    """Whether a node has said that it knows relay channels."""
    extensions = node.quic.remote_extensions
    return extensions is not None and bool(extensions.relay_channels)


class Relays:
    """Every channel of one peer, by its id."""

    def __init__(
        self,
        around: RelaySurroundings,
        *,
        observer: Observer,
        settings: PeerSettings,
        own_peer_id: bytes,
        tallies: Tallies,
    ) -> None:
        self._around = around
        self._observer = observer
        self._settings = settings
        self._own_peer_id = own_peer_id
        self._tallies = tallies
        self._channels: dict[bytes, Channel] = {}
        self._requests: dict[int, tuple[bytes, bytes]] = {}
        """Target and node of each request that is not answered yet."""
        self._next_request_id = 1

    def __iter__(self) -> Iterator[Channel]:
        return iter(list(self._channels.values()))

    def __len__(self) -> int:
        return len(self._channels)

    def find(self, path: Path) -> Channel | None:
        """Return the channel behind a path."""
        return self._channels.get(path.channel_id) if isinstance(path, RelayPath) else None

    # Control.

    def request(self, target: bytes, node: Link) -> int:
        """Ask a node for a channel to a peer; returns the number under which the answer is reported."""
        assert node.peer_id is not None, "a node is ready only with its key known"
        request_id = self._next_request_id
        self._next_request_id += 1
        self._requests[request_id] = (target, node.peer_id)
        self._around.send(node, encode_channel_message(ChannelRequest(request_id=request_id, target=target)))
        return request_id

    def forget_request(self, request_id: int) -> None:
        """Wait for an answer no longer; a channel that is opened for it all the same is given back."""
        self._requests.pop(request_id, None)

    def message_untrusted(self, data: bytes, link: Link, now_s: float) -> None:
        """Take in a message about channels; RelayDecodeError if it is malformed."""
        message = decode_channel_message_untrusted(data)
        if isinstance(message, ChannelRequest):
            # Asked as if we were a node: say at once that we are none.
            refusal = ChannelRefused(
                request_id=message.request_id, target=message.target, reason=Refusal.UNSUPPORTED.value
            )
            self._around.send(link, encode_channel_message(refusal))
        elif not link.is_node or link.peer_id is None or isinstance(message, ChannelAnswer):
            self._tallies.drops["channel_message"] += 1
        elif isinstance(message, ChannelOffer):
            self._offered(message, link, link.peer_id, now_s)
        elif isinstance(message, ChannelOpened):
            self._opened(message, link, link.peer_id, now_s)
        elif isinstance(message, ChannelRefused):
            if self._requests.pop(message.request_id, None) is not None:
                self._observer.channel_refused(message.request_id, message.reason, now_s)
        elif isinstance(message, ChannelClosed):
            channel = self._channels.get(message.channel_id)
            if channel is not None and channel.node == link.peer_id:
                self._lose(channel, message.reason, now_s)

    def _offered(self, offer: ChannelOffer, link: Link, node: bytes, now_s: float) -> None:
        settings = self._settings
        willing = settings.relay != "never" and settings.accept_relays and offer.initiator != self._own_peer_id
        room = len(self._channels) < settings.max_relays and offer.channel_id not in self._channels
        answer = ChannelAnswer(channel_id=offer.channel_id, accepted=willing and room)
        self._around.send(link, encode_channel_message(answer))
        if not answer.accepted:
            self._tallies.drops["channel_offer_declined"] += 1
            return
        self._add(offer, link, node, now_s)

    def _opened(self, opened: ChannelOpened, link: Link, node: bytes, now_s: float) -> None:
        asked = self._requests.pop(opened.request_id, None)
        if asked != (opened.target, node) or opened.channel_id in self._channels:
            self._tallies.drops["channel_not_asked_for"] += 1
            self._send_closed(link, opened.channel_id)
            return
        channel = self._add(opened, link, node, now_s)
        self._observer.channel_opened(opened.request_id, channel, now_s)

    def _add(self, grant: ChannelOffer | ChannelOpened, link: Link, node: bytes, now_s: float) -> Channel:
        by_us = isinstance(grant, ChannelOpened)
        peer_id = grant.target if isinstance(grant, ChannelOpened) else grant.initiator
        channel = self._channels[grant.channel_id] = Channel(
            channel_id=grant.channel_id,
            key=grant.key,
            token=grant.token,
            peer_id=peer_id,
            node=node,
            via=link.path,
            opened_by_us=by_us,
            now_s=now_s,
            unix_s=self._around.unix_s(),
        )
        self._tallies.relay_channels_opened += 1
        self._observer.channel_added(channel, now_s)
        return channel

    def hang_up(self, channel: Channel) -> None:
        """End a channel, and tell the node."""
        if self._channels.pop(channel.channel_id, None) is not None:
            node = self._around.node_link(channel.node)
            if node is not None:
                self._send_closed(node, channel.channel_id)

    def _send_closed(self, node: Link, channel_id: bytes) -> None:
        message = ChannelClosed(channel_id=channel_id, reason=RelayEnd.CLOSED.value)
        self._around.send(node, encode_channel_message(message))

    def _lose(self, channel: Channel, reason: str, now_s: float) -> None:
        if self._channels.pop(channel.channel_id, None) is not None:
            self._tallies.relay_channels_lost[reason] += 1
            self._observer.channel_lost(channel, reason, now_s)

    def node_lost(self, node: bytes, now_s: float) -> None:
        """Take in that a connection to a node has ended: answers do not come any more, channels may be gone."""
        for request_id, (_, asked) in list(self._requests.items()):
            if asked == node:
                del self._requests[request_id]
                self._observer.channel_refused(request_id, RelayEnd.CONNECTION_LOST.value, now_s)
        for channel in self:
            if channel.node == node:
                channel.suspect(now_s)

    def rebind(self, now_s: float) -> None:
        """Bind every channel anew: our address has changed."""
        for channel in self:
            channel.rebind(now_s)

    # Datagrams.

    def receive_untrusted(self, data: bytes, path: Path, now_s: float) -> tuple[bytes, RelayPath] | None:
        """
        Take in a datagram that is not QUIC's.

        Returns what the peer has sent and the path it came by, or None if the datagram was the node's own word or is
        dropped. RelayDecodeError if it is malformed.
        """
        channel = self._channels.get(data[1:HEADER_BYTES])
        if channel is None:
            known = bool(data) and data[0] in (DATA, BOUND, CHALLENGE, UNKNOWN)
            self._tallies.drops["relay_channel_gone" if known else "not_quic"] += 1
        elif tuple(path[:2]) != tuple(channel.via[:2]):
            self._tallies.drops["relay_source"] += 1
        elif data[0] == DATA:
            payload = data[HEADER_BYTES:]
            channel.received(payload, now_s)
            return payload, channel.path
        elif data[0] == UNKNOWN and channel.is_gone_untrusted(data):
            self._lose(channel, LOST_UNKNOWN, now_s)
        elif not _answer_untrusted(channel, data, now_s):
            self._tallies.drops["relay_control"] += 1
        return None

    def wrap(self, path: RelayPath, datagrams: list[bytes], now_s: float) -> tuple[Path, list[bytes]] | None:
        """Return datagrams for a peer as they go to the node, and where that is; None if the channel is gone."""
        channel = self._channels.get(path.channel_id)
        if channel is None:
            self._tallies.drops["relay_path_gone"] += len(datagrams)
            return None
        return channel.via, channel.wrap(datagrams, now_s)

    # Time.

    def next_deadline_s(self) -> float | None:
        """Return when :meth:`handle_timer` or :meth:`take_binds` is due."""
        return min((channel.next_deadline_s for channel in self._channels.values()), default=None)

    def handle_timer(self, now_s: float) -> None:
        """Give up channels whose node does not answer."""
        for channel in self:
            if channel.is_lost(now_s):
                self._lose(channel, LOST_UNANSWERED, now_s)

    def take_binds(self, now_s: float) -> list[tuple[Path, list[bytes]]]:
        """Return the binds that are due, by path."""
        return [(channel.via, [bind]) for channel in self if (bind := channel.take_bind(now_s)) is not None]


def _answer_untrusted(channel: Channel, data: bytes, now_s: float) -> bool:
    """Take in what the node says to a bind; False if it is neither of its answers."""
    if data[0] == BOUND:
        return channel.bound_untrusted(data, now_s)
    return data[0] == CHALLENGE and channel.challenged_untrusted(data, now_s)
