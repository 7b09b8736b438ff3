"""
A network with a round-trip time, in miniature: a forwarder that passes every datagram on, later.

It runs in a thread of its own, with the kernel's timeouts of milliseconds. Order is kept; trains are taken apart by the
kernel, since nobody asked it to keep them.
"""

import heapq
import select
import socket
import threading
import time
from itertools import count
from types import TracebackType
from typing import Final, Self

__all__ = ["DelayedPath"]

_LARGEST_DATAGRAM_BYTES: Final = 65535
_BUFFER_BYTES: Final = 1 << 22


class DelayedPath:
    """
    A path from one client to a server on 127.0.0.1 with ``rtt_s`` seconds of round-trip time, half of it each way.

    Whoever sends to ``port`` last is the client. With 0 s datagrams are passed on at once, so that what is measured
    across several delays has the forwarder in common.
    """

    def __init__(self, server_port: int, rtt_s: float) -> None:
        self._delay_s = rtt_s / 2
        self._inside = _socket()
        self._outside = _socket()
        self._outside.connect(("127.0.0.1", server_port))
        self._client: tuple[str, int] | None = None
        self._waiting: list[tuple[float, int, bool, bytes]] = []
        self._numbers = count()
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="delayed path", daemon=True)

    @property
    def port(self) -> int:
        """Where the client sends to, on 127.0.0.1."""
        port: int = self._inside.getsockname()[1]
        return port

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._wake.send(b"x")
        self._thread.join()
        for sock in (self._inside, self._outside, self._wake, self._woken):
            sock.close()

    def _run(self) -> None:
        # Not select(): a process that measures thousands of connections has descriptors above 1024.
        poller = select.poll()
        for sock in (self._inside, self._outside, self._woken):
            poller.register(sock, select.POLLIN)
        while True:
            ready = [descriptor for descriptor, _ in poller.poll(self._timeout_ms())]
            if self._woken.fileno() in ready:
                return
            self._read(time.monotonic())
            self._send(time.monotonic())

    def _timeout_ms(self) -> int | None:
        if not self._waiting:
            return None
        # Rounded up: rounded down it would spin for the last part of a millisecond.
        return max(0, int(1000 * (self._waiting[0][0] - time.monotonic())) + 1)

    def _read(self, now_s: float) -> None:
        for sock, up in ((self._inside, True), (self._outside, False)):
            while True:
                try:
                    data, source = sock.recvfrom(_LARGEST_DATAGRAM_BYTES)
                except BlockingIOError:
                    break
                except ConnectionRefusedError:
                    continue  # the server is gone: its clients find out by themselves
                if up:
                    self._client = source
                heapq.heappush(self._waiting, (now_s + self._delay_s, next(self._numbers), up, data))

    def _send(self, now_s: float) -> None:
        while self._waiting and self._waiting[0][0] <= now_s:
            _, _, up, data = heapq.heappop(self._waiting)
            try:
                if up:
                    self._outside.send(data)
                elif self._client is not None:
                    self._inside.sendto(data, self._client)
            except (BlockingIOError, ConnectionRefusedError):
                continue  # a full buffer or nobody there: lost, as on a network


def _socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
    sock.bind(("127.0.0.1", 0))
    return sock
