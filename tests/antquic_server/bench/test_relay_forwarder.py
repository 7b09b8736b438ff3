"""The forwarder in C: forwards what its table says, and nothing else."""

import socket

import pytest

from antquic_server.bench import relay_forwarder
from antquic_server.bench.relay_forwarder import find_compiler, running_forwarder
from antquic_server.bench.relay_mmsg import BatchSender
from antquic_server.bench.relay_place import open_place
from antquic_server.errors import CannotBootError
from support.require import require


@pytest.fixture
def compiler() -> None:
    """Skip where there is no C compiler."""
    require(find_compiler(), "there is no C compiler")


def _received(sock: socket.socket, count: int) -> list[bytes]:
    sock.setblocking(True)
    sock.settimeout(10)
    return [sock.recv(2048) for _ in range(count)]


def test_trains_pass_unchanged_and_mixed_ones_do_not(compiler: None) -> None:
    """Nor does a datagram whose header is that of another sender."""
    with open_place("loopback") as place, running_forwarder(place, 2) as contender:
        first, second = contender.sessions
        header = first.header(0)

        BatchSender(first.out, header + b"train", train=5, messages=1).send(5)
        assert _received(first.arrival, 5) == [header + b"train"] * 5

        # Header of the first, sent by the second; then a train of two channels; then one that passes.
        second.out.send(header + b"stolen")
        mixed = header + b"mixed" + second.header(0) + b"mixed"
        first.out.sendmsg([mixed], [(17, 103, (len(header) + 5).to_bytes(2, "little"))])
        first.out.send(b"short")
        first.out.send(header + b"last")
        assert _received(first.arrival, 1) == [header + b"last"]
        second.out.send(second.header(0) + b"own")
        assert _received(second.arrival, 1) == [second.header(0) + b"own"]


def test_without_a_compiler_there_is_no_forwarder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark goes on without the ceiling."""
    monkeypatch.setattr("shutil.which", lambda _: None)

    with (
        open_place("loopback") as place,
        pytest.raises(CannotBootError, match="no C compiler"),
        running_forwarder(place, 1),
    ):
        pass


@pytest.mark.parametrize(
    ("program", "complaint"), [("false", "false failed: no message"), ("/x", "/x failed: .*No such")]
)
def test_a_compiler_that_fails_is_named(monkeypatch: pytest.MonkeyPatch, program: str, complaint: str) -> None:
    """With its first complaint, if it has one."""
    monkeypatch.setattr(relay_forwarder, "find_compiler", lambda: program)

    with open_place("loopback") as place, pytest.raises(CannotBootError, match=complaint), running_forwarder(place, 1):
        pass


def test_a_forwarder_that_cannot_listen_does_not_start(compiler: None) -> None:
    """An address that this machine does not have."""
    with open_place("loopback") as place:
        object.__setattr__(place, "front", "192.0.2.1")
        with pytest.raises(CannotBootError, match="did not start"), running_forwarder(place, 1):
            pass
