"""Tests of ``workers.connection``."""

from typing import Any

import pytest

from antquic_server.net.udp import PathAddress
from antquic_server.protocol.address import SocketAddress
from workers.connection import CANDIDATE_REPORT_BURST, CANDIDATE_REPORTS_PER_S, Connection

PATH = PathAddress("192.0.2.1", 1000, 0, 0, b"", 0)


def connection_with(quic_timer_s: float | None, handshake_s: float | None, keep_alive_s: float | None) -> Connection:
    """A connection with these three deadlines."""
    quic: Any = type("Quic", (), {"get_timer": lambda _: quic_timer_s})()
    connection = Connection(number=1, quic=quic, path=PATH, handshake_deadline_s=0.0)
    connection.handshake_deadline_s = handshake_s
    connection.keep_alive_at_s = keep_alive_s
    return connection


@pytest.mark.parametrize(
    ("deadlines", "earliest"),
    [
        ((None, None, None), None),
        ((1.0, None, None), 1.0),
        ((3.0, 2.0, None), 2.0),
        ((3.0, None, 2.0), 2.0),
        ((3.0, 2.0, 1.0), 1.0),
        ((1.0, 2.0, 3.0), 1.0),
        ((None, 0.0, 3.0), 0.0),
    ],
)
def test_next_deadline_is_the_earliest(
    deadlines: tuple[float | None, float | None, float | None], earliest: float | None
) -> None:
    """Of QUIC's timer, the handshake deadline and the keep-alive, those that are set; zero is a time too."""
    assert connection_with(*deadlines).next_deadline_s() == earliest


def test_new_connection_is_neither_ready_nor_armed() -> None:
    """What is true of a connection whose first packet has not been looked at."""
    connection = connection_with(None, None, None)
    assert not connection.ready
    assert connection.peer_id is None
    assert connection.connection_ids == set()
    assert connection.timer_at_s is None
    assert connection.timer_entries_s == []


def test_changed_candidates_are_reported_once_and_not_too_often() -> None:
    """What has changed too often is reported as soon as there is a token again, in its last form."""
    connection = connection_with(None, None, None)
    candidates: list[SocketAddress] = []
    quic: Any = connection.quic
    quic.candidates = candidates
    assert not connection.take_candidate_report(0.0)
    reports = 0
    for port in range(100):
        candidates[:] = [SocketAddress.from_host("203.0.113.1", port)]
        reports += connection.take_candidate_report(0.0)
        assert not connection.take_candidate_report(0.0)
    assert reports == CANDIDATE_REPORT_BURST

    assert connection.take_candidate_report(1 / CANDIDATE_REPORTS_PER_S)
    assert not connection.take_candidate_report(1000.0)
