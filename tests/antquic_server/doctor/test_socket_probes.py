"""What the kernel under this test really does."""

import errno
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from antquic_server.doctor import socket_probes
from antquic_server.doctor.socket_probes import (
    STEERED_DATAGRAMS,
    bind_error,
    granted_buffer,
    passes_trains,
    steering,
    tcp_bind_error,
)

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="a facility of Linux")


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    """A UDP socket on a port of 127.0.0.1."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


def test_a_small_buffer_is_granted_everywhere() -> None:
    """In the unit in which it was asked for."""
    for receive in (True, False):
        assert granted_buffer(receive=receive, wanted_bytes=65_536, forced=False) == 65_536


@linux_only
def test_nobody_gets_more_than_the_limit_without_force() -> None:
    """Which the kernel says in net.core.rmem_max."""
    limit = int(Path("/proc/sys/net/core/rmem_max").read_text())

    assert granted_buffer(receive=True, wanted_bytes=1 << 30, forced=False) == limit


@linux_only
def test_this_kernel_passes_trains_and_steers() -> None:
    """Every kernel that can run the other tests does."""
    assert passes_trains() == (True, True)
    assert steering() == (True, STEERED_DATAGRAMS)


@linux_only
def test_the_probe_never_joins_a_group_of_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first socket takes a port that nobody has: it is bound before it may share one."""
    bound: list[int] = []

    class Watched(socket.socket):
        def bind(self, address: object) -> None:
            bound.append(self.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))
            super().bind(address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "socket", Watched)

    assert steering() == (True, STEERED_DATAGRAMS)
    assert bound == [0, 1, 1, 1]


@linux_only
def test_a_filter_that_steers_otherwise_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the probe expects another filter than the kernel has: most datagrams are where they should not be."""
    monkeypatch.setattr(socket_probes, "run_program", lambda _program, data: (data[4] + 1) % 4)

    attached, right = steering()
    assert attached
    assert right == 0


@linux_only
def test_a_kernel_that_takes_no_filter_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an old one would."""
    monkeypatch.setattr(socket_probes, "attach_steering", lambda *_: False)

    assert steering() == (False, 0)


@linux_only
def test_a_kernel_without_gro_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The train then arrives in pieces."""
    monkeypatch.setattr(socket_probes, "switch_gro", lambda *_, **__: False)

    assert passes_trains() == (True, False)


@linux_only
def test_a_kernel_without_gso_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses the option."""
    monkeypatch.setattr(socket_probes, "UDP_SEGMENT", 250)

    assert passes_trains() == (False, True)


def test_another_system_has_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without trying."""
    monkeypatch.setattr(socket_probes, "_LINUX", False)

    assert passes_trains() == (False, False)


def test_a_taken_port_is_refused_and_a_free_one_is_not(taken: socket.socket) -> None:
    """With the reason of the kernel, and nothing stays open."""
    port = taken.getsockname()[1]
    assert bind_error(f"127.0.0.1:{port}") == errno.EADDRINUSE
    taken.close()

    assert bind_error(f"127.0.0.1:{port}") == 0
    assert bind_error(f"127.0.0.1:{port}") == 0


def test_an_address_of_somebody_else_is_refused() -> None:
    """Of the range for documentation."""
    assert bind_error("192.0.2.1:0") == errno.EADDRNOTAVAIL


def test_a_listening_admin_port_is_refused() -> None:
    """But not one that was closed a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert tcp_bind_error("127.0.0.1", port) == errno.EADDRINUSE

    assert tcp_bind_error("127.0.0.1", port) == 0
