"""Tests of ``workers.incoming``: trains of channels and QUIC on the same sockets, over loopback."""

import asyncio
import socket
import sys
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.net.batches import BATCH_TRAINS, Sender
from antquic_server.net.stray import decode_stray_untrusted, encode_stray
from antquic_server.net.trains import MAX_TRAIN_BYTES, MAX_TRAIN_DATAGRAMS, split_train
from antquic_server.net.udp import PathAddress, UdpSocket
from antquic_server.protocol.limits import TokenBucket
from antquic_server.protocol.relay_channel import (
    BIND_BYTES,
    HEADER_BYTES,
    UNKNOWN,
    channel_secret,
    channel_token,
    data_header,
    encode_bind,
    encode_unknown,
)
from antquic_server.stats.counters import CounterSet
from support.channels import INITIATOR_KEY, TARGET_KEY, ChannelClient, bind_at, create_message, made_up_id
from support.in_process import SERVER_SEED, Bench, run, running_worker, until
from support.require import require
from workers.channel_table import Channel, ChannelTable
from workers.incoming import Incoming
from workers.relay_meter import SessionMeter

NODE_HOST = "127.0.0.1"


class Peers:
    """Channel clients of one worker."""

    def __init__(self, bench: Bench, stack: ExitStack) -> None:
        self._bench = bench
        self._stack = stack

    def client(self) -> ChannelClient:
        """Open another socket."""
        client = self._stack.enter_context(ChannelClient((NODE_HOST, self._bench.port)))
        require(client.udp.offloads == ["gro", "gso"], "this kernel has no UDP offloads")
        return client

    async def channel(self, number: int, initiator: ChannelClient, target: ChannelClient, **rates: Any) -> bytes:
        """Make a channel between two sockets and have both bind."""
        slot, worker_count = self._bench.slot, len(self._bench.stray)
        channel_id = made_up_id(number, slot=slot, worker_count=worker_count)
        self._bench.worker.relay.handle_message(create_message(channel_id, **rates))
        for client, key in ((initiator, INITIATOR_KEY), (target, TARGET_KEY)):
            client.bind(channel_id, key)
            await until(lambda client=client, key=key: client.is_bound(channel_id, key), "bound")  # type: ignore[misc]
        return channel_id


def payloads(mark: int, count: int, size: int = 1000) -> list[bytes]:
    """Payloads that can be told apart from all others."""
    return [bytes([mark, number]) * (size // 2) for number in range(count)]


@pytest.mark.parametrize("size", [1000, 1192, 1001])
def test_train_arrives_whole_and_unchanged(size: int) -> None:
    """Both ways, in one call each way at the worker."""

    async def story() -> None:
        async with running_worker() as bench:
            with ExitStack() as stack:
                peers = Peers(bench, stack)
                a, b = peers.client(), peers.client()
                channel_id = await peers.channel(1, a, b)
                before = bench.counted("receive_calls"), bench.counted("send_calls"), bench.counted("bytes_received")
                there, back = payloads(1, 20, size), payloads(2, 20, size)
                a.send_data(channel_id, *there)
                await until(lambda: len(b.payloads(channel_id)) == 20, "train")
                b.send_data(channel_id, *back)
                await until(lambda: len(a.payloads(channel_id)) == 20, "train")
                assert b.payloads(channel_id) == there
                assert a.payloads(channel_id) == back
                assert bench.counted("receive_calls") - before[0] == 2
                assert bench.counted("send_calls") - before[1] == 2
                moved = 40 * (8 + len(there[0]))
                assert bench.counted("bytes_received") - before[2] == moved
                assert bench.counted("relay_bytes", "channel") == moved
                assert bench.counted("relay_datagrams", "channel") == 40
                assert bench.counted("relay_drops") == 0

    run(story())


def test_datagrams_that_come_one_by_one_leave_as_trains() -> None:
    """Those of two channels do not mix, sizes may change, and each channel keeps its order."""

    async def story() -> None:
        async with running_worker() as bench:
            with ExitStack() as stack:
                peers = Peers(bench, stack)
                a, b, c = (peers.client() for _ in range(3))
                to_b, to_c = await peers.channel(1, a, b), await peers.channel(2, a, c)
                calls = bench.counted("receive_calls"), bench.counted("send_calls")
                sizes = (200, 200, 200, 100, 100, 300)
                sent_b = [bytes([1, number]) * (size // 2) for number, size in enumerate(sizes)]
                sent_c = [bytes([2, number]) * (size // 2) for number, size in enumerate(sizes)]
                for data_b, data_c in zip(sent_b, sent_c, strict=True):
                    a.send_data(to_b, data_b)
                    a.send_data(to_c, data_c)
                # A whole train behind single datagrams does not overtake them.
                train = payloads(3, 5, 300)
                a.send_data(to_b, *train)
                await until(lambda: len(b.payloads(to_b)) == 11 and len(c.payloads(to_c)) == 6, "datagrams")
                assert b.payloads(to_b) == [*sent_b, *train]
                assert c.payloads(to_c) == sent_c
                assert bench.counted("receive_calls") - calls[0] == 1
                # Each channel: 200 three times with 100 as its end, 100 by itself, 300 with the train behind it.
                assert bench.counted("send_calls") - calls[1] == 3 + 3
                assert bench.counted("relay_datagrams", "channel") == 17

    run(story())


def test_two_channels_glued_into_one_train_do_not_mix() -> None:
    """The trap of trains: one socket with two channels makes one flow, and each peer gets its own and no more."""

    async def story() -> None:
        async with running_worker() as bench:
            with ExitStack() as stack:
                peers = Peers(bench, stack)
                a, b, c = (peers.client() for _ in range(3))
                to_b, to_c = await peers.channel(1, a, b), await peers.channel(2, a, c)
                calls = bench.counted("receive_calls")
                sent_b, sent_c = payloads(0xB, 15), payloads(0xC, 15)
                # Interleaved, and all of one size: the kernel keeps them in one train, and so does the worker's read.
                pairs = zip(sent_b, sent_c, strict=True)
                a.send(*(data_header(to) + data for pair in pairs for to, data in zip((to_b, to_c), pair, strict=True)))
                await until(lambda: len(b.payloads(to_b)) == len(c.payloads(to_c)) == 15, "datagrams")
                assert bench.counted("receive_calls") - calls == 1
                assert b.payloads(to_b) == sent_b
                assert c.payloads(to_c) == sent_c
                assert [data for data in b.poll() if data.startswith(data_header(to_c))] == []
                assert [data for data in c.poll() if data.startswith(data_header(to_b))] == []
                assert bench.counted("relay_drops") == 0

    run(story())


@pytest.mark.parametrize("first", ["quic", "channel"])
def test_quic_and_a_channel_glued_into_one_train(first: str) -> None:
    """Each datagram goes where it belongs, whichever of them steering has looked at."""

    async def story() -> None:
        async with running_worker() as bench:
            with ExitStack() as stack:
                peers = Peers(bench, stack)
                a, b = peers.client(), peers.client()
                channel_id = await peers.channel(1, a, b)
                sent = payloads(1, 10, 192)
                quic = b"\x40" + bytes(199)
                train = [data_header(channel_id) + data for data in sent]
                a.send(*([quic, *train] if first == "quic" else [*train, quic]))
                await until(lambda: len(b.payloads(channel_id)) == 10, "datagrams")
                assert b.payloads(channel_id) == sent
                await until(lambda: bench.counted("drops", "unknown_connection_id") == 1, "QUIC datagram")
                assert bench.counted("drops", "not_quic") == 0

    run(story())


def test_datagrams_of_another_slot_in_a_train_are_passed_on() -> None:
    """Through the stray socket, which the kernel's steering had no say in; ours among them stay."""

    async def story() -> None:
        async with running_worker(worker_count=2, slot=1) as bench:
            with ExitStack() as stack:
                peers = Peers(bench, stack)
                a, b = peers.client(), peers.client()
                ours = await peers.channel(1, a, b)
                theirs = made_up_id(9, slot=0, worker_count=2)
                a.send(*(data_header(item) + bytes(100) for item in (ours, theirs, ours)))
                await until(lambda: len(b.payloads(ours)) == 2, "datagrams")
                data, path = decode_stray_untrusted(bench.stray[0].receiver.recv(4096))
                assert data == data_header(theirs) + bytes(100)
                assert (path.host, path.port) == (NODE_HOST, a.port)
                assert bench.counted("misrouted_forwarded") == 1

    run(story())


def test_stray_datagrams_of_a_channel_are_handled_and_travel_no_further() -> None:
    """Binds and data that surfaced elsewhere count as if they had come here; what is not ours ends here."""

    async def story() -> None:
        async with running_worker(worker_count=2, slot=1) as bench:
            with ExitStack() as stack:
                peers = Peers(bench, stack)
                a, b = peers.client(), peers.client()
                ours = await peers.channel(1, a, b)
                path = a.node._replace(port=a.port)
                theirs = made_up_id(9, slot=0, worker_count=2)
                for datagram in (
                    data_header(ours) + b"stray",
                    encode_bind(ours, 2**63, INITIATOR_KEY),
                    data_header(theirs) + bytes(100),
                ):
                    bench.stray[1].sender.send(encode_stray(path, datagram))
                await until(lambda: bench.counted("misrouted_received") == 3, "strays")
                assert b.payloads(ours) == [b"stray"]
                await until(lambda: len(a.poll()) == 3, "answer to the bind")
                assert bench.counted("relay_drops", "channel|other_slot") == 1
                with pytest.raises(BlockingIOError):
                    bench.stray[0].receiver.recv(4096)

    run(story())


def test_successor_says_that_a_channel_is_unknown() -> None:
    """With the token that the hub has told the peers of, which follows from the node key."""

    async def story() -> None:
        async with running_worker() as bench:
            with ExitStack() as stack:
                a = Peers(bench, stack).client()
                lost = made_up_id(1)
                a.send_data(lost, bytes(1000), bytes(1000))
                await until(lambda: len(a.poll()) == 2, "answers")
                assert set(a.received) == {encode_unknown(lost, channel_token(channel_secret(SERVER_SEED), lost))}
                assert a.received[0][0] == UNKNOWN

    run(story())


def test_spoofed_and_guessed_datagrams_leave_an_honest_channel_unharmed() -> None:
    """Floods of both, between the datagrams of a channel that works."""

    async def story() -> None:
        async with running_worker() as bench:
            with ExitStack() as stack:
                peers = Peers(bench, stack)
                a, b, attacker = (peers.client() for _ in range(3))
                channel_id = await peers.channel(1, a, b)
                for number in range(50):
                    attacker.send_data(channel_id, *payloads(0xEE, 10))
                    attacker.send(
                        *(data_header(made_up_id(1000 * (number + 1) + item)) + bytes(50) for item in range(10))
                    )
                    a.send_data(channel_id, bytes([number]) * 100)
                    await asyncio.sleep(0)
                await until(lambda: len(b.payloads(channel_id)) == 50, "datagrams")
                assert b.payloads(channel_id) == [bytes([number]) * 100 for number in range(50)]
                assert bench.counted("relay_drops", "channel|unbound_source") == 500
                # Of a thousand a second and a burst of as many.
                assert bench.counted("relay_drops", "channel|unknown_channel") == 500

    run(story())


def test_leg_that_moves_goes_on() -> None:
    """As after a NAT has rebound: one round trip, and the channel carries on from the new port."""

    async def story() -> None:
        async with running_worker() as bench:
            with ExitStack() as stack:
                peers = Peers(bench, stack)
                a, b = peers.client(), peers.client()
                channel_id = await peers.channel(1, a, b)
                a.rebind()
                a.send_data(channel_id, b"lost")
                a.bind(channel_id, INITIATOR_KEY)
                await until(lambda: a.is_bound(channel_id, INITIATOR_KEY), "bound")
                a.send_data(channel_id, b"found")
                await until(lambda: b.payloads(channel_id), "datagram")
                b.send_data(channel_id, b"back")
                await until(lambda: a.payloads(channel_id), "datagram")
                assert b.payloads(channel_id) == [b"found"]
                assert bench.counted("relay_drops", "channel|unbound_source") == 1

    run(story())


@pytest.mark.parametrize("first", [0x00, 0x0F, 0x15, 0x3F])
def test_what_is_neither_quic_nor_a_channel_is_dropped(first: int) -> None:
    """Singly and in trains, and if it is shorter than a header."""

    async def story() -> None:
        async with running_worker() as bench:
            with ExitStack() as stack:
                a = Peers(bench, stack).client()
                a.send(bytes([first]) * 20)
                a.send(*[bytes([first]) * 30] * 3)
                a.send(b"\x10short")
                await until(lambda: bench.counted("drops", "not_quic") == 5, "drops")

    run(story())


class FakeKernel:
    """A socket that holds what it was given and notes what is sent, for ``UdpSocket``."""

    family = socket.AF_INET

    def __init__(self) -> None:
        self.queue: deque[tuple[bytes, int, tuple[str, int]]] = deque()
        self.sent: list[tuple[Any, bytes, int]] = []

    def setsockopt(self, *_: Any) -> None:
        """Every option is known."""

    def getsockopt(self, *_: Any) -> int:
        """Every option is known."""
        return 0

    def recvmsg_into(self, *_: Any) -> Any:
        """Nothing is read one by one."""
        raise BlockingIOError

    def sendmsg(self, buffers: Any, ancillary: Any, _flags: int, address: Any) -> int:
        """Note a train as the kernel would take it."""
        data = b"".join(map(bytes, buffers))
        segment_size = next((int.from_bytes(value, sys.byteorder) for *_, value in ancillary), len(data))
        assert len(data) <= MAX_TRAIN_BYTES
        assert len(data) <= MAX_TRAIN_DATAGRAMS * segment_size
        self.sent.append((address, data, segment_size))
        return len(data)


class FakeBatches:
    """Reads from a fake kernel as ``BatchReader`` does."""

    errors = truncated = 0

    def __init__(self, kernel: FakeKernel) -> None:
        self._queue = kernel.queue

    def read(self, remember: Callable[[Sender], Any]) -> list[tuple[memoryview, int, Any]]:
        """Hand out the next sixteen."""
        items = [self._queue.popleft() for _ in range(min(BATCH_TRAINS, len(self._queue)))]
        return [(memoryview(data), size, remember((address, b""))) for data, size, address in items]


LEGS = [("192.0.2.1", 1), ("192.0.2.2", 2)]
sizes = st.sampled_from([8, 9, 100, 1208, 1452, 9000, 31_000, 40_000])
trains = st.tuples(
    st.integers(0, 2), st.sampled_from(LEGS), st.integers(1, 70), sizes, st.integers(HEADER_BYTES, 40_000)
)


def forwarding(kernel: FakeKernel, channels: int) -> tuple[Incoming, UdpSocket]:
    """A table with channels that are all bound at the two legs, and who reads for it."""
    counters = CounterSet()
    sock: Any = kernel
    udp = UdpSocket(sock, wildcard=False)
    batches: Any = FakeBatches(kernel)
    udp._batches = batches
    table = ChannelTable(slot=0, worker_count=1, sockets=[udp], counters=counters, secret=bytes(32), unknowns_per_s=0.0)
    nobody: Any = SimpleNamespace(pass_on=lambda data, path: False)
    for number in range(channels):
        channel_id = made_up_id(number)
        session = SessionMeter(number=number, rate_bytes_per_s=1e9, burst_bytes=1e9, share=TokenBucket(1e9, 1e9))
        keys = {"initiator_key": INITIATOR_KEY, "target_key": TARGET_KEY}
        table.add(Channel(channel_id, **keys, session=session, now_s=0.0))
        for leg, key in zip(LEGS, keys.values(), strict=True):
            bind_at(table, channel_id, 1, key, PathAddress(*leg, 0, 0, b"", 0), 0.0)
    kernel.sent.clear()
    return Incoming(table, nobody, counters), udp


@given(st.lists(trains, max_size=30), st.data())
def test_whatever_is_put_together_arrives_as_it_was(items: list[Any], data: st.DataObject) -> None:
    """Each datagram of each channel, in order and with its boundaries; QUIC between them comes out by itself."""
    kernel = FakeKernel()
    incoming, udp = forwarding(kernel, 3)
    expected: dict[tuple[tuple[str, int], bytes], list[bytes]] = {}
    quic: list[bytes] = []
    number = 0
    for channel, leg, count, size, last in items:
        header = data_header(made_up_id(channel))
        datagrams = []
        for _ in range(min(count, MAX_TRAIN_DATAGRAMS, max(1, MAX_TRAIN_BYTES // size))):
            number += 1
            datagrams.append((header + number.to_bytes(4, "big") * (size // 4))[:size])
        datagrams[-1] = datagrams[-1][: min(last, size)]
        kernel.queue.append((b"".join(datagrams), len(datagrams[0]), leg))
        expected.setdefault((LEGS[1 - LEGS.index(leg)], header), []).extend(datagrams)
        if data.draw(st.integers(0, 3)) == 0:
            quic.append(b"\x40" + number.to_bytes(4, "big"))
            kernel.queue.append((quic[-1], 5, leg))
    came_out: list[bytes] = []
    while kernel.queue:
        came_out += [item for item, _ in incoming.read(udp, 1.0)]

    got: dict[tuple[tuple[str, int], bytes], list[bytes]] = {}
    for address, train, segment_size in kernel.sent:
        for item in split_train(train, segment_size):
            got.setdefault((address, item[:HEADER_BYTES]), []).append(item)
    assert got == expected
    assert came_out == quic


def test_what_waits_in_the_socket_is_put_together() -> None:
    """Single datagrams become trains, trains longer ones: few system calls, and no more than the kernel takes."""
    kernel = FakeKernel()
    incoming, udp = forwarding(kernel, 2)
    one, other = data_header(made_up_id(0)), data_header(made_up_id(1))
    single = (one + bytes(1192), 1200, LEGS[0])
    kernel.queue.extend([single] * 100)
    incoming.read(udp, 1.0)
    assert [len(train) // 1200 for _, train, _ in kernel.sent] == [BATCH_TRAINS] * 6 + [4]
    kernel.sent.clear()
    # Another channel, another direction, another size, and the end of a train each begin another one.
    for item in (
        *[single] * 2,
        *[(other + bytes(1192), 1200, LEGS[0])] * 2,
        *[(one + bytes(1192), 1200, LEGS[1])] * 2,
        *[(one + bytes(1292), 1300, LEGS[1])] * 2,
        (one + bytes(10), 18, LEGS[1]),
        ((one + bytes(1292)) * 10, 1300, LEGS[1]),
        ((one + bytes(1292)) * 10 + one, 1300, LEGS[1]),
        (one + bytes(1292), 1300, LEGS[1]),
    ):
        kernel.queue.append(item)
    incoming.read(udp, 1.0)
    # Those that are finished first, then what has grown until the end.
    assert [(-(-len(train) // size), size) for _, train, size in kernel.sent] == [
        (2, 1200),
        (3, 1300),
        (21, 1300),
        (2, 1200),
        (2, 1200),
        (1, 1300),
    ]


def test_datagram_shorter_than_a_header_is_not_completed_by_an_earlier_one() -> None:
    """What lies behind it in the buffer is not its own."""
    kernel = FakeKernel()
    incoming, udp = forwarding(kernel, 1)
    header = data_header(made_up_id(0))
    kernel.queue.extend([(header + b"payload", 15, LEGS[0]), (b"\x40", 1, LEGS[0]), (header[:7], 7, LEGS[0])])
    assert [item for item, _ in incoming.read(udp, 1.0)] == [b"\x40", header[:7]]
    kernel.queue.extend([(b"", 0, LEGS[0]), (header[:1], 1, LEGS[0])])
    assert [item for item, _ in incoming.read(udp, 1.0)] == [b"", header[:1]]
    assert len(kernel.sent) == 1


def test_data_right_behind_a_bind_is_passed_on() -> None:
    """Both may be read in one burst, and the bind comes first."""
    kernel = FakeKernel()
    incoming, udp = forwarding(kernel, 1)
    channel_id = made_up_id(0)
    moved = ("192.0.2.1", 77)
    nonce = incoming._channels.proofs.nonce(channel_id, INITIATOR_KEY, moved, 1.0)
    kernel.queue.append((encode_bind(channel_id, 2, INITIATOR_KEY, nonce), BIND_BYTES, moved))
    kernel.queue.extend([(data_header(channel_id) + bytes(100), 108, moved)] * 3)
    assert incoming.read(udp, 1.0) == []
    assert [(address, len(train)) for address, train, _ in kernel.sent] == [(moved, BIND_BYTES), (LEGS[1], 324)]
