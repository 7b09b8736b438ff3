"""Tests of ``workers.relay_ports``: a socket for each session, from a range."""

import errno
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from antquic_server.errors import NoPortError
from workers import relay_ports
from workers.relay_ports import RelayPort, RelayPorts


@pytest.fixture
def few_ports() -> tuple[int, int]:
    """A range of four ports that nobody has at the moment, at either address family."""
    for first in range(20_000, 32_000, 4):
        with ExitStack() as stack:
            try:
                for port in range(first, first + 4):
                    sock = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                    sock.bind(("::", port))
            except OSError:
                continue
            return first, first + 3
    pytest.fail("no four free ports in a row")


@pytest.fixture
def opened() -> Iterator[list[RelayPort]]:
    """Ports that the test has opened, to be closed."""
    ports: list[RelayPort] = []
    yield ports
    for port in ports:
        port.close()


def test_search_begins_at_random_and_takes_the_next_free(few_ports: tuple[int, int], opened: list[RelayPort]) -> None:
    """From the random number upwards and round; taken ports are passed over."""
    ports = RelayPorts(few_ports, lambda count: 2 if count == 4 else -1)
    opened += [ports.open("127.0.0.1") for _ in range(4)]
    first = few_ports[0]
    assert [port.port for port in opened] == [first + 2, first + 3, first, first + 1]
    assert [port.udp.sock.getsockname() for port in opened] == [("127.0.0.1", port.port) for port in opened]
    assert not any(port.ipv6 for port in opened)


def test_full_range_is_refused_until_a_port_is_free(
    few_ports: tuple[int, int], opened: list[RelayPort], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search that found nothing is not repeated at once; after a moment a port that was given back is found."""
    now_s = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    ports = RelayPorts(few_ports, lambda count: 0)
    opened += [ports.open("127.0.0.1") for _ in range(4)]
    with pytest.raises(NoPortError) as caught:
        ports.open("127.0.0.1")
    assert not caught.value.unsupported
    opened.pop().close()
    with pytest.raises(NoPortError):
        ports.open("127.0.0.1")
    now_s[0] += relay_ports.EXHAUSTED_FOR_S
    opened.append(ports.open("127.0.0.1"))
    assert opened[-1].port == few_ports[1]


def test_port_of_somebody_else_is_passed_over(few_ports: tuple[int, int], opened: list[RelayPort]) -> None:
    """Another program's socket is as good a reason as one of ours."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("0.0.0.0", few_ports[0]))
        opened.append(RelayPorts(few_ports, lambda count: 0).open("127.0.0.1"))
        assert opened[0].port == few_ports[0] + 1


def test_ipv6_port_takes_both_families(few_ports: tuple[int, int], opened: list[RelayPort]) -> None:
    """IPv4 third parties reach an IPv6 session, and are seen in mapped form."""
    opened.append(RelayPorts(few_ports, lambda count: 0).open("::1"))
    assert opened[0].ipv6
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"hello", ("127.0.0.1", opened[0].port))
        ((data, path),) = opened[0].udp.receive_datagrams()
    assert (data, path.host) == (b"hello", "::ffff:127.0.0.1")


def test_address_of_somebody_else_is_refused(few_ports: tuple[int, int]) -> None:
    """Nobody can be reached at an address that this machine does not have."""
    with pytest.raises(NoPortError) as caught:
        RelayPorts(few_ports, lambda count: 0).open("203.0.113.7")
    assert caught.value.unsupported


@pytest.mark.parametrize(("code", "unsupported"), [(errno.EAFNOSUPPORT, True), (errno.EMFILE, False)])
def test_no_socket_at_all(
    few_ports: tuple[int, int], monkeypatch: pytest.MonkeyPatch, code: int, unsupported: bool
) -> None:
    """A machine without IPv6 never will have such a port; one without descriptors may have one later."""

    def refuse(*_: Any) -> None:
        raise OSError(code, "no")

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(NoPortError) as caught:
        RelayPorts(few_ports, lambda count: 0).open("::1")
    assert caught.value.unsupported is unsupported


def test_any_other_trouble_of_binding_is_no_port(few_ports: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's other words end the search at once, and no socket stays open."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    class Unwilling:
        family = socket.AF_INET

        def bind(self, address: tuple[str, int]) -> None:
            raise OSError(errno.ENOBUFS, "no")

        def close(self) -> None:
            sock.close()

    monkeypatch.setattr(relay_ports, "_open_socket", lambda family: Unwilling())
    with pytest.raises(NoPortError) as caught:
        RelayPorts(few_ports, lambda count: 0).open("127.0.0.1")
    assert not caught.value.unsupported
    assert sock.fileno() == -1


def test_thousand_ports_leave_nothing_behind(few_ports: tuple[int, int]) -> None:
    """A port that is closed can be opened again, as often as you like."""
    ports = RelayPorts(few_ports, lambda count: 1)
    for _ in range(1000):
        port = ports.open("127.0.0.1")
        assert port.port == few_ports[0] + 1
        port.close()
