"""Tests of the list of talkers: what workers report, put together, and what of it is not believed."""

from typing import Any

import pytest

from antquic_server.ipc.talker_messages import MAX_TALKERS, Talker, TopTalkers
from antquic_server.protocol.relay_limits import RelayMode
from antquic_server.supervisor.directory import Directory, PeerConnection
from antquic_server.supervisor.relay_quotas import Allowance, RelaySession
from antquic_server.supervisor.talkers import STALE_S, TalkerBoard

ALICE = b"a" * 32
BOB = b"b" * 32


class Board:
    """A list with a clock that is turned by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.directory = Directory(10)
        self.board = TalkerBoard(self.directory, clock=lambda: self.now_s)

    def hear(self, slot: int, *talkers: Talker, interval_s: float = 2.0) -> None:
        """A worker reports."""
        self.board.heard(slot, TopTalkers(interval_s=interval_s, talkers=list(talkers)))

    def relay(self, mode: RelayMode, moved_bytes: int, peer_id: bytes = ALICE, number: int = 1) -> None:
        """A relay session has moved something."""
        session = RelaySession(
            slot=1,
            number=number,
            mode=mode,
            peer_id=peer_id,
            prefix=b"",
            allowance=Allowance(rate_bytes_per_s=1.0, burst_bytes=1.0),
        )
        self.board.relayed(session, moved_bytes)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The list."""
        return self.board.document()


def talker(peer_id: bytes = ALICE, *, sent: int = 2000, received: int = 1000, **facts: Any) -> Talker:
    """A talker that has moved so much in the interval, and ten times that in all."""
    values: dict[str, Any] = {"host": "192.0.2.1", "port": 9, **facts}
    return Talker(
        peer_id=peer_id,
        bytes_sent=10 * sent,
        bytes_received=10 * received,
        interval_bytes_sent=sent,
        interval_bytes_received=received,
        **values,
    )


def test_report_becomes_an_entry() -> None:
    """With rates over the interval that the worker measured, and IPv4 written as such."""
    it = Board()
    it.hear(3, talker(host="::ffff:192.0.2.1"), interval_s=4.0)

    assert it.rows == [
        {
            "peer_id": ALICE.hex(),
            "slot": 3,
            "host": "192.0.2.1",
            "port": 9,
            "bytes_sent": 20_000,
            "bytes_received": 10_000,
            "sent_bytes_per_s": 500,
            "received_bytes_per_s": 250,
            "relayed_bytes": 0,
            "relayed_bytes_per_s": 0,
        }
    ]


def test_peer_on_two_workers_is_one_entry() -> None:
    """At the place of its busier connection; clients without identity are not thrown together."""
    it = Board()
    it.hear(0, talker(sent=10, received=0), talker(b"", sent=4, received=0))
    it.hear(1, talker(sent=30, received=0, host="192.0.2.7"), talker(b"", sent=6, received=0))

    assert [(row["peer_id"], row["slot"], row["host"], row["sent_bytes_per_s"]) for row in it.rows] == [
        (ALICE.hex(), 1, "192.0.2.7", 20),
        ("", 1, "192.0.2.1", 3),
        ("", 0, "192.0.2.1", 2),
    ]


def test_list_is_bounded_and_sorted() -> None:
    """Ten of the node, whichever workers they are on; more in one message is not believed."""
    it = Board()
    it.hear(0, *(talker(bytes([number]) * 32, sent=number) for number in range(100, 110)))
    it.hear(1, *(talker(bytes([number]) * 32, sent=number) for number in range(105, 125)))

    assert len(it.rows) == MAX_TALKERS
    assert [bytes.fromhex(row["peer_id"])[0] for row in it.rows[:6]] == [109, 108, 107, 106, 105, 114]


def test_stale_and_dead_reports_vanish() -> None:
    """A worker that is stuck says nothing about now, and a dead one nothing at all."""
    it = Board()
    it.hear(0, talker(ALICE))
    it.now_s += STALE_S
    it.hear(1, talker(BOB))
    assert len(it.rows) == 2
    it.now_s += 0.1
    assert [row["peer_id"] for row in it.rows] == [BOB.hex()]
    it.board.slot_down(1)
    it.board.slot_down(1)
    assert it.rows == []


@pytest.mark.parametrize(
    "nonsense",
    [
        talker(b"short"),
        talker(sent=-1),
        talker(received=-1),
        talker(host="not an address"),
        talker(port=70_000),
        talker(port=-1),
    ],
)
def test_nonsense_of_a_worker_is_left_out(nonsense: Talker) -> None:
    """The rest of the report is taken."""
    it = Board()
    it.hear(0, nonsense, talker(BOB), interval_s=-5.0)

    assert [row["peer_id"] for row in it.rows] == [BOB.hex()]
    assert it.rows[0]["sent_bytes_per_s"] >= 0


def test_channel_counts_in_both_directions_of_who_asked_for_it() -> None:
    """Found at the peer's newest connection, though that is idle; the rate is that of the last reports."""
    it = Board()
    it.directory.peer_up(ALICE, PeerConnection(slot=2, connection=1, host="192.0.2.5", port=77))
    for moved in (5000, 3000, 3000):
        it.relay(RelayMode.CHANNEL, moved)
        it.now_s += 1.0

    (row,) = it.rows
    assert (row["slot"], row["host"], row["port"]) == (2, "192.0.2.5", 77)
    assert row["bytes_sent"] == row["bytes_received"] == row["relayed_bytes"] == 11_000
    assert row["sent_bytes_per_s"] == row["received_bytes_per_s"] == row["relayed_bytes_per_s"] == 3000


def test_stream_session_is_on_the_connection_already() -> None:
    """It adds to what was relayed and not to the bytes, which the worker has counted."""
    it = Board()
    it.hear(0, talker())
    it.relay(RelayMode.STREAM, 400)
    it.relay(RelayMode.STREAM, 100, number=2)

    (row,) = it.rows
    assert (row["sent_bytes_per_s"], row["relayed_bytes"], row["relayed_bytes_per_s"]) == (1000, 500, 500)


def test_peer_that_relays_no_more_is_forgotten() -> None:
    """Even while nobody asks: what is kept is bounded by the sessions of the last seconds."""
    it = Board()
    for number in range(50):
        it.relay(RelayMode.CHANNEL, 10, peer_id=bytes([number]) * 32)
    it.now_s += STALE_S + 0.1
    it.relay(RelayMode.CHANNEL, 0, peer_id=BOB)
    it.relay(RelayMode.CHANNEL, 10, peer_id=BOB)

    assert len(it.board._usage[RelayMode.CHANNEL]) == 1
    (row,) = it.rows
    assert (row["peer_id"], row["host"], row["port"]) == (BOB.hex(), "", 0)
