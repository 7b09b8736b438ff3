"""Sockets of an endpoint."""

import asyncio
import errno
import socket
import sys

import pytest

from antquic_server.errors import PortInUseError
from antquic_server.net.udp import PathAddress, SendResult, UdpSocket
from antquic_server.peer.sockets import PeerSockets
from antquic_server.protocol.address import SocketAddress
from support.peers import eventually, run

# From <linux/in.h> and <linux/in6.h>, which the standard library does not name.
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_PROBE = 10, 23, 3


def test_datagrams_leave_and_arrive() -> None:
    """From one set of sockets to another."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        got: list[tuple[bytes, PathAddress]] = []
        one = PeerSockets(["127.0.0.1:0"], got.extend, loop)
        other = PeerSockets(["127.0.0.1:0"], got.extend, loop)
        path = one.path_to(other.addresses[0])
        assert path is not None
        one.send(path, [b"a" * 1200, b"a" * 1200, b"b"])
        await eventually(lambda: len(got) == 3, what="datagrams")

        assert [data for data, _ in got] == [b"a" * 1200, b"a" * 1200, b"b"]
        assert {item.port for _, item in got} == {one.addresses[0].port}
        one.close()
        other.close()

    run(story())


@pytest.mark.skipif(sys.platform != "linux", reason="the option is Linux's")
@pytest.mark.parametrize(
    ("listen", "level", "option"),
    [("0.0.0.0:0", socket.IPPROTO_IP, IP_MTU_DISCOVER), ("[::]:0", socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER)],
)
def test_no_socket_fragments(listen: str, level: int, option: int) -> None:
    """Datagrams leave whole or not at all, else path MTU discovery would believe in anything."""

    async def story() -> None:
        sockets = PeerSockets([listen], lambda _: None, asyncio.get_running_loop())
        (udp,) = sockets._sockets
        assert udp.sock.getsockopt(level, option) == PMTUDISC_PROBE
        sockets.close()

    run(story())


@pytest.mark.parametrize(("code", "reason"), [(errno.EMSGSIZE, "above_link_mtu"), (errno.EPERM, "send_error")])
def test_what_the_kernel_refuses_is_counted_by_reason(monkeypatch: pytest.MonkeyPatch, code: int, reason: str) -> None:
    """A probe that is too large for the link is no error of ours."""

    async def story() -> None:
        sockets = PeerSockets(["127.0.0.1:0"], lambda _: None, asyncio.get_running_loop())
        path = sockets.path_to(sockets.addresses[0])
        assert path is not None
        monkeypatch.setattr(UdpSocket, "send", lambda *_: SendResult(0, 1, code))
        sockets.send(path, [b"x"])
        assert sockets.drops == {reason: 1}
        sockets.close()

    run(story())


def test_an_address_of_another_family_cannot_be_sent_to() -> None:
    """There is no socket for it."""

    async def story() -> None:
        sockets = PeerSockets(["127.0.0.1:0"], lambda _: None, asyncio.get_running_loop())
        assert sockets.path_to(SocketAddress.parse("[::1]:1")) is None
        sockets.close()

    run(story())


def test_all_addresses_stand_for_loopback_in_a_request() -> None:
    """As long as nobody has told us a better one."""

    async def story() -> None:
        sockets = PeerSockets(["0.0.0.0:0"], lambda _: None, asyncio.get_running_loop())
        (address,) = sockets.reachable_addresses()
        assert str(address) == f"127.0.0.1:{sockets.addresses[0].port}"
        sockets.close()

    run(story())


def test_a_taken_port_is_an_error() -> None:
    """And says whose it is, as for a node."""

    async def story() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            with pytest.raises(PortInUseError):
                PeerSockets([f"127.0.0.1:{taken.getsockname()[1]}"], lambda _: None, asyncio.get_running_loop())

    run(story())


def test_a_full_socket_makes_datagrams_wait_and_then_drops_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits goes out in order; beyond the bound it is dropped and counted."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        got: list[tuple[bytes, PathAddress]] = []
        one = PeerSockets(["127.0.0.1:0"], lambda _: None, loop)
        other = PeerSockets(["127.0.0.1:0"], got.extend, loop)
        path = one.path_to(other.addresses[0])
        assert path is not None
        with monkeypatch.context() as patch:
            patch.setattr(one, "_send_now", lambda _path, datagrams: datagrams)
            one.send(path, [b"first"])
            one.send(path, [b"second"])
            one.send(path, [b"x"] * 5000)
        await eventually(lambda: len(got) == 2, what="datagrams")

        assert [data for data, _ in got] == [b"first", b"second"]
        assert one.drops["send_queue_full"] == 5000
        one.close()
        other.close()

    run(story())
