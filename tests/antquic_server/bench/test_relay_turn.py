"""The TURN client, against answers that are written by hand here."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from antquic_server.bench.relay_turn import TurnError, allocate, bind_channel, channel_header

Answer = Callable[[bytes], list[bytes]]
Ask = Callable[[Answer], tuple[socket.socket, tuple[str, int]]]

MAGIC = b"\x21\x12\xa4\x42"
RELAYED = struct.pack(">HHBBH4B", 0x0016, 8, 0, 1, 50000 ^ 0x2112, 127 ^ 0x21, 0 ^ 0x12, 0 ^ 0xA4, 1 ^ 0x42)


def answer(request: bytes, kind: int, attributes: bytes = b"") -> bytes:
    """Write an answer to a request."""
    return struct.pack(">HH", kind, len(attributes)) + request[4:20] + attributes


@pytest.fixture
def server() -> Iterator[Ask]:
    """Return a function that starts a server with these answers, and returns a client's socket with its address."""
    with ExitStack() as stack:

        def start(answers: Answer) -> tuple[socket.socket, tuple[str, int]]:
            sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            client = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            for each in (sock, client):
                each.bind(("127.0.0.1", 0))
            client.setblocking(False)
            stopped = threading.Event()

            def serve() -> None:
                sock.settimeout(0.05)
                while not stopped.is_set():
                    try:
                        request, address = sock.recvfrom(2048)
                    except TimeoutError:
                        continue
                    for datagram in answers(request):
                        sock.sendto(datagram, address)

            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(stopped.set)
            return client, sock.getsockname()

        yield start


def test_allocation_returns_the_relayed_address(server: Ask) -> None:
    """The request asks for UDP; other attributes of the answer are passed over."""
    requests = []

    def answers(request: bytes) -> list[bytes]:
        requests.append(request)
        return [answer(request, 0x0103, struct.pack(">HHB3x", 0x8022, 1, 65) + RELAYED)]

    assert allocate(*server(answers), 5) == ("127.0.0.1", 50000)
    assert requests[0][:8] == b"\x00\x03\x00\x08" + MAGIC
    assert requests[0][20:] == b"\x00\x19\x00\x04\x11\x00\x00\x00"


def test_channel_is_bound_to_the_peer(server: Ask) -> None:
    """Channel number and peer address are in the request."""
    requests = []

    def answers(request: bytes) -> list[bytes]:
        requests.append(request)
        return [answer(request, 0x0109)]

    bind_channel(*server(answers), 0x4001, ("127.0.0.1", 50000), 5)

    assert requests[0][:2] == b"\x00\x09"
    assert requests[0][20:] == b"\x00\x0c\x00\x04\x40\x01\x00\x00" + b"\x00\x12" + RELAYED[2:]


def test_answers_to_others_and_noise_are_passed_over(server: Ask) -> None:
    """Only the transaction that was asked for counts."""

    def answers(request: bytes) -> list[bytes]:
        foreign = request[:8] + bytes(12) + request[20:]
        return [b"noise", answer(foreign, 0x0113), answer(request, 0x0103, RELAYED)]

    assert allocate(*server(answers), 5) == ("127.0.0.1", 50000)


def test_request_is_repeated_until_it_is_answered(server: Ask) -> None:
    """A datagram may be lost, or the server not be there yet."""
    requests = []

    def answers(request: bytes) -> list[bytes]:
        requests.append(request)
        return [answer(request, 0x0103, RELAYED)] if len(requests) == 2 else []

    assert allocate(*server(answers), 10) == ("127.0.0.1", 50000)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [(struct.pack(">HHHBB", 9, 17, 0, 4, 86) + b"Allocation Quota".ljust(16), "486 Alloc"), (b"", "no reason given")],
)
def test_refusal_says_why(server: Ask, attributes: bytes, reason: str) -> None:
    """The code and the words of the server, if it has any."""
    with pytest.raises(TurnError, match=f"refuses method 3: {reason}"):
        allocate(*server(lambda request: [answer(request, 0x0113, attributes)]), 5)


@pytest.mark.parametrize(
    ("attributes", "complaint"),
    [(b"", "without saying where"), (struct.pack(">HH20x", 0x0016, 20), "not IPv4")],
)
def test_allocation_needs_an_address(server: Ask, attributes: bytes, complaint: str) -> None:
    """An answer without one, or with one of another family, is of no use."""
    with pytest.raises(TurnError, match=complaint):
        allocate(*server(lambda request: [answer(request, 0x0103, attributes)]), 5)


def test_silence_is_an_error(server: Ask) -> None:
    """The wait ends."""
    with pytest.raises(TurnError, match=r"did not answer within 0\.1 s"):
        allocate(*server(lambda _: []), 0.1)


def test_nobody_there_is_an_error_too() -> None:
    """As long as nobody listens, the kernel says so; a server may still be starting."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe,
    ):
        probe.bind(("127.0.0.1", 0))
        address = probe.getsockname()
        probe.close()
        client.connect(address)
        client.setblocking(False)
        with pytest.raises(TurnError, match="did not answer"):
            allocate(client, address, 0.1)


def test_channel_data_has_four_bytes_before_its_payload() -> None:
    """Channel number and length."""
    assert channel_header(0x4001, 1200) == b"\x40\x01\x04\xb0"
