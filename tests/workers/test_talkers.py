"""Tests of ``workers.talkers``: whom a worker reports, and for how much."""

import asyncio
import os
from typing import Any

from antquic_server.ipc.messages import Message
from antquic_server.ipc.talker_messages import MAX_TALKERS, TALKERS_INTERVAL_S, Talker, TopTalkers
from antquic_server.net.udp import PathAddress
from support.in_process import run, running_worker, until
from workers.connection import Connection
from workers.talkers import TalkerReports


class Clock:
    """A loop whose clock is turned by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.timers: list[tuple[float, Any]] = []

    def time(self) -> float:
        """Monotonic seconds."""
        return self.now_s

    def call_later(self, delay_s: float, callback: Any) -> Any:
        """What the loop does."""
        self.timers.append((delay_s, callback))
        return self

    def cancel(self) -> None:
        """What a timer does."""
        self.timers.clear()


class Reports:
    """Reports about made-up connections."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.connections: dict[int, Connection] = {}
        self.told: list[Message] = []
        loop: Any = self.clock
        self.reports = TalkerReports(self.connections, self.tell, loop)
        self.reports.start()

    def tell(self, message: Message) -> bool:
        """Take a message."""
        self.told.append(message)
        return True

    def connect(self, peer_id: bytes | None, host: str = "192.0.2.1") -> Connection:
        """Add a connection, whose port is 1000 and its number."""
        number = len(self.connections) + 1
        quic: Any = None
        path = PathAddress(host, 1000 + number, 0, 0, b"", 0)
        connection = Connection(number=number, quic=quic, path=path, handshake_deadline_s=0.0)
        connection.peer_id = peer_id
        self.connections[number] = connection
        return connection

    def after(self, seconds: float) -> TopTalkers:
        """Let time pass and return the next report."""
        self.clock.now_s += seconds
        delay_s, callback = self.clock.timers.pop()
        assert delay_s == TALKERS_INTERVAL_S
        callback()
        report = self.told[-1]
        assert isinstance(report, TopTalkers)
        return report


def move(connection: Connection, *, received: int, sent: int) -> None:
    """What the data path does."""
    connection.bytes_received += received
    connection.bytes_sent += sent


def test_only_what_has_moved_in_the_interval_is_reported() -> None:
    """With the bytes of the whole connection beside those of the interval; then nothing."""
    it = Reports()
    connection = it.connect(b"a" * 32)
    it.connect(b"b" * 32)
    move(connection, received=100, sent=7)
    it.after(2.0)
    move(connection, received=1, sent=2)

    expected = Talker(
        peer_id=b"a" * 32,
        host="192.0.2.1",
        port=1001,
        bytes_sent=9,
        bytes_received=101,
        interval_bytes_sent=2,
        interval_bytes_received=1,
    )
    assert it.after(2.5) == TopTalkers(interval_s=2.5, talkers=[expected])
    assert it.after(2.0).talkers == []


def test_connections_of_a_peer_are_one_talker() -> None:
    """At the address of the busiest of them; clients without identity stay apart."""
    it = Reports()
    for peer_id, host, sent in (
        (b"a" * 32, "192.0.2.1", 5),
        (b"a" * 32, "192.0.2.2", 6),
        (None, "::1", 4),
        (None, "::1", 3),
    ):
        move(it.connect(peer_id, host), received=0, sent=sent)

    talkers = it.after(2.0).talkers
    assert [(each.peer_id, each.host, each.port, each.bytes_sent) for each in talkers] == [
        (b"a" * 32, "192.0.2.2", 1002, 11),
        (b"", "::1", 1003, 4),
        (b"", "::1", 1004, 3),
    ]


def test_the_busiest_ten_are_reported() -> None:
    """By both directions together, the busiest first."""
    it = Reports()
    for number in range(MAX_TALKERS + 5):
        move(it.connect(bytes([number]) * 32), received=number, sent=1)

    talkers = it.after(2.0).talkers
    assert [each.peer_id[0] for each in talkers] == list(range(14, 4, -1))


def test_stopped_reports_are_over() -> None:
    """The timer is gone."""
    it = Reports()
    it.reports.stop()
    it.reports.stop()
    assert it.clock.timers == []


def test_data_path_counts_every_byte_of_a_connection() -> None:
    """Both directions, as the worker's own counters have them: there is only one client."""

    async def story() -> None:
        async with running_worker() as bench:
            connection = await bench.connected()
            payload = os.urandom(50_000)
            assert await connection.echo(payload, 5.0) == payload
            (served,) = bench.endpoint.connections.values()
            # Acknowledgements go on for a moment.
            await until(lambda: served.bytes_received == bench.counted("bytes_received"), "counted bytes")
            assert served.bytes_sent == bench.counted("bytes_sent") > len(payload)
            bench.worker.talkers.report()
            (report,) = [each for each in bench.told_hub if isinstance(each, TopTalkers)]
            (talker,) = report.talkers
            assert (talker.peer_id, talker.port) == (served.peer_id, bench.client.port)
            assert talker.bytes_sent == talker.interval_bytes_sent == served.bytes_sent
            await asyncio.sleep(0)

    run(story())
