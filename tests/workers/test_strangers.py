"""Tests of ``workers.strangers``: passing on, stateless resets, and who is not let in."""

import os
import socket
from collections.abc import Iterator

import pytest

from antquic_server.net.stray import StrayPair, StrayReceiver, make_stray_pairs
from antquic_server.net.udp import PathAddress
from antquic_server.protocol.stateless_reset import reset_token
from antquic_server.stats.counters import CounterSet
from support.initials import IDLE, PATH, first_flight, header_of, long_header, make_admission
from support.pair import LAYOUT, RESET_KEY, SLOT
from workers.admission import Admitted
from workers.strangers import Strangers


class Bench:
    """Strangers of slot 2 of 4, with the answers they gave."""

    def __init__(self, resets_per_s: float = 1000.0, *, retry: str = "off") -> None:
        self.counters = CounterSet()
        self.replies: list[tuple[PathAddress, bytes]] = []
        self.stray: list[StrayPair] = make_stray_pairs(LAYOUT.worker_count)
        self.strangers = Strangers(
            slot=SLOT,
            layout=LAYOUT,
            stray_senders=[pair.sender for pair in self.stray],
            admission=make_admission(counters=self.counters, retry=retry),
            counters=self.counters,
            reset_key=RESET_KEY,
            resets_per_s=resets_per_s,
            random_bytes=os.urandom,
            reply=lambda path, data: self.replies.append((path, data)),
        )

    def judge(self, data: bytes, *, now_s: float = 0.0) -> Admitted | None:
        """As the endpoint asks, with the connection ID it has found."""
        cid: bytes | None = header_of(data).destination_cid if data[0] & 0x80 else data[1:11]
        return self.strangers.judge_untrusted(data, PATH, cid, load=IDLE, now_s=now_s)

    def counted(self) -> dict[str, float]:
        """What is not zero."""
        return {key: value for key, value in self.counters.values.items() if value}

    def close(self) -> None:
        """Close the stray channels."""
        for pair in self.stray:
            for sock in pair:
                sock.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    """One with plenty of resets."""
    made = Bench()
    yield made
    made.close()


def short_packet(cid: bytes, size: int = 60) -> bytes:
    """A packet of a connection nobody knows."""
    return (b"\x40" + cid).ljust(size, b"\x55")


def our_cid(slot: int = SLOT) -> bytes:
    """An ID this node may have issued."""
    return LAYOUT.new_connection_id(slot, os.urandom)


def test_new_client_is_admitted(bench: Bench) -> None:
    """A client's Initial passes through to admission."""
    assert isinstance(bench.judge(first_flight()[0]), Admitted)
    assert bench.replies == []


def test_answers_of_admission_are_sent() -> None:
    """A Retry goes back on the path the Initial came from."""
    bench = Bench(retry="always")
    assert bench.judge(first_flight()[0]) is None
    ((path, data),) = bench.replies
    assert path is PATH
    assert data[0] & 0xF0 == 0xF0
    bench.close()


def test_nobody_is_let_in_while_draining(bench: Bench) -> None:
    """A node that is about to leave drops newcomers, who will try elsewhere, but still resets the lost."""
    bench.strangers.accepting = False
    assert bench.judge(first_flight()[0]) is None
    assert bench.judge(short_packet(our_cid())) is None
    assert bench.counted() == {"drops|draining": 1, "stateless_resets": 1}


def test_header_without_connection_id(bench: Bench) -> None:
    """A long header cut short inside its ID is malformed."""
    assert bench.strangers.judge_untrusted(b"\xc0\x00", PATH, None, load=IDLE, now_s=0.0) is None
    assert bench.counted() == {"drops|header_malformed": 1}


@pytest.mark.parametrize("size", [22, 30, 43, 44, 60, 1200])
def test_lost_connection_is_reset(bench: Bench, size: int) -> None:
    """A packet for an ID of ours nobody knows is answered with its reset token, in fewer bytes than it had."""
    cid = our_cid()
    assert bench.judge(short_packet(cid, size)) is None
    ((path, reset),) = bench.replies
    assert path is PATH
    assert reset[-16:] == reset_token(RESET_KEY, cid)
    assert 21 <= len(reset) < size
    assert reset[0] & 0xC0 == 0x40
    assert bench.counted() == {"stateless_resets": 1}


@pytest.mark.parametrize("size", [11, 20, 21])
def test_packet_too_short_to_be_reset(bench: Bench, size: int) -> None:
    """A reset must be shorter than what it answers and has at least 21 bytes: else two nodes could go on for ever."""
    bench.judge(short_packet(our_cid(), size))
    assert bench.replies == []
    assert bench.counted() == {"drops|too_short_for_reset": 1}


@pytest.mark.parametrize("cid", [bytes(10), b"\xff" * 10, our_cid()[:9], b""])
def test_foreign_connection_id_is_not_reset(bench: Bench, cid: bytes) -> None:
    """IDs we cannot have issued get no answer: we would be confirming what we do not know."""
    bench.strangers.judge_untrusted(short_packet(cid), PATH, cid, load=IDLE, now_s=0.0)
    assert bench.replies == []
    assert bench.counted() == {"drops|unknown_connection_id": 1}


def test_resets_are_limited_in_rate() -> None:
    """A flood of packets for lost connections gets the configured number of resets per second."""
    bench = Bench(resets_per_s=5.0)
    for _ in range(20):
        bench.judge(short_packet(our_cid()), now_s=100.0)
    assert bench.counted() == {"stateless_resets": 5, "drops|reset_rate": 15}
    for _ in range(20):
        bench.judge(short_packet(our_cid()), now_s=101.0)
    assert bench.counted()["stateless_resets"] == 10
    bench.close()


def test_resets_can_be_switched_off() -> None:
    """A rate of 0 is none at all."""
    bench = Bench(resets_per_s=0.0)
    bench.judge(short_packet(our_cid()))
    replies = bench.replies
    bench.close()
    assert replies == []


def test_short_packets_too_small_cost_no_reset() -> None:
    """What cannot be answered does not use up the rate either."""
    bench = Bench(resets_per_s=1.0)
    for _ in range(10):
        bench.judge(short_packet(our_cid(), 20))
    bench.judge(short_packet(our_cid()))
    assert len(bench.replies) == 1
    bench.close()


@pytest.mark.parametrize("owner", range(4))
@pytest.mark.parametrize("long", [True, False])
def test_datagram_of_another_slot_is_passed_on(bench: Bench, owner: int, long: bool) -> None:
    """It arrives at the owner with its path; one of our own stays."""
    cid = our_cid(owner)
    data = long_header(0xE0, 1, cid, b"\x44\x00") if long else short_packet(cid)
    assert bench.strangers.pass_on(data, PATH) is (owner != SLOT)
    for slot, pair in enumerate(bench.stray):
        received = StrayReceiver(pair.receiver).receive_datagrams()
        assert received == ([(data, PATH)] if slot == owner != SLOT else [])
    assert bench.counted() == ({} if owner == SLOT else {"misrouted_forwarded": 1})


def test_full_stray_queue_is_a_drop(bench: Bench) -> None:
    """A slot that does not read costs the sender nothing but the datagrams."""
    data = short_packet(our_cid(0), 1200)
    bench.stray[0].sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    passed = [bench.strangers.pass_on(data, PATH) for _ in range(200)]
    assert all(passed)
    counted = bench.counted()
    assert counted["drops|stray_queue_full"] > 0
    assert counted["drops|stray_queue_full"] + counted["misrouted_forwarded"] == 200
