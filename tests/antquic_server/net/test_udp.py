"""Reading in bursts and writing in trains over loopback; refusals of the kernel come from fake sockets."""

import errno
import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from antquic_server.net import udp
from antquic_server.net.packet_info import local_host
from antquic_server.net.udp import PathAddress, SendResult, UdpSocket
from support.require import require

REPOSITORY = Path(__file__).parents[3]
IP_RECVERR = 11  # from <linux/in.h>
MIXED_SIZES = [1200, 1200, 800, 1200, 1300, 1300, 50]

OpenUdp = Callable[..., UdpSocket]
Forward = Callable[[UdpSocket, UdpSocket, list[bytes]], SendResult | None]


class RefusingSocket(socket.socket):
    """A socket whose ``sendmsg`` and ``recvmsg_into`` fail or answer as told, each entry once, then work."""

    def __init__(self, family: int, kind: int) -> None:
        super().__init__(family, kind)
        self.send_errors: deque[int] = deque()
        self.refuse_trains_with = 0
        self.receive_answers: deque[Any] = deque()
        self.control_messages: list[Any] = []

    def sendmsg(self, buffers: Any, ancdata: Any = (), flags: int = 0, address: Any = None, /) -> int:
        """Send, or raise the next planned error."""
        buffers = list(buffers)
        self.control_messages += ancdata
        if self.refuse_trains_with and len(buffers) > 1:
            raise OSError(self.refuse_trains_with, "refused")
        code = self.send_errors.popleft() if self.send_errors else 0
        if code:
            raise OSError(code, "refused")
        return super().sendmsg(buffers, ancdata, flags, address)

    def recvmsg_into(self, buffers: Any, ancbufsize: int = 0, flags: int = 0, /) -> Any:
        """Receive, or give the next planned answer."""
        if self.receive_answers:
            answer = self.receive_answers.popleft()
            if isinstance(answer, OSError):
                raise answer
            return answer
        return super().recvmsg_into(buffers, ancbufsize, flags)


@pytest.fixture
def open_udp() -> Iterator[OpenUdp]:
    """Make bound ``UdpSocket`` objects that are closed after the test."""
    with ExitStack() as stack:

        def open_one(host: str, **options: Any) -> UdpSocket:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            try:
                sock = stack.enter_context(RefusingSocket(family, socket.SOCK_DGRAM))
                sock.bind((host, 0))
            except OSError:
                require(family == socket.AF_INET, "this machine has no IPv6")
                raise
            sock.setblocking(False)
            return UdpSocket(sock, wildcard=host in ("0.0.0.0", "::"), **options)

        yield open_one


def path_to(destination: UdpSocket, host: str = "") -> PathAddress:
    """Name the path to a socket, by another of its addresses if ``host`` is given."""
    bound_host, port = destination.sock.getsockname()[:2]
    return PathAddress(host or bound_host, port, 0, 0, b"", 0)


def receive(source: UdpSocket, count: int, *, limit: int = 64) -> list[tuple[bytes, PathAddress]]:
    """Read until ``count`` datagrams are there."""
    received: list[tuple[bytes, PathAddress]] = []
    deadline_s = time.monotonic() + 5
    while len(received) < count and time.monotonic() < deadline_s:
        select.select([source], [], [], 0.2)
        received += source.receive_datagrams(limit)
    return received


def fake(source: UdpSocket) -> RefusingSocket:
    """Give the socket underneath its type."""
    assert isinstance(source.sock, RefusingSocket)
    return source.sock


def datagrams_of(sizes: list[int]) -> list[bytes]:
    """Make distinct datagrams of these sizes."""
    return [bytes([index + 1]) * size for index, size in enumerate(sizes)]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_train_of_ten_makes_one_call_each_way(open_udp: OpenUdp, host: str) -> None:
    """GSO cuts, GRO glues, and the datagrams come out as they went in, each with the path of the sender."""
    sender, receiver = open_udp(host), open_udp(host, socket_index=3)
    require(sender.offloads == ["gro", "gso"], "this kernel has no UDP offloads")
    sent = datagrams_of([1200] * 10)

    result = sender.send(path_to(receiver), sent)
    received = receive(receiver, 10)

    assert result == SendResult(10, 0, 0)
    assert result.handled == 10
    assert [data for data, _ in received] == sent
    assert {path for _, path in received} == {path_to(sender)._replace(socket_index=3)}
    assert (sender.send_calls, receiver.receive_calls) == (1, 1)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0", "::"])
@pytest.mark.parametrize("sender_offloads", [True, False])
@pytest.mark.parametrize("receiver_offloads", [True, False])
def test_mixed_sizes_keep_order_and_boundaries(
    open_udp: OpenUdp, host: str, sender_offloads: bool, receiver_offloads: bool
) -> None:
    """With offloads at either end, both or none, every datagram arrives as it was sent."""
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    sender = open_udp(loopback, offloads=sender_offloads)
    receiver = open_udp(host, offloads=receiver_offloads)
    sent = datagrams_of(MIXED_SIZES)

    result = sender.send(path_to(receiver, loopback), sent)

    assert result.sent == len(sent)
    assert [data for data, _ in receive(receiver, len(sent))] == sent
    if "gso" in sender.offloads:
        assert sender.send_calls == 3
    if not sender_offloads:
        assert sender.offloads == []
        assert sender.send_calls == len(sent)


def test_receive_train_returns_the_train_whole(open_udp: OpenUdp) -> None:
    """A relay reads one view of everything, with the size of the segments."""
    sender, receiver = open_udp("127.0.0.1"), open_udp("127.0.0.1")
    require(receiver.offloads == ["gro", "gso"], "this kernel has no UDP offloads")
    sender.send(path_to(receiver), datagrams_of([1000, 1000, 10]))
    select.select([receiver], [], [], 5)

    train = receiver.receive_train()

    assert train is not None
    assert bytes(train[0]) == b"".join(datagrams_of([1000, 1000, 10]))
    assert train[1:] == (1000, path_to(sender))
    assert receiver.receive_train() is None


@pytest.mark.parametrize("offloads", [True, False])
def test_reading_stops_at_the_limit_and_goes_on_later(open_udp: OpenUdp, offloads: bool) -> None:
    """One busy socket does not keep the event loop; a train is not cut for it."""
    sender, receiver = open_udp("127.0.0.1", offloads=False), open_udp("127.0.0.1", offloads=offloads)
    sent = datagrams_of([100 + index for index in range(20)])
    sender.send(path_to(receiver), sent)
    select.select([receiver], [], [], 5)

    first = receiver.receive_datagrams(limit=8)
    rest = receive(receiver, 12, limit=8)

    assert len(first) == 8
    assert [data for data, _ in first + rest] == sent
    assert receiver.receive_datagrams() == []


def test_empty_datagram_arrives(open_udp: OpenUdp) -> None:
    """UDP knows datagrams without data; one at the end of a run is not lost in a train."""
    sender, receiver = open_udp("127.0.0.1"), open_udp("127.0.0.1")

    assert sender.send(path_to(receiver), [b"aa", b"bb", b"", b""]).sent == 4
    assert [data for data, _ in receive(receiver, 4)] == [b"aa", b"bb", b"", b""]
    assert sender.send(path_to(receiver), []) == SendResult(0, 0, 0)


def test_more_datagrams_than_one_train_holds_all_arrive(open_udp: OpenUdp) -> None:
    """A long list takes several trains."""
    sender, receiver = open_udp("127.0.0.1"), open_udp("127.0.0.1")
    receiver.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    sent = [index.to_bytes(2, "big") * 50 for index in range(150)]

    assert sender.send(path_to(receiver), sent).sent == 150
    assert [data for data, _ in receive(receiver, 150)] == sent


@pytest.mark.parametrize(("wildcard", "written_to"), [("0.0.0.0", "127.0.0.2"), ("::", "::1")])
@pytest.mark.parametrize("offloads", [True, False])
def test_wildcard_socket_replies_from_the_address_written_to(
    open_udp: OpenUdp, wildcard: str, written_to: str, offloads: bool
) -> None:
    """A client that wrote to 127.0.0.2 is answered from there, singly and in trains."""
    client = open_udp("127.0.0.1" if wildcard == "0.0.0.0" else "::1")
    server = open_udp(wildcard, offloads=offloads)
    client.send(path_to(server, written_to), [b"question"])
    ((_, path),) = receive(server, 1)

    assert local_host(path.local) == written_to
    assert server.send(path, [b"answer"]).sent == 1
    assert server.send(path, [b"one", b"two"]).sent == 2
    answers = receive(client, 3)

    assert [data for data, _ in answers] == [b"answer", b"one", b"two"]
    assert {source for _, source in answers} == {path_to(server, written_to)}


def test_path_tells_the_addresses_of_a_wildcard_socket_apart(open_udp: OpenUdp) -> None:
    """The same client at two of our addresses has two paths; at one of them always the same object."""
    client, server = open_udp("127.0.0.1"), open_udp("0.0.0.0")
    for host in ("127.0.0.1", "127.0.0.2", "127.0.0.1"):
        client.send(path_to(server, host), [b"x"])

    first, second, third = (path for _, path in receive(server, 3))

    assert first is third
    assert first != second
    assert first[:4] == second[:4]


def test_path_cache_is_emptied_when_full(open_udp: OpenUdp, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of senders costs no memory, and equal paths stay equal."""
    monkeypatch.setattr(udp, "PATH_CACHE_ENTRIES", 2)
    server = open_udp("127.0.0.1")
    clients = [open_udp("127.0.0.1") for _ in range(3)]
    for client in [*clients, clients[0]]:
        client.send(path_to(server), [b"x"])

    paths = [path for _, path in receive(server, 4)]

    assert paths == [path_to(client) for client in [*clients, clients[0]]]
    assert len(server._paths) == 2


@pytest.mark.parametrize(("host", "level", "option"), [("127.0.0.1", 0, IP_RECVERR), ("::1", 41, 25)])
def test_icmp_error_of_one_peer_stops_neither_sending_nor_receiving(
    open_udp: OpenUdp, host: str, level: int, option: int
) -> None:
    """Port unreachable, reported by the next call for somebody else, costs nobody a datagram."""
    server, good, gone = open_udp(host), open_udp(host), open_udp(host)
    # Without this option Linux tells only connected sockets.
    server.sock.setsockopt(level, option, 1)
    closed_path = path_to(gone)
    gone.sock.close()
    poller = select.poll()
    poller.register(server, select.POLLERR)

    for _ in range(3):
        assert server.send(closed_path, [b"lost"]).sent == 1
        assert poller.poll(5000)
        assert server.send(path_to(good), [b"found", b"again"]) == SendResult(2, 0, 0)
    assert [data for data, _ in receive(good, 6)] == [b"found", b"again"] * 3

    server.send(closed_path, [b"lost"])
    assert poller.poll(5000)
    good.send(path_to(server), [b"hello"])
    assert [data for data, _ in receive(server, 1)] == [b"hello"]
    assert server.receive_errors == 1


def test_endless_receive_errors_give_the_event_loop_its_turn(open_udp: OpenUdp) -> None:
    """A socket that reports nothing but errors is left until the next wake-up."""
    server = open_udp("127.0.0.1")
    fake(server).receive_answers.extend(OSError(errno.ECONNREFUSED, "refused") for _ in range(100))

    assert server.receive_datagrams() == []
    assert 0 < server.receive_errors < 100


def test_truncated_datagram_is_dropped_and_counted(open_udp: OpenUdp) -> None:
    """Neither cut data nor cut control data is handed out; the next datagram is."""
    client, server = open_udp("127.0.0.1"), open_udp("127.0.0.1")
    sender = client.sock.getsockname()
    fake(server).receive_answers.extend([(10, [], socket.MSG_TRUNC, sender), (10, [], socket.MSG_CTRUNC, sender)])
    client.send(path_to(server), [b"whole"])

    assert [data for data, _ in receive(server, 1)] == [b"whole"]
    assert server.truncated == 2


@pytest.mark.parametrize("offloads", [True, False])
def test_blocked_socket_leaves_the_rest_to_the_caller(open_udp: OpenUdp, offloads: bool) -> None:
    """EAGAIN ends the sending; what was not handled can be sent later."""
    sender, receiver = open_udp("127.0.0.1", offloads=offloads), open_udp("127.0.0.1")
    sent = datagrams_of([100, 200, 300])
    fake(sender).send_errors.extend([0, errno.EAGAIN])

    result = sender.send(path_to(receiver), sent)

    assert result == SendResult(1, 0, 0)
    assert sender.send(path_to(receiver), sent[result.handled :]) == SendResult(2, 0, 0)
    assert [data for data, _ in receive(receiver, 3)] == sent


def test_blocked_single_datagram_and_train_are_left_whole(open_udp: OpenUdp) -> None:
    """Nothing of them counts as sent or dropped."""
    sender, receiver = open_udp("127.0.0.1"), open_udp("127.0.0.1")
    fake(sender).send_errors.extend([errno.EAGAIN] * 2)

    assert sender.send(path_to(receiver), [b"one"]) == SendResult(0, 0, 0)
    assert sender.send(path_to(receiver), [b"one", b"two"]) == SendResult(0, 0, 0)


def test_datagram_too_long_for_the_path_is_dropped_alone(open_udp: OpenUdp) -> None:
    """EMSGSIZE belongs to one datagram; its neighbours are sent."""
    sender, receiver = open_udp("127.0.0.1"), open_udp("127.0.0.1")

    result = sender.send(path_to(receiver), [b"before", bytes(65_530), b"behind"])

    assert result == SendResult(2, 1, errno.EMSGSIZE)
    assert [data for data, _ in receive(receiver, 2)] == [b"before", b"behind"]


def test_refused_route_drops_without_an_exception(open_udp: OpenUdp) -> None:
    """EPERM of a firewall or a missing route is the peer's loss, for a train as for a datagram."""
    sender, receiver = open_udp("127.0.0.1"), open_udp("127.0.0.1")
    fake(sender).send_errors.extend([errno.EPERM, errno.EPERM, errno.ENETUNREACH, errno.ENETUNREACH])

    assert sender.send(path_to(receiver), [b"one"]) == SendResult(0, 1, errno.EPERM)
    if "gso" in sender.offloads:
        assert sender.send(path_to(receiver), [b"one", b"two"]) == SendResult(0, 2, errno.EPERM)
    else:
        fake(sender).send_errors.popleft()
    assert sender.send(path_to(receiver), [b"one"]) == SendResult(0, 1, errno.ENETUNREACH)


@pytest.mark.parametrize("refusal", [errno.EIO, errno.EINVAL])
def test_gso_that_a_route_refuses_is_given_up(open_udp: OpenUdp, refusal: int) -> None:
    """The refused train goes out singly, and so does everything afterwards."""
    sender, receiver = open_udp("127.0.0.1"), open_udp("127.0.0.1")
    require("gso" in sender.offloads, "this kernel has no UDP_SEGMENT")
    fake(sender).send_errors.append(refusal)
    sent = datagrams_of([500] * 4)

    assert sender.send(path_to(receiver), sent) == SendResult(4, 0, 0)
    assert sender.send(path_to(receiver), sent) == SendResult(4, 0, 0)

    assert [data for data, _ in receive(receiver, 8)] == sent * 2
    assert "gso" not in sender.offloads
    assert (sender.gso_refused, sender.send_calls) == (1, 8)


def test_blocking_while_a_refused_train_goes_out_singly_leaves_the_rest(open_udp: OpenUdp) -> None:
    """What the single sends did not reach is still the caller's."""
    sender, receiver = open_udp("127.0.0.1"), open_udp("127.0.0.1")
    require("gso" in sender.offloads, "this kernel has no UDP_SEGMENT")
    fake(sender).send_errors.extend([errno.EIO, 0, errno.EAGAIN])

    assert sender.send(path_to(receiver), datagrams_of([500] * 4)) == SendResult(1, 0, 0)


def test_forged_port_zero_does_not_switch_gso_off(open_udp: OpenUdp) -> None:
    """The kernel refuses port 0 with EINVAL, train or not: that says nothing about offloads."""
    sender = open_udp("127.0.0.1")
    before = sender.offloads

    result = sender.send(PathAddress("127.0.0.1", 0, 0, 0, b"", 0), [b"one", b"two"])

    assert result == SendResult(0, 2, errno.EINVAL)
    assert sender.offloads == before


def test_segments_too_long_for_the_path_do_not_switch_gso_off(open_udp: OpenUdp) -> None:
    """EMSGSIZE for a train is about its size; the datagrams are tried singly and offloads stay."""
    sender, receiver = open_udp("127.0.0.1"), open_udp("127.0.0.1")
    before = sender.offloads
    fake(sender).refuse_trains_with = errno.EMSGSIZE

    assert sender.send(path_to(receiver), [b"one", b"two"]).sent == 2
    assert sender.offloads == before


@pytest.fixture(params=["as it lies in a receive buffer", "as datagrams that lie apart"])
def forward(request: pytest.FixtureRequest) -> Forward:
    """Forward a train, in either of two ways that must not differ."""

    def send(sender: UdpSocket, receiver: UdpSocket, datagrams: list[bytes]) -> SendResult | None:
        destination = sender.destination(path_to(receiver))
        if request.param.startswith("as datagrams"):
            pieces = [memoryview(datagram) for datagram in datagrams]
            return sender.send_run(destination, pieces, sum(map(len, datagrams)), len(datagrams[0]))
        return sender.send_train(destination, memoryview(bytearray(b"".join(datagrams))), len(datagrams[0]))

    return send


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("sizes", [[1200] * 10, [1200] * 9 + [7], [1200], [700, 700]])
@pytest.mark.parametrize("offloads", [True, False])
def test_forwarded_train_keeps_its_boundaries(
    open_udp: OpenUdp, forward: Forward, host: str, sizes: list[int], offloads: bool
) -> None:
    """One call where the kernel cuts; the sizes of two trains in a row may differ."""
    sender, receiver = open_udp(host, offloads=offloads), open_udp(host)
    for train in (datagrams_of(sizes), datagrams_of([300, 300, 20])):
        assert forward(sender, receiver, train) in (None, SendResult(len(train), 0, 0))
        assert [data for data, _ in receive(receiver, len(train))] == train
    if "gso" in sender.offloads:
        assert sender.send_calls == 2


def test_train_is_forwarded_from_the_address_the_peer_knows(open_udp: OpenUdp) -> None:
    """That of the path, singly and in trains."""
    client, server = open_udp("127.0.0.1"), open_udp("0.0.0.0")
    client.send(path_to(server, "127.0.0.2"), [b"bind"])
    ((_, path),) = receive(server, 1)
    destination = server.destination(path)
    for train in ([b"one"], [b"two", b"tri"]):
        assert not server.send_train(destination, memoryview(b"".join(train)), 3) or "gso" not in server.offloads
    answers = receive(client, 3)

    assert [data for data, _ in answers] == [b"one", b"two", b"tri"]
    assert {source for _, source in answers} == {path_to(server, "127.0.0.2")}


def test_pending_error_costs_no_forwarded_train(open_udp: OpenUdp, forward: Forward) -> None:
    """An ICMP error that is reported by a send belongs to somebody else; two in a row are about this train."""
    sender, receiver = open_udp("127.0.0.1"), open_udp("127.0.0.1")
    require("gso" in sender.offloads, "this kernel has no UDP_SEGMENT")
    refused = errno.ECONNREFUSED
    for train in (datagrams_of([500] * 3), datagrams_of([500])):
        fake(sender).send_errors.append(refused)
        assert forward(sender, receiver, train) is None
        assert [data for data, _ in receive(receiver, len(train))] == train
        fake(sender).send_errors.extend([refused] * 3)
        assert forward(sender, receiver, train) == SendResult(0, len(train), refused)


@pytest.mark.parametrize("sizes", [[500] * 4, [500]])
def test_forwarded_train_that_blocks_is_the_callers(open_udp: OpenUdp, forward: Forward, sizes: list[int]) -> None:
    """Nothing of it is sent or dropped."""
    sender, receiver = open_udp("127.0.0.1"), open_udp("127.0.0.1")
    fake(sender).send_errors.append(errno.EAGAIN)

    assert forward(sender, receiver, datagrams_of(sizes)) == SendResult(0, 0, 0)


@pytest.mark.parametrize("refusal", [errno.EIO, errno.EINVAL, errno.EMSGSIZE])
def test_forwarded_train_that_is_refused_goes_out_singly(open_udp: OpenUdp, forward: Forward, refusal: int) -> None:
    """As any train; offloads are given up for the reasons that they are elsewhere."""
    sender, receiver = open_udp("127.0.0.1"), open_udp("127.0.0.1")
    require("gso" in sender.offloads, "this kernel has no UDP_SEGMENT")
    train = datagrams_of([500] * 3 + [20])
    fake(sender).send_errors.append(refusal)

    assert forward(sender, receiver, train) == SendResult(4, 0, 0)
    assert [data for data, _ in receive(receiver, 4)] == train
    assert ("gso" in sender.offloads) is (refusal == errno.EMSGSIZE)
    assert sender.gso_refused == 1


def test_forwarded_datagram_too_long_for_the_path_is_dropped(open_udp: OpenUdp, forward: Forward) -> None:
    """And says why."""
    sender, receiver = open_udp("127.0.0.1"), open_udp("127.0.0.1")
    assert forward(sender, receiver, [bytes(65_530)]) == SendResult(0, 1, errno.EMSGSIZE)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0", "::"])
@pytest.mark.parametrize("batches", [True, False])
def test_trains_of_one_read_are_those_of_single_reads(open_udp: OpenUdp, host: str, batches: bool) -> None:
    """In batches or one by one: the same bytes, sizes and paths, in order, and then nothing."""
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    receiver, sender = open_udp(host, batches=batches), open_udp(loopback)
    sent = [[b"a" * 700] * 20, [b"b" * 10], *([bytes([number]) * 50] for number in range(20))]
    for train in sent:
        assert sender.send(path_to(receiver, loopback), train).sent == len(train)

    received: list[tuple[bytes, int, PathAddress]] = []
    deadline_s = time.monotonic() + 5
    while sum(len(data) for data, _, _ in received) < 700 * 20 + 10 + 50 * 20 and time.monotonic() < deadline_s:
        trains = receiver.receive_trains()
        assert len(trains) <= receiver.trains_at_once
        received += [(bytes(view), size, path) for view, size, path in trains]

    assert b"".join(data for data, _, _ in received) == b"".join(b"".join(train) for train in sent)
    assert {size for data, size, _ in received if data[:1] == b"a"} == {700}
    assert len({path for _, _, path in received}) == 1
    assert received[0][2][:2] == sender.sock.getsockname()[:2]
    assert receiver.receive_trains() == []
    assert (receiver.trains_at_once == 16) is batches
    assert receiver.receive_calls < 10 if batches else receiver.receive_calls >= 22


def test_batches_count_what_single_reads_count(open_udp: OpenUdp) -> None:
    """A pending error costs nothing that is waiting."""
    receiver, sender = open_udp("127.0.0.1", batches=True), open_udp("127.0.0.1")
    receiver.sock.connect(sender.sock.getsockname())
    sender.sock.close()
    receiver.sock.send(b"to nobody")
    deadline_s = time.monotonic() + 5
    while not receiver.receive_errors and time.monotonic() < deadline_s:
        assert receiver.receive_trains() == []

    assert (receiver.receive_errors, receiver.receive_calls, receiver.truncated) == (1, 0, 0)


def test_system_that_is_not_linux_gets_plain_sockets() -> None:
    """Without the constants of Linux the modules import, and datagrams go out and come in one by one."""
    script = """
import socket, sys
sys.platform = "darwin"
for name in ("IPV6_RECVPKTINFO", "IPV6_PKTINFO", "SO_PEERCRED", "SOL_UDP", "MSG_CTRUNC"):
    if hasattr(socket, name):
        delattr(socket, name)
from antquic_server.net.sockets import bind_slots
from antquic_server.net.stray import make_stray_pairs
from antquic_server.net.udp import UdpSocket
(group,) = bind_slots(["127.0.0.1:0"], 2)
assert not group.steered
udp = UdpSocket(group.sockets[0], wildcard=False, batches=True)
assert udp.offloads == []
assert udp.trains_at_once == 1
"""

    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
