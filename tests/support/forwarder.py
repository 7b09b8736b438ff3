"""A NAT in miniature: a UDP forwarder between clients and one server whose mappings can be moved while it runs."""

import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from support.node import Node

__all__ = ["Address", "ForwarderCounts", "StartForwarder", "UdpForwarder"]

LARGEST_DATAGRAM_BYTES = 65535
Address = tuple[str, int]
Tap = Callable[[bool, bytes], None]
"""Is shown every datagram that passes, and whether it goes to the server; called on the forwarder's thread."""


@dataclass(slots=True)
class ForwarderCounts:
    """Datagrams passed on in each direction, and those from addresses other than the server's."""

    to_server: int = 0
    to_clients: int = 0
    unexpected: int = 0


class UdpForwarder:
    """
    Forward every client's datagrams from a socket of its own, as a NAT gives every flow a mapping of its own.

    ``rebind`` gives all flows new source ports at once and forgets the old ones, as a NAT does that was restarted: what
    the server still sends to an old port is lost. A thread does the forwarding; the methods may be called from any.
    """

    def __init__(self, server: Address, *, listen_host: str = "127.0.0.1", tap: Tap | None = None) -> None:
        self._server = server
        self._tap = tap or (lambda _to_server, _data: None)
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._inside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._inside.bind((listen_host, 0))
        self._inside.setblocking(False)
        self._upstream: dict[Address, socket.socket] = {}
        self._source_host = "127.0.0.1"
        self._stopping = False
        self._last_datagram_s = time.monotonic()
        self.counts = ForwarderCounts()
        self._selector.register(self._inside, selectors.EVENT_READ, None)
        self._selector.register(self._wake_receiver, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._run, name="UDP forwarder", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping = True
        self._wake_sender.send(b"x")
        self._thread.join()
        self._selector.close()
        for one in (self._inside, self._wake_receiver, self._wake_sender, *self._upstream.values()):
            one.close()

    @property
    def port(self) -> int:
        """The port clients send to."""
        return int(self._inside.getsockname()[1])

    def source_addresses(self) -> list[Address]:
        """Return the addresses the server sees, one per client, oldest client first."""
        with self._lock:
            return [one.getsockname() for one in self._upstream.values()]

    def silent_for_s(self) -> float:
        """Return the seconds since the last datagram in either direction."""
        return time.monotonic() - self._last_datagram_s

    def rebind(self, *, source_host: str = "127.0.0.1") -> list[Address]:
        """Give every flow a new source port (and host, any of 127.0.0.0/8); return the addresses now in use."""
        with self._lock:
            self._source_host = source_host
            for client, old in list(self._upstream.items()):
                # The new socket is bound before the old one is closed, else the kernel might give the same port.
                self._upstream[client] = self._open_upstream(client)
                self._selector.unregister(old)
                old.close()
        self._wake_sender.send(b"x")
        return self.source_addresses()

    def _open_upstream(self, client: Address) -> socket.socket:
        upstream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        upstream.bind((self._source_host, 0))
        upstream.setblocking(False)
        self._selector.register(upstream, selectors.EVENT_READ, client)
        return upstream

    def _run(self) -> None:
        while not self._stopping:
            for key, _ in self._selector.select():
                with self._lock:
                    if key.fileobj is self._inside:
                        self._forward_to_server()
                    elif key.fileobj is self._wake_receiver:
                        self._wake_receiver.recv(64)
                    elif self._upstream.get(key.data) is key.fileobj:
                        self._forward_to_client(key.data, self._upstream[key.data])

    def _forward_to_server(self) -> None:
        try:
            data, client = self._inside.recvfrom(LARGEST_DATAGRAM_BYTES)
        except (BlockingIOError, ConnectionRefusedError):
            return
        if client not in self._upstream:
            self._upstream[client] = self._open_upstream(client)
        try:
            self._upstream[client].sendto(data, self._server)
        except (BlockingIOError, ConnectionRefusedError):
            return
        self._tap(True, data)
        self.counts.to_server += 1
        self._last_datagram_s = time.monotonic()

    def _forward_to_client(self, client: Address, upstream: socket.socket) -> None:
        try:
            data, source = upstream.recvfrom(LARGEST_DATAGRAM_BYTES)
        except (BlockingIOError, ConnectionRefusedError):
            return
        if source != self._server:
            self.counts.unexpected += 1
            return
        try:
            self._inside.sendto(data, client)
        except (BlockingIOError, ConnectionRefusedError):
            return
        self._tap(False, data)
        self.counts.to_clients += 1
        self._last_datagram_s = time.monotonic()


# What the fixture ``start_forwarder`` hands out: it puts a forwarder before that node.
StartForwarder = Callable[[Node], UdpForwarder]
