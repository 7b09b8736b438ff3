"""A path with a round-trip time."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from antquic_server.bench.delay import DelayedPath


@contextmanager
def echo() -> Iterator[int]:
    """Echo datagrams from a thread; yields the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def serve() -> None:
            while True:
                data, source = server.recvfrom(65535)
                if data == b"stop":
                    return
                server.sendto(data, source)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stopper:
                stopper.sendto(b"stop", server.getsockname())
            thread.join()


@pytest.mark.parametrize("rtt_s", [0.0, 0.05])
def test_datagrams_come_back_in_order_and_not_before_the_round_trip_is_over(rtt_s: float) -> None:
    """Half of it each way; never early is what a clock can promise on a busy machine."""
    with echo() as port, DelayedPath(port, rtt_s) as path, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        started_s = time.monotonic()
        for number in range(10):
            client.sendto(bytes([number]) * 1200, ("127.0.0.1", path.port))
        received = [client.recv(65535) for _ in range(10)]
        took_s = time.monotonic() - started_s

    assert [data[0] for data in received] == list(range(10))
    assert {len(data) for data in received} == {1200}
    assert took_s >= rtt_s


def test_server_that_is_gone_ends_nothing() -> None:
    """Its datagrams are lost, and the path goes on until it is closed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with DelayedPath(port, 0.0) as path, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for _ in range(3):
            client.sendto(b"anybody?", ("127.0.0.1", path.port))
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(100)
