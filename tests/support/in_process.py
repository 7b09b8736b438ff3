"""A whole worker inside the test's own process, on a loopback socket, and clients for it."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from antquic_server.bench.load_client import ClientConnection, ClientSettings, LoadClient
from antquic_server.config.model import Settings, to_plain
from antquic_server.ipc.messages import Assign, Message, SocketDescriptor
from antquic_server.net.stray import StrayPair, make_stray_pairs
from support.pair import certificate, node_key, pool
from workers.connection import Connection
from workers.endpoint import Endpoint
from workers.surroundings import Hooks
from workers.worker import Worker, build_worker

Value = TypeVar("Value")
TIMEOUT_S = 10.0
SERVER_SEED = b"server".ljust(32, b".")


def run(story: Coroutine[Any, Any, Value]) -> Value:
    """Run a story to its end; one that hangs fails."""

    async def bounded() -> Value:
        async with asyncio.timeout(30.0):
            return await story

    return asyncio.run(bounded())


async def until(condition: Callable[[], Value], what: str, timeout_s: float = TIMEOUT_S) -> Value:
    """Wait for a true value of ``condition()``, looking every few milliseconds."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + timeout_s
    while not (value := condition()):
        assert loop.time() < deadline_s, f"no {what} within {timeout_s} s; last seen: {value!r}"
        await asyncio.sleep(0.005)
    return value


@dataclass(kw_only=True)
class Bench:
    """A worker and everything around it."""

    worker: Worker
    client: LoadClient
    port: int
    stray: list[StrayPair]
    slot: int = 0
    up: list[tuple[bytes | None, int, str, int]] = field(default_factory=list)
    """Peers that came or moved: peer id, connection, host, port."""
    down: list[tuple[bytes | None, int]] = field(default_factory=list)
    told_hub: list[Message] = field(default_factory=list)

    @property
    def endpoint(self) -> Endpoint:
        """The worker's endpoint."""
        return self.worker.endpoint

    def connect(self, **settings: Any) -> ClientConnection:
        """Begin a connection of an ant-quic peer, or of whom the settings say."""
        defaults: dict[str, Any] = {"pqc": pool(), "node_key": node_key("client")}
        return self.client.connect("127.0.0.1", self.port, ClientSettings(**(defaults | settings)))

    async def connected(self, **settings: Any) -> ClientConnection:
        """Connect, and wait until both ends have completed the handshake."""
        known = self.counted("handshakes")
        connection = self.connect(**settings)
        await connection.wait_connected(TIMEOUT_S)
        await until(lambda: self.counted("handshakes") > known, "handshake on the server")
        return connection

    def counted(self, name: str, label: str | None = None) -> float:
        """A counter, summed over its labels unless one is given."""
        values = self.worker.snapshot(0.0)
        if label is not None:
            return values.get(f"{name}|{label}", 0)
        return sum(value for key, value in values.items() if key.split("|")[0] == name)


def make_assign(
    sock: socket.socket, stray: list[StrayPair], settings: Settings, *, slot: int = 0, echo: bool = True
) -> Assign:
    """What the supervisor would say, for one socket."""
    certificate_pem, key_pem = certificate()
    host, port = sock.getsockname()[:2]
    return Assign(
        slot=slot,
        worker_count=len(stray),
        generation=1,
        cpu=-1,
        settings=to_plain(settings),
        identity_seed=SERVER_SEED,
        root_secret=bytes(32),
        certificate_pem=certificate_pem,
        certificate_key_pem=key_pem,
        sockets=[SocketDescriptor(fd=sock.fileno(), family=int(sock.family), host=host, port=port)],
        steering_fd=stray[slot].receiver.fileno(),
        steering_fds=[pair.sender.fileno() for pair in stray],
        echo=echo,
    )


def settings_with(**sections: dict[str, Any]) -> Settings:
    """Settings with some keys changed, and the provider that is always there."""
    settings = Settings()
    changes = {"pqc": {"provider": "cryptography"}} | sections
    changes["pqc"] = {"provider": "cryptography"} | changes["pqc"]
    parts = {name: replace(getattr(settings, name), **keys) for name, keys in changes.items()}
    return replace(settings, **parts)


@asynccontextmanager
async def running_worker(
    settings: Settings | None = None,
    *,
    worker_count: int = 1,
    slot: int = 0,
    echo: bool = True,
    limits: dict[str, Any] | None = None,
) -> AsyncIterator[Bench]:
    """Run a worker; ``limits`` replaces durations of the endpoint that settings do not reach as low."""
    stray = make_stray_pairs(worker_count)
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind(("127.0.0.1", 0))
    assign = make_assign(sock, stray, settings or settings_with(), slot=slot, echo=echo)
    port = assign.sockets[0].port
    sock.detach()  # the worker's from here on
    up: list[tuple[bytes | None, int, str, int]] = []
    down: list[tuple[bytes | None, int]] = []
    told_hub: list[Message] = []

    def peer_up(connection: Connection) -> None:
        up.append((connection.peer_id, connection.number, connection.path.host, connection.path.port))

    def peer_down(connection: Connection) -> None:
        down.append((connection.peer_id, connection.number))

    def tell_hub(message: Message) -> bool:
        told_hub.append(message)
        return True

    hooks = Hooks(peer_up=peer_up, peer_down=peer_down, tell_hub=tell_hub)
    worker = build_worker(assign, hooks, asyncio.get_running_loop())
    endpoint = worker.endpoint
    if limits:
        endpoint._limits = replace(endpoint._limits, **limits)
    client = LoadClient(offloads=False)
    endpoint.start()
    worker.relay.start()
    try:
        yield Bench(
            worker=worker, client=client, port=port, stray=stray, slot=slot, up=up, down=down, told_hub=told_hub
        )
    finally:
        client.close()
        worker.relay.stop()
        endpoint.stop()
        close_worker(worker)
        for pair in stray:
            pair.receiver.close()
            pair.sender.close()
        # Connections that have ended are taken apart by the loop's next turn.
        await asyncio.sleep(0)


def close_worker(worker: Worker) -> None:
    """Close what a worker process leaves to its end."""
    worker.relay_streams.drain()
    for udp in worker.endpoint._sockets:
        udp.sock.close()
    worker.endpoint._stray.sock.close()
    for sender in worker.endpoint._strangers._stray_senders:
        sender.close()
