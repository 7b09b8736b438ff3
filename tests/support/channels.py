"""Peers of a relay channel on sockets of the test's own, and stand-ins for a worker's sockets."""

import socket
import time
from collections.abc import Sequence
from typing import Any

from antquic_server.ipc.relay_messages import ChannelCreate
from antquic_server.net.udp import Destination, PathAddress, SendResult, UdpSocket
from antquic_server.protocol.relay_channel import (
    BOUND,
    CHALLENGE,
    NO_NONCE,
    bind_nonce_untrusted,
    data_header,
    encode_bind,
    is_bind_answer_untrusted,
    new_channel_id,
)
from workers.channel_table import ChannelTable, source_of

__all__ = ["INITIATOR_KEY", "TARGET_KEY", "ChannelClient", "FakeUdp", "bind_at", "create_message", "made_up_id"]

INITIATOR_KEY = b"i" * 32
TARGET_KEY = b"t" * 32


def made_up_id(number: int = 0, *, slot: int = 0, worker_count: int = 1) -> bytes:
    """Return the id of a channel of this slot; the same for the same number."""
    return new_channel_id(slot, worker_count, lambda size: number.to_bytes(3, "big") + bytes(size - 3))


def create_message(channel_id: bytes, *, rate: float = 1e9, burst: float = 1e9) -> ChannelCreate:
    """Return the hub's word to own a channel."""
    return ChannelCreate(
        channel_id=channel_id,
        initiator_key=INITIATOR_KEY,
        target_key=TARGET_KEY,
        rate_bytes_per_s=rate,
        burst_bytes=burst,
        start_bytes=burst,
    )


def bind_at(  # noqa: PLR0917 - what a bind is made of
    table: ChannelTable, channel_id: bytes, counter: int, key: bytes, path: PathAddress, now_s: float
) -> bytes:
    """Let a bind arrive as from a leg that was challenged at its address before; returns it."""
    nonce = table.proofs.nonce(channel_id, key, source_of(path), now_s)
    bind = encode_bind(channel_id, counter, key, nonce)
    table.receive_untrusted(bind, path, now_s)
    return bind


class FakeUdp:
    """What the table asks of a ``UdpSocket``; ``fail_with`` makes the next trains fail."""

    def __init__(self) -> None:
        self.sent: list[tuple[tuple[Any, ...], bytes, int]] = []
        """Destination, train, size of its datagrams."""
        self.answers: list[tuple[PathAddress, bytes]] = []
        self.fail_with: SendResult | None = None

    def destination(self, path: PathAddress) -> Destination:
        """As the real one, for IPv4."""
        return Destination(path[:2], path.local)

    def send_train(self, destination: Destination, train: memoryview, segment_size: int) -> SendResult | None:
        """Noted."""
        if self.fail_with is None:
            self.sent.append((destination.address, bytes(train), segment_size))
        return self.fail_with

    def send_run(
        self, destination: Destination, pieces: Sequence[memoryview], size: int, segment_size: int
    ) -> SendResult | None:
        """Noted as the train that it is."""
        train = b"".join(pieces)
        assert len(train) == size
        return self.send_train(destination, memoryview(train), segment_size)

    def send(self, path: PathAddress, datagrams: tuple[bytes, ...]) -> SendResult:
        """Noted."""
        if self.fail_with is not None:
            return self.fail_with
        self.answers += [(path, datagram) for datagram in datagrams]
        return SendResult(len(datagrams), 0, 0)

    @property
    def as_udp(self) -> UdpSocket:
        """The same, as type checkers want it."""
        anything: Any = self
        udp: UdpSocket = anything
        return udp


class ChannelClient:
    """One socket of a peer, which may be a leg of several channels; it waits for nothing, see ``poll``."""

    def __init__(self, node: tuple[str, int], *, offloads: bool = True, host: str = "") -> None:
        family = socket.AF_INET6 if ":" in node[0] else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.bind((host or node[0], 0))
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.udp = UdpSocket(self.sock, wildcard=False, offloads=offloads)
        self.node = PathAddress(node[0], node[1], 0, 0, b"", 0)
        self.received: list[bytes] = []
        self._counter = time.time_ns() // 1000
        self._binds: dict[tuple[bytes, bytes], bytes] = {}
        """The last bind of each leg, by channel and key."""

    def __enter__(self) -> "ChannelClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    @property
    def port(self) -> int:
        """Own port."""
        return int(self.sock.getsockname()[1])

    def rebind(self) -> None:
        """Go on from another port, as behind a NAT that has forgotten the mapping."""
        host = self.sock.getsockname()[0]
        self.sock.close()
        other = ChannelClient(self.node[:2], host=host)
        self.sock, self.udp = other.sock, other.udp

    def send(self, *datagrams: bytes) -> None:
        """Send datagrams to the node, those of one size as one train."""
        assert self.udp.send(self.node, datagrams).sent == len(datagrams)

    def send_data(self, channel_id: bytes, *payloads: bytes) -> None:
        """Send payloads through a channel."""
        self.send(*(data_header(channel_id) + payload for payload in payloads))

    def bind(self, channel_id: bytes, key: bytes, nonce: bytes = NO_NONCE) -> bytes:
        """Send a bind, and return it; ``is_bound`` sends it again when the node challenges it."""
        self._counter += 1
        bind = self._binds[channel_id, key] = encode_bind(channel_id, self._counter, key, nonce)
        self.send(bind)
        return bind

    def last_bind(self, channel_id: bytes, key: bytes) -> bytes:
        """Return the last bind of a leg, which is the one that counts once it is bound."""
        return self._binds[channel_id, key]

    def poll(self) -> list[bytes]:
        """Return everything that has arrived so far."""
        while batch := self.udp.receive_datagrams():
            self.received += [data for data, _ in batch]
        return self.received

    def payloads(self, channel_id: bytes) -> list[bytes]:
        """Payloads of one channel that have arrived so far."""
        header = data_header(channel_id)
        return [data[len(header) :] for data in self.poll() if data.startswith(header)]

    def is_bound(self, channel_id: bytes, key: bytes) -> bool:
        """Whether the node has taken the last bind; a challenge that it has answered with is met."""
        bind = self._binds[channel_id, key]
        answers = [data for data in self.poll() if is_bind_answer_untrusted(data, bind, key)]
        if answers and answers[-1][0] == CHALLENGE:
            self.bind(channel_id, key, bind_nonce_untrusted(answers[-1]))
        return bool(answers) and answers[-1][0] == BOUND
