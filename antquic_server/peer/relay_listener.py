"""
Being reached at an address of a node: a stream relay that is kept, and told to every node.

For peers behind NATs that nothing gets through, so that those can dial them which know nothing of channels. The relay
lives as long as the connection that carries it; another one, with another address, is asked for when it has ended,
at once and then ever more rarely. Pure: time is an argument.
"""

from collections.abc import Callable

from antquic_server.peer.link import Link
from antquic_server.peer.relay_stream import StreamRelay, StreamRelays
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.frames import AddAddress, RemoveAddress

__all__ = ["FIRST_WAIT_S", "LONGEST_WAIT_S", "RelayListener"]

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0


class RelayListener:
    """
    Keeps one relay, once it is wanted.

    Args:
        streams: Where relays are asked for.
        node_links: Connections to nodes, best first.
        touch: Has a connection flushed.
        changed: Told of the relay's address, or of None and the reason why there is none.
    """

    def __init__(
        self,
        *,
        streams: StreamRelays,
        node_links: Callable[[], list[Link]],
        touch: Callable[[Link], None],
        changed: Callable[[SocketAddress | None, str], None],
    ) -> None:
        self.wanted = False
        self._streams = streams
        self._node_links = node_links
        self._touch = touch
        self._changed = changed
        self._relay: StreamRelay | None = None
        self._told: dict[Link, int] = {}
        """Sequence number under which a node knows the address."""
        self._next_sequence_number = 0
        self._failures = 0
        self._turn = 0
        self._try_at_s: float | None = None

    @property
    def address(self) -> SocketAddress | None:
        """Where we can be reached, None while nowhere."""
        return None if self._relay is None else self._relay.address

    @property
    def relay(self) -> StreamRelay | None:
        """The relay that is kept."""
        return self._relay

    def want(self, now_s: float) -> None:
        """Keep a relay from now on."""
        if not self.wanted:
            self.wanted, self._try_at_s = True, now_s
            self.handle_timer(now_s)

    def node_ready(self, link: Link, now_s: float) -> None:
        """Take in that a node is connected."""
        if self.address is not None:
            self._tell(link, self.address)
        elif self.wanted and self._relay is None:
            self._try_at_s = now_s
            self.handle_timer(now_s)

    def opened(self, relay: StreamRelay) -> None:
        """Take in that a relay has its address."""
        if relay is self._relay and relay.address is not None:
            self._failures = 0
            for link in self._node_links():
                self._tell(link, relay.address)
            self._changed(relay.address, "")

    def ended(self, relay: StreamRelay, reason: str, now_s: float) -> None:
        """Take in that a relay is gone, or was refused."""
        if relay is not self._relay:
            return
        self._relay = None
        for link, sequence_number in self._told.items():
            if not link.closed:
                link.quic.advertise_address(RemoveAddress(sequence_number=sequence_number))
                self._touch(link)
        self._told.clear()
        self._turn += 1
        self._try_at_s = now_s + min(FIRST_WAIT_S * 2**self._failures, LONGEST_WAIT_S)
        self._failures = min(self._failures + 1, 30)
        self._changed(None, reason)

    def _tell(self, link: Link, address: SocketAddress) -> None:
        if link not in self._told:
            self._told[link] = self._next_sequence_number
            link.quic.advertise_address(AddAddress(sequence_number=self._next_sequence_number, address=address))
            self._next_sequence_number += 1
            self._touch(link)

    # Time.

    def next_deadline_s(self) -> float | None:
        """Return when :meth:`handle_timer` is due."""
        return self._try_at_s

    def handle_timer(self, now_s: float) -> None:
        """Ask a node for a relay, if it is time; without a node, wait for one."""
        if self._try_at_s is None or now_s < self._try_at_s:
            return
        self._try_at_s = None
        nodes = self._node_links()
        if nodes and self._relay is None:
            node = nodes[self._turn % len(nodes)]
            self._relay = self._streams.open(node, now_s)
            self._touch(node)
            self.opened(self._relay)
