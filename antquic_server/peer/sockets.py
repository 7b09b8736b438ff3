"""The UDP sockets of an endpoint: one for each address it listens on, for dialling and accepting alike."""

import asyncio
import errno
import socket
from collections import Counter, deque
from collections.abc import Callable, Sequence
from ipaddress import ip_address

from antquic_server.net.sockets import bind_slots
from antquic_server.net.udp import PathAddress, UdpSocket
from antquic_server.protocol.address import SocketAddress

__all__ = ["PeerSockets"]

RECEIVE_BURST_DATAGRAMS = 128
MAX_QUEUED_DATAGRAMS = 4096
"""Per endpoint, while a socket is full; beyond that they are dropped, which QUIC takes for loss."""


class PeerSockets:
    """
    Opens sockets, reads them in bursts, and queues what they will not take yet.

    Raises ``PortInUseError``, ``PrivilegeError`` or ``CannotBootError`` like ``bind_slots``.
    """

    def __init__(
        self,
        listen: Sequence[str],
        on_burst: Callable[[list[tuple[bytes, PathAddress]]], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.drops: Counter[str] = Counter()
        self._loop = loop
        self._on_burst = on_burst
        self._groups = bind_slots(listen, 1)
        self._sockets = [
            UdpSocket(group.sockets[0], wildcard=group.wildcard, socket_index=index)
            for index, group in enumerate(self._groups)
        ]
        self._queue: deque[tuple[PathAddress, Sequence[bytes]]] = deque()
        self._queued_datagrams = 0
        for udp in self._sockets:
            loop.add_reader(udp.fileno(), self._readable, udp)

    @property
    def addresses(self) -> list[SocketAddress]:
        """The addresses bound, with the real ports."""
        return [SocketAddress.from_host(group.host, group.port) for group in self._groups]

    def path_to(self, address: SocketAddress) -> PathAddress | None:
        """Return how to send to an address; None if no socket has its family."""
        wanted = socket.AF_INET if address.is_ipv4 else socket.AF_INET6
        for index, group in enumerate(self._groups):
            if group.family == wanted:
                return PathAddress(str(address.host), address.port, 0, 0, b"", index)
        return None

    def reachable_addresses(self) -> list[SocketAddress]:
        """Return the addresses bound, loopback in place of "all addresses": the last resort of a request."""
        found = []
        for item in self.addresses:
            loopback = ip_address("127.0.0.1" if item.is_ipv4 else "::1")
            found.append(SocketAddress(host=loopback, port=item.port) if item.host.is_unspecified else item)
        return found

    def send(self, path: PathAddress, datagrams: Sequence[bytes]) -> None:
        """Send or queue datagrams for one path, in order."""
        if not self._queue:
            datagrams = self._send_now(path, datagrams)
            if not datagrams:
                return
            self._loop.add_writer(self._sockets[path.socket_index].fileno(), self._writable, path.socket_index)
        if self._queued_datagrams + len(datagrams) > MAX_QUEUED_DATAGRAMS:
            self.drops["send_queue_full"] += len(datagrams)
            return
        self._queue.append((path, datagrams))
        self._queued_datagrams += len(datagrams)

    def close(self) -> None:
        """Close every socket; what is queued is lost."""
        for udp in self._sockets:
            self._loop.remove_reader(udp.fileno())
            self._loop.remove_writer(udp.fileno())
        for group in self._groups:
            group.close()
        self._queue.clear()

    def _readable(self, udp: UdpSocket) -> None:
        received = udp.receive_datagrams(RECEIVE_BURST_DATAGRAMS)
        if received:
            self._on_burst(received)

    def _send_now(self, path: PathAddress, datagrams: Sequence[bytes]) -> Sequence[bytes]:
        result = self._sockets[path.socket_index].send(path, datagrams)
        if result.dropped:
            # What the link does not take is what a path MTU probe asks for, and no fault.
            self.drops["above_link_mtu" if result.errno == errno.EMSGSIZE else "send_error"] += result.dropped
        return datagrams[result.handled :]

    def _writable(self, socket_index: int) -> None:
        while self._queue:
            path, datagrams = self._queue.popleft()
            rest = self._send_now(path, datagrams)
            self._queued_datagrams -= len(datagrams) - len(rest)
            if rest:
                self._queue.appendleft((path, rest))
                if path.socket_index != socket_index:
                    # The other socket is the full one now: wait for that instead.
                    self._loop.remove_writer(self._sockets[socket_index].fileno())
                    index = path.socket_index
                    self._loop.add_writer(self._sockets[index].fileno(), self._writable, index)
                return
        self._loop.remove_writer(self._sockets[socket_index].fileno())
