"""Tests of ``workers.punch_reports``: which reports of peers reach the hub."""

from typing import Any

import pytest

from antquic_server.ipc.messages import Message
from antquic_server.ipc.punch_messages import PunchReported
from antquic_server.net.udp import PathAddress
from antquic_server.protocol.address_discovery import Mapping
from antquic_server.protocol.punch_report import PunchReport, encode_punch_report
from antquic_server.stats.counters import CounterSet
from support.in_process import run, running_worker, until
from workers.connection import Connection
from workers.punch_reports import REPORTS_BURST, REPORTS_PER_S, PunchReports

PATH = PathAddress("192.0.2.7", 50007, 0, 0, b"", 0)
PEER, OTHER = b"p" * 32, b"o" * 32
REPORT = encode_punch_report(PunchReport(other=OTHER, succeeded=True, nat_mapping=Mapping.DEPENDENT))


class Bench:
    """One connection of an authenticated peer."""

    def __init__(self) -> None:
        self.told: list[Message] = []
        self.hub_takes = True
        self.now_s = 1.0
        self.counters = CounterSet()
        quic: Any = None
        self.connection = Connection(number=1, quic=quic, path=PATH, handshake_deadline_s=0.0)
        self.connection.peer_id = PEER
        self.reports = PunchReports(self._tell_hub, lambda: self.now_s, self.counters)

    def _tell_hub(self, message: Message) -> bool:
        if self.hub_takes:
            self.told.append(message)
        return self.hub_takes

    def give(self, data: bytes = REPORT) -> dict[str, float]:
        """Let the peer say something; returns what is counted by now."""
        self.reports.handle_message_untrusted(self.connection, data)
        values = self.counters.values
        return {key.partition("|")[2]: values[key] for key in values if key.startswith("punch_reports|")}


@pytest.fixture
def bench() -> Bench:
    """A fresh one."""
    return Bench()


def test_report_goes_to_the_hub_under_the_proven_name(bench: Bench) -> None:
    """Who says it is what the handshake has proven; the message has no such field. The hub counts it."""
    assert bench.give() == {}
    assert bench.told == [PunchReported(peer_id=PEER, other=OTHER, succeeded=True, nat_mapping="dependent")]


def test_a_stranger_is_not_listened_to(bench: Bench) -> None:
    """A client without a key of its own cannot have been introduced."""
    bench.connection.peer_id = None
    assert bench.give() == {"unauthenticated": 1}
    assert bench.told == []


def test_nonsense_is_counted_and_goes_nowhere(bench: Bench) -> None:
    """Malformed, or so long that the end was not waited for."""
    bench.reports.count_malformed()
    assert bench.give(REPORT + b"\0") == {"malformed": 2}
    assert bench.told == []


def test_a_flood_ends_at_the_limit_of_its_connection(bench: Bench) -> None:
    """The burst, and then so many a second."""
    for _ in range(int(REPORTS_BURST) + 6):
        bench.give()
    assert bench.give() == {"rate_limited": 7}
    assert len(bench.told) == REPORTS_BURST
    bench.now_s += 2.5 / REPORTS_PER_S
    assert [bench.give() for _ in range(3)][-1] == {"rate_limited": 8}
    assert len(bench.told) == REPORTS_BURST + 2


def test_full_queue_to_the_hub_is_counted(bench: Bench) -> None:
    """The report is lost, and that is seen."""
    bench.hub_takes = False
    assert bench.give() == {"hub_busy": 1}


def test_worker_finds_reports_among_a_peers_streams() -> None:
    """One stream, in two parts; the echo service behind it sees nothing."""

    async def story() -> None:
        async with running_worker() as bench:
            client = await bench.connected()
            stream_id = client.quic.get_next_available_stream_id(is_unidirectional=True)
            client.quic.send_stream_data(stream_id, REPORT[:3])
            bench.client.flush([client])
            client.quic.send_stream_data(stream_id, REPORT[3:], end_stream=True)
            bench.client.flush([client])
            await until(lambda: [each for each in bench.told_hub if isinstance(each, PunchReported)], "report")
            (report,) = (each for each in bench.told_hub if isinstance(each, PunchReported))
            assert report.other == OTHER
            assert report.peer_id == bench.up[0][0]
            assert bench.counted("messages_echoed") == 0

    run(story())
