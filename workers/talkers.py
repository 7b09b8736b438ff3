"""
Which peers move the most bytes here, reported to the supervisor.

The data path adds to two numbers of each connection (``Connection.bytes_received`` for each datagram,
``Connection.bytes_sent`` for each train); everything else happens here, every TALKERS_INTERVAL_S. What a peer's relay
channels move is not seen here: they may belong to another worker, and the supervisor charges them to the peer anyway.
"""

import asyncio
from collections.abc import Callable, Mapping
from heapq import nlargest

from antquic_server.ipc.messages import Message
from antquic_server.ipc.talker_messages import MAX_TALKERS, TALKERS_INTERVAL_S, Talker, TopTalkers
from workers.connection import Connection
from workers.periodic import Periodic


class _Sum:
    """What the connections of one peer have moved; ``busiest`` is the one of them that moved most."""

    __slots__ = ("busiest", "busiest_bytes", "bytes_received", "bytes_sent", "received", "sent")

    def __init__(self, connection: Connection) -> None:
        self.busiest = connection
        self.busiest_bytes = 0
        self.bytes_sent = 0
        self.bytes_received = 0
        self.sent = 0
        self.received = 0

    def add(self, connection: Connection) -> None:
        """Add what a connection has moved since the last report, and begin its next interval."""
        sent = connection.bytes_sent - connection.reported_bytes_sent
        received = connection.bytes_received - connection.reported_bytes_received
        connection.reported_bytes_sent = connection.bytes_sent
        connection.reported_bytes_received = connection.bytes_received
        self.bytes_sent += connection.bytes_sent
        self.bytes_received += connection.bytes_received
        self.sent += sent
        self.received += received
        if sent + received > self.busiest_bytes:
            self.busiest = connection
            self.busiest_bytes = sent + received

    def talker(self) -> Talker:
        """Return it in the form of the message."""
        return Talker(
            peer_id=self.busiest.peer_id or b"",
            host=self.busiest.path.host,
            port=self.busiest.path.port,
            bytes_sent=self.bytes_sent,
            bytes_received=self.bytes_received,
            interval_bytes_sent=self.sent,
            interval_bytes_received=self.received,
        )


class TalkerReports:
    """Reports the busiest of ``connections``, by their numbers, from ``start`` to ``stop``."""

    def __init__(
        self,
        connections: Mapping[int, Connection],
        tell_hub: Callable[[Message], bool],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._connections = connections
        self._tell_hub = tell_hub
        self._loop = loop
        self._reported_s = loop.time()
        self._periodic = Periodic(TALKERS_INTERVAL_S, self.report, loop)

    def start(self) -> None:
        """Begin the first interval."""
        self._reported_s = self._loop.time()
        self._periodic.start()

    def stop(self) -> None:
        """Report no more; may be called twice."""
        self._periodic.stop()

    def report(self) -> None:
        """Tell the supervisor who has moved the most since the last report."""
        now_s = self._loop.time()
        interval_s, self._reported_s = now_s - self._reported_s, now_s
        sums: dict[bytes | int, _Sum] = {}
        for connection in self._connections.values():
            if (
                connection.bytes_received == connection.reported_bytes_received
                and connection.bytes_sent == connection.reported_bytes_sent
            ):
                continue
            key = connection.peer_id or connection.number
            held = sums.get(key)
            if held is None:
                held = sums[key] = _Sum(connection)
            held.add(connection)
        busiest = nlargest(MAX_TALKERS, sums.values(), key=lambda item: item.sent + item.received)
        self._tell_hub(TopTalkers(interval_s=interval_s, talkers=[item.talker() for item in busiest]))
