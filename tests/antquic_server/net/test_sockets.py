"""The sockets of all slots, with a real kernel."""

import errno
import os
import random
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from antquic_server.errors import AddressDecodeError, CannotBootError, PortInUseError, PrivilegeError
from antquic_server.net.sockets import ListenGroup, attach_steering, bind_slots
from antquic_server.protocol.routing import CONNECTION_ID_LENGTH_BYTES, ConnectionIdLayout, owner_slot
from support.require import require

REPOSITORY = Path(__file__).parents[3]
LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
LISTEN = ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"]

Bind = Callable[..., list[ListenGroup]]


@pytest.fixture
def bind() -> Iterator[Bind]:
    """Call ``bind_slots`` and close what it made after the test."""
    made: list[ListenGroup] = []

    def bind_one(listen: list[str], worker_count: int = 1) -> list[ListenGroup]:
        if any(text.startswith("[") for text in listen):
            require(machine_has_ipv6(), "this machine has no IPv6")
        groups = bind_slots(listen, worker_count)
        made.extend(groups)
        return groups

    yield bind_one
    for group in made:
        group.close()


def machine_has_ipv6() -> bool:
    """Whether the IPv6 loopback address can be used."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def random_datagrams(count: int, seed: int) -> list[bytes]:
    """Long and short headers, and some too short to be either."""
    generator = random.Random(seed)
    found = []
    for _ in range(count):
        first = generator.choice([0x40, 0x7F, 0xC0, 0xFF, 0x00, 0x80]) | generator.getrandbits(4)
        length = generator.choice([0, 3, 4, 8, 9, 20, 60, 1200])
        found.append(bytes([first]) + generator.randbytes(length))
    return found


def slots_that_received(group: ListenGroup, count: int) -> dict[bytes, int]:
    """Read ``count`` datagrams and tell at which slot each arrived."""
    arrived: dict[bytes, int] = {}
    slots = {sock.fileno(): slot for slot, sock in enumerate(group.sockets)}
    poller = select.poll()
    for fd in slots:
        poller.register(fd, select.POLLIN)
    deadline_s = time.monotonic() + 5
    while len(arrived) < count and time.monotonic() < deadline_s:
        for fd, _ in poller.poll(200):
            slot = slots[fd]
            arrived[group.sockets[slot].recv(2000)] = slot
    return arrived


def assert_steered(group: ListenGroup, *, seed: int) -> None:
    """Send datagrams from several sockets and look for each at the slot that owns it."""
    family = socket.AddressFamily(group.family)
    sent = set(random_datagrams(60, seed))
    with socket.socket(family, socket.SOCK_DGRAM) as one, socket.socket(family, socket.SOCK_DGRAM) as two:
        for index, datagram in enumerate(sent):
            (one if index % 2 else two).sendto(datagram, (LOOPBACK[family], group.port))

    worker_count = len(group.sockets)
    assert slots_that_received(group, len(sent)) == {datagram: owner_slot(datagram, worker_count) for datagram in sent}


@pytest.mark.parametrize("worker_count", [1, 2, 3, 4, 5, 7, 8, 16, 64])
@pytest.mark.parametrize("listen", LISTEN)
def test_datagram_arrives_at_the_slot_that_owns_it(bind: Bind, listen: str, worker_count: int) -> None:
    """The kernel and ``owner_slot`` agree, for both families and any number of slots."""
    (group,) = bind([listen], worker_count)

    assert group.steered
    assert len(group.sockets) == worker_count
    assert_steered(group, seed=worker_count)


def test_connection_id_of_a_slot_leads_to_it_from_any_source(bind: Bind) -> None:
    """Both header forms with a connection ID we chose reach its slot, whatever the sender's port."""
    (group,) = bind(["127.0.0.1:0"], 5)
    layout = ConnectionIdLayout(node_id=b"\x12\x34", worker_count=5)
    expected: dict[bytes, int] = {}
    for slot in range(5):
        connection_id = layout.new_connection_id(slot, os.urandom)
        long_header = bytes([0xE0, 0, 0, 0, 1, CONNECTION_ID_LENGTH_BYTES]) + connection_id + bytes(30)
        for datagram in (long_header, b"\x41" + connection_id + bytes(30)):
            expected[datagram] = slot
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.sendto(datagram, ("127.0.0.1", group.port))

    assert slots_that_received(group, len(expected)) == expected


def test_slots_stay_where_they_are_when_a_process_that_inherited_them_is_killed(bind: Bind) -> None:
    """Only the last copy of a socket leaves the group, so a dead worker changes nothing."""
    (group,) = bind(["127.0.0.1:0"], 4)
    descriptors = [sock.fileno() for sock in group.sockets]
    for kill in (False, True):
        with subprocess.Popen(
            [sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"],
            pass_fds=descriptors,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as worker:
            assert worker.stdout is not None
            assert worker.stdout.readline() == b"up\n"
            assert_steered(group, seed=1)
            if kill:
                worker.kill()
            else:
                assert worker.stdin is not None
                worker.stdin.close()
            worker.wait(timeout=5)

        assert_steered(group, seed=2)


def test_every_address_gets_its_group_in_order(bind: Bind) -> None:
    """Port 0 is resolved once per address and shared by its slots."""
    groups = bind(LISTEN, 3)

    assert [group.host for group in groups] == ["127.0.0.1", "::1", "0.0.0.0", "::"]
    assert [group.wildcard for group in groups] == [False, False, True, True]
    for group in groups:
        assert group.port
        assert {sock.getsockname()[1] for sock in group.sockets} == {group.port}
        assert all(not sock.get_inheritable() and not sock.getblocking() for sock in group.sockets)
    assert groups[0].address == f"127.0.0.1:{groups[0].port}"
    assert groups[3].address == f"[::]:{groups[3].port}"


def test_sockets_never_fragment_and_have_room(bind: Bind) -> None:
    """Don't Fragment is set (RFC 9000, section 14) and the buffers are as large as the system grants."""
    for group in bind(["127.0.0.1:0", "[::1]:0"], 2):
        level, option = (41, 23) if group.family == socket.AF_INET6 else (0, 10)
        for sock in group.sockets:
            assert sock.getsockopt(level, option) == 3  # IP_PMTUDISC_PROBE, the same number for IPv6
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= 212_992
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) >= 212_992


def test_families_share_a_port_without_sharing_datagrams(bind: Bind) -> None:
    """The IPv6 wildcard leaves IPv4 alone."""
    (ipv4,) = bind(["0.0.0.0:0"])
    (ipv6,) = bind([f"[::]:{ipv4.port}"])

    assert_steered(ipv4, seed=3)
    assert_steered(ipv6, seed=4)


@pytest.mark.parametrize("worker_count", [1, 2])
@pytest.mark.parametrize("second_listen", ["127.0.0.1", "0.0.0.0"])
def test_second_node_is_refused_and_told_by_whom(bind: Bind, second_listen: str, worker_count: int) -> None:
    """Another process gets one line with our process ID, even for an overlapping address."""
    (group,) = bind(["127.0.0.1:0"], worker_count)
    script = f"""
from antquic_server.errors import PortInUseError
from antquic_server.net.sockets import bind_slots
try:
    bind_slots(["{second_listen}:{group.port}"], 2)
except PortInUseError as error:
    print(error)
"""

    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)

    assert done.stdout.startswith(f"cannot listen on {second_listen}:{group.port}: the port is in use by another")
    if second_listen == "127.0.0.1":
        assert f"antquic-server (process {os.getpid()})" in done.stdout
    assert_steered(group, seed=5)


@pytest.mark.parametrize("reuse_port", [0, 1])
@pytest.mark.parametrize("foreign_host", ["127.0.0.1", "0.0.0.0"])
def test_port_of_a_foreign_program_is_refused(reuse_port: int, foreign_host: str) -> None:
    """Even where that program would share the port, which the kernel would let us join silently."""
    script = f"""
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, {reuse_port})
sock.bind(("{foreign_host}", 0))
print(sock.getsockname()[1], flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as foreign:
        assert foreign.stdout is not None
        port = int(foreign.stdout.readline())
        with pytest.raises(PortInUseError, match="in use by another process"):
            bind_slots([f"127.0.0.1:{port}"], 2)
        foreign.kill()
        foreign.wait(timeout=5)


def test_port_that_is_let_go_in_a_moment_is_waited_for() -> None:
    """The workers of a supervisor that was killed leave a little after it; its successor does not mind."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as leaving:
        leaving.bind(("127.0.0.1", 0))
        port = leaving.getsockname()[1]
        timer = threading.Timer(0.2, leaving.close)
        timer.start()
        groups = bind_slots([f"127.0.0.1:{port}"], 2)
        timer.join()
    assert [group.port for group in groups] == [port]
    for group in groups:
        group.close()


def test_foreign_program_that_joins_later_receives_nothing(bind: Bind) -> None:
    """Only the same user's can; the filter never names its socket, and its leaving moves nobody."""
    (group,) = bind(["127.0.0.1:0"], 3)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.setblocking(False)
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.1", group.port))
        assert_steered(group, seed=6)
        with pytest.raises(BlockingIOError):
            stranger.recv(2000)

    assert_steered(group, seed=7)


def test_failure_at_the_second_address_frees_the_first() -> None:
    """Nothing stays open, and the port can be bound again at once."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as foreign:
        foreign.bind(("127.0.0.1", 0))
        taken = foreign.getsockname()[1]
        (group,) = bind_slots(["127.0.0.1:0"], 2)
        group.close()

        with pytest.raises(PortInUseError):
            bind_slots([group.address, f"127.0.0.1:{taken}"], 2)
        bind_slots([group.address], 2)[0].close()


def test_address_of_another_machine_is_refused_in_words() -> None:
    """203.0.113.0/24 is for documentation, no machine has it."""
    with pytest.raises(CannotBootError, match=r"203\.0\.113\.1:0: this machine does not have that address"):
        bind_slots(["203.0.113.1:0"], 1)


def test_text_that_is_no_address_is_refused() -> None:
    """The configuration checks this first; here it is an error of its own kind."""
    with pytest.raises(AddressDecodeError):
        bind_slots(["localhost:1"], 1)


class FailingSocket(socket.socket):
    """A socket that lacks the rights or the protocol a test wants it to lack."""

    bind_error = 0
    without_ipv6 = False

    def __init__(self, family: int = -1, kind: int = -1, proto: int = -1, fileno: int | None = None) -> None:
        if self.without_ipv6 and family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "no such family")
        super().__init__(family, kind, proto, fileno)

    def bind(self, address: Any, /) -> None:
        """Fail for UDP as told."""
        if self.bind_error and self.family != socket.AF_UNIX:
            raise OSError(self.bind_error, "refused")
        super().bind(address)

    def setsockopt(self, *arguments: Any) -> None:
        """Refuse what needs CAP_NET_ADMIN: SO_SNDBUFFORCE and SO_RCVBUFFORCE."""
        if arguments[:2] in ((socket.SOL_SOCKET, 32), (socket.SOL_SOCKET, 33)):
            raise PermissionError(errno.EPERM, "refused")
        super().setsockopt(*arguments)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> type[FailingSocket]:
    """Replace the sockets that ``bind_slots`` makes by failing ones."""

    class Failing(FailingSocket):
        pass

    monkeypatch.setattr(socket, "socket", Failing)
    return Failing


def test_ipv6_wildcard_is_left_out_where_there_is_no_ipv6(failing: type[FailingSocket]) -> None:
    """Both wildcards mean every address there is: on this machine that is IPv4."""
    failing.without_ipv6 = True

    (group,) = bind_slots(["0.0.0.0:0", "[::]:0"], 2)

    group.close()
    assert group.host == "0.0.0.0"


@pytest.mark.parametrize("listen", [["[::]:0"], ["0.0.0.0:0", "[::]:5"], ["0.0.0.0:0", "[::1]:0"]])
def test_ipv6_that_was_asked_for_by_itself_is_missed(listen: list[str], failing: type[FailingSocket]) -> None:
    """An address that the operator named is not skipped."""
    failing.without_ipv6 = True

    with pytest.raises(CannotBootError, match="this machine has no IPv6"):
        bind_slots(listen, 1)


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (errno.EACCES, PrivilegeError, "no right to use port 53"),
        (errno.ENOBUFS, CannotBootError, os.strerror(errno.ENOBUFS)),
    ],
)
def test_refused_bind_is_told_in_words(
    failing: type[FailingSocket], code: int, kind: type[CannotBootError], words: str
) -> None:
    """One line for the operator, whatever the kernel's reason."""
    failing.bind_error = code

    with pytest.raises(kind, match=f"127.0.0.1:53: {words}"):
        bind_slots(["127.0.0.1:53"], 1)


def test_buffers_are_asked_for_without_privileges(bind: Bind, failing: type[FailingSocket]) -> None:
    """Where the system's limit may not be passed, it is reached."""
    (group,) = bind(["127.0.0.1:0"], 1)

    assert group.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= 212_992


def test_socket_outside_a_group_takes_no_filter() -> None:
    """A refusal is reported, not raised."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))

        assert not attach_steering(sock, 4)
