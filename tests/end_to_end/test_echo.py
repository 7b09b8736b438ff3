"""``--echo``: streams, messages and DATAGRAM frames of every size come back, and nobody can make the node hoard."""

import asyncio
import contextlib
import os
from pathlib import Path

import pytest

from support.load import UNLIMITED_RATES, LoadPeer, connect_peers, peers_of, run_clients, until
from support.node import Node, StartNode

pytestmark = pytest.mark.end_to_end

TIMEOUT_S = 30.0
STALL_S = 0.7
"""A client that gets no more credit for so long will get none."""

MIB = 1 << 20
MAX_MESSAGE_BYTES = 4_194_304
"""Default of ``limits.max_message_bytes``."""

HOARD_BYTES = 50_000_000
"""What a client that never reads tries to leave with the node."""

ALLOWED_GROWTH_BYTES = 40_000_000
"""
What it may cost: one connection window (10 MB) of data on its way in, ``echo_buffer_bytes`` (4 MB) of echoes, what the
allocator keeps; the same again for copies.
"""


@pytest.mark.parametrize("size", [0, 1, 1199, 1200, 100_000, 5_000_000])
def test_stream_comes_back(echo_node: Node, size: int) -> None:
    """What is sent on a bidirectional stream comes back on it, and so does its end."""
    data = os.urandom(size)

    async def story() -> None:
        async with peers_of(echo_node, 1, alpn=("test",)) as (peer,):
            assert await peer.connection.echo(data, TIMEOUT_S) == data

    run_clients(story(), timeout_s=60)


def test_many_streams_at_once_come_back_each_on_its_own(echo_node: Node) -> None:
    """100 streams of different sizes, all open at the same time, twice the number of the first credit."""
    texts = [os.urandom(number * 97) for number in range(100)]

    async def story() -> None:
        async with peers_of(echo_node, 2, alpn=("test",)) as peers:
            for peer in peers:
                echoes = await asyncio.gather(*(peer.connection.echo(text, TIMEOUT_S) for text in texts))
                assert echoes == texts

    run_clients(story(), timeout_s=60)


@pytest.mark.parametrize("size", [1, 20_000, MAX_MESSAGE_BYTES])
def test_message_comes_back_on_a_stream_of_the_node(echo_node: Node, size: int) -> None:
    """A unidirectional stream is a message; it returns whole on a unidirectional stream of the node."""
    data = os.urandom(size)

    async def story() -> None:
        async with peers_of(echo_node, 1, alpn=("test",)) as (peer,):
            assert await peer.connection.echo_message(data, TIMEOUT_S) == data

    run_clients(story(), timeout_s=60)


def test_message_over_the_limit_is_dropped_and_the_connection_lives(echo_node: Node) -> None:
    """One byte too many: no echo, a counted drop, and everything else goes on."""

    def dropped() -> float:
        return float(echo_node.status()["totals"].get("drops|echo_message_too_long", 0))

    before = dropped()

    async def story() -> None:
        async with peers_of(echo_node, 1, alpn=("test",)) as (peer,):
            quic = peer.connection.quic
            stream_id = quic.get_next_available_stream_id(is_unidirectional=True)
            quic.send_stream_data(stream_id, bytes(MAX_MESSAGE_BYTES + 1), end_stream=True)
            peer.client.flush([peer.connection])
            await until(lambda: dropped() == before + 1, timeout_s=TIMEOUT_S, what="counted drop")
            assert await peer.connection.echo_message(b"short", TIMEOUT_S) == b"short"
            assert await peer.connection.echo(b"stream", TIMEOUT_S) == b"stream"

    run_clients(story(), timeout_s=60)


def test_datagram_frames_come_back(echo_node: Node) -> None:
    """One after the other, from the empty one to the largest that fits a packet."""

    async def story() -> None:
        async with peers_of(echo_node, 1, alpn=("test",)) as (peer,):
            largest = peer.connection.quic.max_datagram_frame_bytes
            assert largest > 1100
            for size in (0, 1, 500, largest):
                data = os.urandom(size)
                assert await peer.connection.echo_datagram(data, TIMEOUT_S) == data

    run_clients(story(), timeout_s=30)


def memory_bytes(node: Node) -> int:
    """Return the resident memory of the node's one worker, now."""
    (pid,) = node.worker_pids
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def push_without_reading(peer: LoadPeer, *, streams: int, unidirectional: bool, end_stream: bool) -> None:
    """Offer 50 MB on some streams and grant the node no credit to send any of it back; returns once it stalls."""
    quic = peer.connection.quic
    # A full application stops the windows of this side from sliding: the first window is all the node ever gets.
    quic.held_by_application_bytes = 1 << 40
    chunk = bytes(HOARD_BYTES // streams)
    for _ in range(streams):
        stream_id = quic.get_next_available_stream_id(is_unidirectional=unidirectional)
        quic.send_stream_data(stream_id, chunk, end_stream=end_stream)
    peer.client.flush([peer.connection])
    taken = -1
    while taken != quic._remote_max_data_used:
        taken = quic._remote_max_data_used
        with contextlib.suppress(AssertionError):
            await until(lambda taken=taken: quic._remote_max_data_used != taken, timeout_s=STALL_S, what="credit")  # type: ignore[misc]


@pytest.mark.parametrize(
    ("unidirectional", "end_stream"), [(False, True), (True, False)], ids=["streams", "unfinished messages"]
)
def test_client_that_never_reads_costs_bounded_memory(
    start_node: StartNode, unidirectional: bool, end_stream: bool
) -> None:
    """It cannot leave 50 MB with the node, whatever kind of stream it sends them on; others are served meanwhile."""
    node = start_node(workers=1, echo=True, settings=UNLIMITED_RATES)

    async def story() -> tuple[int, int, int]:
        hoarder, other = await connect_peers(node, 2)
        assert await other.connection.echo(bytes(MIB), TIMEOUT_S) == bytes(MIB)
        before = memory_bytes(node)
        await push_without_reading(hoarder, streams=40, unidirectional=unidirectional, end_stream=end_stream)
        after = memory_bytes(node)
        taken = int(hoarder.connection.quic._remote_max_data_used)
        assert await other.connection.echo(b"meanwhile", TIMEOUT_S) == b"meanwhile"
        assert not hoarder.connection.closed.is_set()
        for peer in (hoarder, other):
            peer.leave()
        return before, after, taken

    before, after, taken = run_clients(story(), timeout_s=60)

    print(f"taken {taken / 1e6:.1f} MB, memory {before / 1e6:.1f} -> {after / 1e6:.1f} MB")
    assert taken < HOARD_BYTES / 2
    assert after - before < ALLOWED_GROWTH_BYTES


def test_flood_of_datagram_frames_costs_bounded_memory(start_node: StartNode) -> None:
    """50 MB of DATAGRAM frames, as fast as congestion control lets them go, leave nothing behind."""
    node = start_node(workers=1, echo=True, settings=UNLIMITED_RATES)

    async def story() -> tuple[int, int]:
        (peer,) = await connect_peers(node, 1)
        quic = peer.connection.quic
        frame = bytes(quic.max_datagram_frame_bytes)
        before = memory_bytes(node)
        for _ in range(HOARD_BYTES // len(frame) // 100):
            for _ in range(100):
                quic.send_datagram_frame(frame)
            peer.client.flush([peer.connection])
            await until(lambda: quic.datagrams_pending < 200, timeout_s=TIMEOUT_S, what="room in the window")
        after = memory_bytes(node)
        peer.leave()
        return before, after

    before, after = run_clients(story(), timeout_s=60)

    print(f"memory {before / 1e6:.1f} -> {after / 1e6:.1f} MB")
    assert after - before < ALLOWED_GROWTH_BYTES
