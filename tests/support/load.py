"""
Many real client connections at a node, and what a test wants to know about them.

Built on the benchmark's ``LoadClient``; adds which slot every datagram went to, datagrams that are held back, and the
identity of each client. Used from one event loop, inside ``run_clients``.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakSet

import uvloop
from aioquic.buffer import Buffer
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicProtocolVersion, pull_quic_header

from antquic_server.bench.load_client import ClientConnection, ClientSettings, LoadClient, random_node_key
from antquic_server.net.udp import PathAddress, SendResult, UdpSocket
from antquic_server.pqc.pool import PqcPool
from antquic_server.pqc.select import load_provider
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.raw_public_key import peer_id as derive_peer_id
from antquic_server.protocol.routing import LONG_HEADER_CONNECTION_ID_OFFSET, STEERING_BYTE_INDEX, owner_slot
from antquic_server.protocol.seam.tls_context import SigningKey
from support.node import Node
from support.udp_sockets import udp_sockets
from support.waiting import wait_until

__all__ = [
    "HANDSHAKE_TIMEOUT_S",
    "UNLIMITED_RATES",
    "LoadPeer",
    "WatchedClient",
    "WatchedSocket",
    "a_few_at_once",
    "ask",
    "client_pool",
    "connect_peers",
    "descendants",
    "distinct_first_flights",
    "is_alive",
    "node_port",
    "peers_of",
    "ready_spares",
    "run_clients",
    "start_peer",
    "udp_inodes",
    "until",
    "wait_healthy",
    "worker_counts",
]

UNLIMITED_RATES = (
    "limits.handshakes_per_address_per_s=1000000.0",
    "limits.handshakes_per_prefix_per_s=1000000.0",
)
"""All clients of a test come from one address."""

HANDSHAKE_TIMEOUT_S = 15.0
# Everybody at once would only measure the test: answers late by more than a probe timeout are sent again, and a path
# that does not answer its challenge within 0.6 s is given up (RFC 9000, section 8.2.4).
CONCURRENT_CLIENTS = 12
POLL_INTERVAL_S = 0.02
Item = TypeVar("Item")
Value = TypeVar("Value")


_open_clients: "WeakSet[WatchedClient]" = WeakSet()


class WatchedSocket(UdpSocket):
    """A socket that counts, notes the slot each datagram is for and can hold datagrams back."""

    def __init__(self, udp: UdpSocket, *, workers: int, offloads: bool, holding: bool) -> None:
        super().__init__(udp.sock, wildcard=False, offloads=offloads)
        self.workers = workers
        self.sent_to: Counter[int] = Counter()
        self.traffic: Counter[str] = Counter()
        self.holding = holding
        self.held: list[tuple[PathAddress, bytes]] = []

    def send(self, path: PathAddress, datagrams: Sequence[bytes]) -> SendResult:
        """Send as the base class does, or keep everything while ``holding``."""
        if self.holding:
            self.held += [(path, datagram) for datagram in datagrams]
            return SendResult(len(datagrams), 0, 0)
        for datagram in datagrams:
            self.sent_to[owner_slot(datagram, self.workers)] += 1
        self.traffic.update(datagrams_sent=len(datagrams), bytes_sent=sum(map(len, datagrams)))
        return super().send(path, datagrams)

    def receive_datagrams(self, limit: int = 64) -> list[tuple[bytes, PathAddress]]:
        """Receive as the base class does."""
        received = super().receive_datagrams(limit)
        self.traffic.update(datagrams_received=len(received), bytes_received=sum(len(data) for data, _ in received))
        return received


class WatchedClient(LoadClient):
    """
    A ``LoadClient`` whose datagrams are counted by slot, over all its sockets.

    While ``holding`` nothing is sent; ``take_held`` returns what would have been, oldest first.
    """

    def __init__(self, *, workers: int, host: str = "127.0.0.1", offloads: bool = True) -> None:
        self._workers = workers
        self._watched: list[WatchedSocket] = []
        self.closed = False
        super().__init__(host=host, offloads=offloads)
        _open_clients.add(self)

    @property
    def sent_to(self) -> Counter[int]:
        """Datagrams sent, by the slot their connection ID names."""
        return sum((sock.sent_to for sock in self._watched), Counter())

    @property
    def traffic(self) -> Counter[str]:
        """``datagrams_sent``, ``bytes_sent``, ``datagrams_received`` and ``bytes_received``, over all sockets."""
        return sum((sock.traffic for sock in self._watched), Counter())

    @property
    def holding(self) -> bool:
        """Whether datagrams are held back."""
        return self._watched[-1].holding

    @holding.setter
    def holding(self, on: bool) -> None:
        self._watched[-1].holding = on

    @property
    def held(self) -> list[tuple[PathAddress, bytes]]:
        """Datagrams held back so far, with where they were to go."""
        return [item for sock in self._watched for item in sock.held]

    def take_held(self) -> list[tuple[PathAddress, bytes]]:
        """Return the datagrams held back and forget them."""
        held = self.held
        for sock in self._watched:
            sock.held.clear()
        return held

    def release(self) -> None:
        """Send what was held back, from the present socket, and hold nothing from now on."""
        held = self.take_held()
        self.holding = False
        for path, datagram in held:
            self.udp.send(path, [datagram])

    def close(self) -> None:
        """Drop everything without telling the server; a second call does nothing."""
        if not self.closed:
            self.closed = True
            super().close()

    def _open(self) -> UdpSocket:
        holding = bool(self._watched) and self.holding
        watched = WatchedSocket(super()._open(), workers=self._workers, offloads=self._offloads, holding=holding)
        self._watched.append(watched)
        return watched


class LoadPeer:
    """One connection with the client that carries it; ``peer_id`` is what the node knows it by, 64 hex digits."""

    def __init__(self, client: WatchedClient, connection: ClientConnection, *, workers: int, peer_id: str) -> None:
        self.client = client
        self.connection = connection
        self.workers = workers
        self.peer_id = peer_id

    @property
    def slot(self) -> int:
        """The slot that the node's connection ID, which this client sends to, names."""
        cid: bytes = self.connection.quic._peer_cid.cid
        return cid[STEERING_BYTE_INDEX] % self.workers

    def leave(self) -> None:
        """Close the connection, if it is open, and the socket."""
        if not self.client.closed:
            self.connection.close()
            self.client.close()

    @property
    def own_address(self) -> SocketAddress:
        """The address the client sends from."""
        host, port = self.client.udp.sock.getsockname()[:2]
        return SocketAddress.from_host(host, port)

    @property
    def observed_address(self) -> SocketAddress | None:
        """The address the node has last told the client that it has."""
        return self.connection.quic.observed_by_peer.address


@cache
def client_pool() -> PqcPool:
    """Return the pool of post-quantum contexts that all clients of this process share."""
    return PqcPool(load_provider("auto"), 2 * CONCURRENT_CLIENTS)


def node_port(node: Node, host: str = "127.0.0.1") -> int:
    """Return the UDP port of the node's listen address on ``host``."""
    ports = {address.host.compressed: address.port for address in map(SocketAddress.parse, node.ready["listen"])}
    return ports[host]


def start_peer(
    node: Node,
    *,
    client: WatchedClient | None = None,
    host: str = "127.0.0.1",
    local_host: str | None = None,
    alpn: tuple[str, ...] = (),
    holding: bool = False,
    key: SigningKey | None = None,
    server_name: str | None = "peer",
    relay_channels: bool = False,
) -> LoadPeer:
    """
    Begin one connection as an ant-quic peer, by default with a key of its own, on ``client`` or a new socket.

    ``host`` is the node's address, and the client's own unless ``local_host`` is another.
    """
    workers = int(node.ready["workers"])
    client = client or WatchedClient(workers=workers, host=local_host or host)
    client.holding = holding
    key = key or random_node_key(client_pool())
    settings = ClientSettings(
        pqc=client_pool(), node_key=key, alpn=alpn, server_name=server_name, relay_channels=relay_channels
    )
    connection = client.connect(host, node_port(node, host), settings)
    return LoadPeer(client, connection, workers=workers, peer_id=derive_peer_id(key.public_key).hex())


async def connect_peers(node: Node, count: int, **options: Any) -> list[LoadPeer]:
    """Connect ``count`` peers (options of ``start_peer``), each on a socket of its own, some handshakes at a time."""

    async def connect(_: int) -> LoadPeer:
        peer = start_peer(node, **options)
        await peer.connection.wait_connected(HANDSHAKE_TIMEOUT_S)
        return peer

    return await a_few_at_once(connect, range(count))


async def a_few_at_once(act: Callable[[Item], Awaitable[Value]], items: Iterable[Item]) -> list[Value]:
    """Run ``act`` for every item, ``CONCURRENT_CLIENTS`` at a time, and return the results in order."""
    gate = asyncio.Semaphore(CONCURRENT_CLIENTS)

    async def one(item: Item) -> Value:
        async with gate:
            return await act(item)

    return list(await asyncio.gather(*map(one, items)))


@asynccontextmanager
async def peers_of(node: Node, count: int, **options: Any) -> AsyncIterator[list[LoadPeer]]:
    """Connect ``count`` peers (options of ``start_peer``), which leave at the end of the block."""
    peers = await connect_peers(node, count, **options)
    try:
        yield peers
    finally:
        for peer in peers:
            peer.leave()


def run_clients(story: Coroutine[Any, Any, Value], *, timeout_s: float) -> Value:
    """Run a story of clients to its end; TimeoutError when it takes longer than ``timeout_s``."""

    async def limited() -> Value:
        try:
            async with asyncio.timeout(timeout_s):
                return await story
        finally:
            # A test that failed half-way leaves them open.
            for client in list(_open_clients):
                client.close()

    return uvloop.run(limited())


async def until(condition: Callable[[], Value], *, timeout_s: float, what: str) -> Value:
    """
    Return the first true value of ``condition()``, which must not block.

    Raises:
        AssertionError: It was never true; names ``what`` and the last value seen.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline_s:
            raise AssertionError(f"no {what} within {timeout_s} s; last seen: {value!r}")
        await asyncio.sleep(POLL_INTERVAL_S)


async def ask(question: Callable[..., Value], *arguments: Any, **options: Any) -> Value:
    """Call something that blocks, such as a request to the admin endpoint, while the clients go on."""
    return await asyncio.to_thread(question, *arguments, **options)


def worker_counts(status: dict[str, Any], name: str) -> list[float]:
    """Return one metric of every slot, in slot order, labels summed."""
    return [
        sum(value for key, value in worker["counters"].items() if key.partition("|")[0] == name)
        for worker in status["workers"]
    ]


def wait_healthy(node: Node, *, besides: Sequence[int] = ()) -> list[int]:
    """Return the workers' process ids once every slot has a ready one, none of them in ``besides``."""

    def look() -> list[int]:
        status = node.status()
        pids = [worker["pid"] for worker in status["workers"]]
        return pids if status["node"]["healthy"] and not set(pids) & set(besides) else []

    return wait_until(look, timeout_s=40.0, what=f"ready workers other than {besides}")


def ready_spares(node: Node) -> list[int]:
    """Return the process ids of the spares that could take over now."""
    return [spare["pid"] for spare in node.status()["spares"] if spare["state"] == "spare"]


def is_alive(pid: int) -> bool:
    """
    Whether a process exists and has not ended.

    A zombie has, unless it still has threads: those end after the first one, and hold its files until then.
    """
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X") or threads > 1


def descendants(pid: int) -> list[int]:
    """Return the process ids of all living children of a process, and theirs."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def udp_inodes(pid: int) -> frozenset[int]:
    """Return the inode numbers of the UDP sockets a process has open."""
    return frozenset(item.inode for item in udp_sockets(pid))


def distinct_first_flights(node: Node, count: int) -> Iterator[list[bytes]]:
    """Yield ``count`` whole ClientHellos, each for a connection ID of its own and validly encrypted for it."""
    template = start_peer(node, holding=True)
    flight = [datagram for _, datagram in template.client.take_held()]
    template.client.close()
    opened = [_open_initial(datagram) for datagram in flight]
    for _ in range(count):
        cid = os.urandom(len(opened[0].destination_cid))
        yield [initial.sealed_for(cid) for initial in opened]


@dataclass(frozen=True, slots=True, kw_only=True)
class _OpenedInitial:
    """An Initial packet in the clear; only its destination connection ID is to be replaced."""

    header: bytes
    payload: bytes
    packet_number: int
    destination_cid: bytes

    def sealed_for(self, cid: bytes) -> bytes:
        """Return the packet for another connection ID of the same length (RFC 9001, section 5.2)."""
        crypto = CryptoPair()
        crypto.setup_initial(cid=cid, is_client=True, version=QuicProtocolVersion.VERSION_1)
        end = LONG_HEADER_CONNECTION_ID_OFFSET + len(cid)
        header = self.header[:LONG_HEADER_CONNECTION_ID_OFFSET] + cid + self.header[end:]
        return crypto.encrypt_packet(header, self.payload, self.packet_number)


def _open_initial(datagram: bytes) -> _OpenedInitial:
    buf = Buffer(data=datagram)
    header = pull_quic_header(buf)
    crypto = CryptoPair()
    crypto.setup_initial(cid=header.destination_cid, is_client=False, version=QuicProtocolVersion.VERSION_1)
    plain_header, payload, packet_number = crypto.decrypt_packet(datagram[: header.packet_length], buf.tell(), 0)
    return _OpenedInitial(
        header=plain_header, payload=payload, packet_number=packet_number, destination_cid=header.destination_cid
    )
