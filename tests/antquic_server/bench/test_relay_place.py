"""Where the benchmark runs: loopback for everybody, namespaces for root."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from antquic_server.bench import relay_place
from antquic_server.bench.relay_place import RECEIVER, RELAY, SENDER, cpus_for_load, open_place, pin_relay
from antquic_server.errors import UsageError
from antquic_server.natlab.namespaces import NAMESPACES, LabUnavailableError


def _no_rights() -> None:
    raise LabUnavailableError("no rights")


def test_on_loopback_everybody_is_here() -> None:
    """Commands and calls are what they are, sockets are bound to loopback."""
    with open_place("loopback") as place, place.udp(SENDER) as sock:
        assert place.description == "loopback"
        assert place.command(RELAY, ["x"]) == ["x"]
        assert place.server.command(["x"]) == ["x"]
        assert place.server.call(os.getpid) == os.getpid()
        assert place.server.listen == "127.0.0.1"
        assert sock.getsockname()[0] == "127.0.0.1"
        assert not sock.getblocking()
        place.cut_trains(on=True)  # cannot be had, and does no harm


def test_free_port_is_free() -> None:
    """A server can have it."""
    with open_place("loopback") as place, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", place.free_port()))


def test_without_rights_auto_is_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark still runs."""
    monkeypatch.setattr(relay_place, "find_tools", _no_rights)

    with open_place("auto") as place:
        assert place.names == {}


def test_without_rights_namespaces_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for them is told what is missing."""
    monkeypatch.setattr(relay_place, "find_tools", _no_rights)

    with pytest.raises(LabUnavailableError, match="no rights"), open_place("namespaces"):
        pass


def test_unknown_place_is_a_usage_error() -> None:
    """The message names those there are."""
    with pytest.raises(UsageError, match="auto, namespaces, loopback"), open_place("moon"):
        pass


def test_buffers_are_as_large_as_the_system_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the right to exceed the limit, up to the limit."""
    monkeypatch.setattr(relay_place, "_SO_SNDBUFFORCE", -1)
    monkeypatch.setattr(relay_place, "_SO_RCVBUFFORCE", -1)

    with open_place("loopback") as place, place.udp(RECEIVER) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) > 0


def test_load_and_relay_keep_apart() -> None:
    """The relay is pinned, with its threads, to a CPU that is not the load's."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        pin_relay(process.pid)
        (cpu,) = os.sched_getaffinity(process.pid)
    finally:
        process.communicate(b"\n")

    assert cpu not in cpus_for_load()
    assert {cpu, *cpus_for_load()} == os.sched_getaffinity(0)


def test_system_without_affinity_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything runs anywhere."""
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.delattr(os, "sched_setaffinity")

    assert cpus_for_load() == []
    pin_relay(os.getpid())


def test_another_thread_leaves_signals_alone() -> None:
    """Only the main thread can catch them."""
    seen = []

    def look() -> None:
        with relay_place._ending_signals_unwind():
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()

    assert seen == [before]


def test_ending_signals_leave_the_block_in_order() -> None:
    """SIGTERM unwinds, and afterwards the handler is the old one again."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, relay_place._ending_signals_unwind():
        signal.raise_signal(signal.SIGTERM)

    assert ended.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.end_to_end
def test_namespaces_join_sender_relay_and_receiver(root: None) -> None:
    """Both reach the relay and not one another, and nothing is left behind."""
    with open_place("namespaces") as place:
        names = list(place.names.values())
        with (
            place.udp(SENDER) as sender,
            place.udp(RELAY) as relay,
            place.udp(RECEIVER) as receiver,
        ):
            relay.setblocking(True)
            relay.settimeout(10)
            for sock in (sender, receiver):
                sock.sendto(b"here", relay.getsockname())
                assert relay.recvfrom(100) == (b"here", sock.getsockname())
        assert place.call(RELAY, Path("/proc/sys/net/ipv4/ip_forward").read_text).strip() == "0"
        assert place.command(RELAY, ["x"])[-1] == "x"
        assert place.description.startswith("network namespaces")

    assert not any((NAMESPACES / str(name)).exists() for name in names)


@pytest.mark.end_to_end
def test_trains_can_be_cut_as_they_leave_the_relay(root: None) -> None:
    """The device towards the receiver says so, and says no longer so afterwards."""

    def limit() -> str:
        assert place.tools is not None
        return subprocess.run(
            place.command(RELAY, [place.tools.ip, "-d", "link", "show", "back"]),
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    with open_place("namespaces") as place:
        place.cut_trains(on=True)
        assert "gso_max_segs 1 " in limit()
        place.cut_trains(on=False)
        assert "gso_max_segs 65535 " in limit()
