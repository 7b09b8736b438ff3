"""Tests of what the service manager is told; that the supervisor tells it is tested with the supervisor's process."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from antquic_server.supervisor.sd_notify import ServiceManager


@contextmanager
def manager_socket(address: str) -> Iterator[socket.socket]:
    """The manager's end, which answers nothing and does not wait."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + address[1:] if address.startswith("@") else address)
        sock.setblocking(False)
        yield sock


def heard(sock: socket.socket) -> list[str]:
    """Return what has arrived, one text per datagram."""
    texts = []
    while True:
        try:
            texts.append(sock.recv(4096).decode())
        except BlockingIOError:
            return texts


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A path for the manager's socket."""
    return str(tmp_path / "notify")


def test_nothing_happens_without_a_manager() -> None:
    """Every call is allowed and does nothing; there is no socket."""
    service = ServiceManager.from_environment({}, pid=1)

    assert not service
    assert service.watchdog_s is None
    service.ready("serves")
    service.reloading(1.0)
    service.status("still serves")
    service.alive(2.0)
    service.stopping(3.0)
    service.close()


def test_messages_are_those_of_the_manual(path: str) -> None:
    """One datagram each: ready, reloading with its time, ready again, stopping with the time asked for."""
    with manager_socket(path) as sock:
        service = ServiceManager(path)
        assert service
        service.ready("2 workers serve")
        service.reloading(12.5)
        service.ready("2 workers serve")
        service.stopping(5.0)
        service.close()

        assert heard(sock) == [
            "READY=1\nSTATUS=2 workers serve",
            "RELOADING=1\nMONOTONIC_USEC=12500000",
            "READY=1\nSTATUS=2 workers serve",
            "STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC=5000000",
        ]


def test_same_status_is_said_once(path: str) -> None:
    """It is looked at four times a second, and changes rarely."""
    with manager_socket(path) as sock:
        service = ServiceManager(path)
        service.ready("serves")
        service.status("serves")
        service.status("no ready worker for slot 0")
        service.status("no ready worker for slot 0")
        service.close()

        assert heard(sock) == ["READY=1\nSTATUS=serves", "STATUS=no ready worker for slot 0"]


def test_sign_of_life_comes_twice_in_a_period(path: str) -> None:
    """However often it is offered; the first is due at once."""
    with manager_socket(path) as sock:
        service = ServiceManager(path, watchdog_s=2.0)
        for now_s in (100.0, 100.25, 100.99, 101.0, 101.5, 102.25):
            service.alive(now_s)
        service.close()

        assert heard(sock) == ["WATCHDOG=1"] * 3


def test_no_sign_of_life_without_watchdog(path: str) -> None:
    """A manager that has set no period is not told."""
    with manager_socket(path) as sock:
        service = ServiceManager(path)
        service.alive(100.0)
        service.close()

        assert heard(sock) == []


def test_abstract_address() -> None:
    """``@name`` is a name in the abstract namespace."""
    address = f"@antquic-test-{os.getpid()}"
    with manager_socket(address) as sock:
        service = ServiceManager(address)
        service.ready("serves")
        service.close()

        assert heard(sock) == ["READY=1\nSTATUS=serves"]


def test_environment_is_read_and_cleared(path: str) -> None:
    """Workers inherit what is left of it, and are no services."""
    environment = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "77", "HOME": "/"}
    service = ServiceManager.from_environment(environment, pid=77)
    service.close()

    assert service.watchdog_s == 3.0
    assert environment == {"HOME": "/"}


@pytest.mark.parametrize(
    ("variables", "watchdog_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "500000"}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "78"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
    ],
)
def test_watchdog_of_the_environment(path: str, variables: dict[str, str], watchdog_s: float | None) -> None:
    """Counts when it is a period and is ours; a wrong one leaves the rest as it is."""
    service = ServiceManager.from_environment({"NOTIFY_SOCKET": path, **variables}, pid=77)
    service.close()

    assert service.watchdog_s == watchdog_s


@pytest.mark.parametrize("address", ["relative/path", "@", "/", "/" + "x" * 107])
def test_address_that_is_none_is_ignored(address: str) -> None:
    """The node starts all the same."""
    assert not ServiceManager.from_environment({"NOTIFY_SOCKET": address}, pid=1)


def test_manager_that_is_gone_is_complained_of_once(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The node goes on; the log says so at the first message only."""
    service = ServiceManager(path)
    service.ready("serves")
    service.status("still serves")
    service.close()

    written = capsys.readouterr()
    assert (written.out + written.err).count("service manager not told") == 1


def test_manager_that_does_not_read_does_not_stop_us(path: str) -> None:
    """A full queue costs messages, never time."""
    with manager_socket(path) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        service = ServiceManager(path)
        for number in range(10_000):
            service.status(f"line {number}")
        service.close()

        assert 0 < len(heard(sock)) < 10_000
