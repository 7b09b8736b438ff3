"""Path MTU discovery with real sockets: over loopback, and over a link that is narrower than the maximum."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from antquic_server.bench.load_client import ClientConnection, ClientSettings, LoadClient, random_node_key
from antquic_server.net.udp import PathAddress, SendResult, UdpSocket
from support.load import HANDSHAKE_TIMEOUT_S, ask, client_pool, node_port, run_clients, until
from support.node import Node, StartNode, running_node
from support.veth import in_namespace, veth_pair
from support.waiting import wait_for_value, wait_until

pytestmark = pytest.mark.end_to_end

TIMEOUT_S = 20.0
LINK_MTU = 1300


class SizedSocket(UdpSocket):
    """A socket that notes the size of every datagram."""

    def __init__(self, udp: UdpSocket) -> None:
        super().__init__(udp.sock, wildcard=False)
        self.sent_sizes: list[int] = []
        self.received_sizes: list[int] = []

    def send(self, path: PathAddress, datagrams: Sequence[bytes]) -> SendResult:
        """Send, and note."""
        self.sent_sizes += map(len, datagrams)
        return super().send(path, datagrams)

    def receive_datagrams(self, limit: int = 64) -> list[tuple[bytes, PathAddress]]:
        """Receive, and note."""
        received = super().receive_datagrams(limit)
        self.received_sizes += [len(data) for data, _ in received]
        return received


class SizedClient(LoadClient):
    """A client with such a socket, in a network namespace if one is named."""

    def __init__(self, *, host: str = "127.0.0.1", namespace: str | None = None) -> None:
        self._namespace = namespace
        super().__init__(host=host)

    @property
    def sized(self) -> SizedSocket:
        """The socket."""
        assert isinstance(self.udp, SizedSocket)
        return self.udp

    def dial(self, host: str, port: int, **settings: Any) -> ClientConnection:
        """Begin a connection of a peer with a key of its own."""
        key = random_node_key(client_pool())
        return self.connect(host, port, ClientSettings(pqc=client_pool(), node_key=key, **settings))

    def _open(self) -> UdpSocket:
        open_socket = super()._open
        return SizedSocket(in_namespace(self._namespace, open_socket) if self._namespace else open_socket())


async def exchange(client: SizedClient, connection: ClientConnection, size: int = 300_000) -> None:
    """Echo some data, and check it."""
    data = os.urandom(size)
    assert await connection.echo(data, TIMEOUT_S) == data
    assert client.connections == [connection]


async def path_mtu_of_node(node: Node, expected: int, namespace: str | None = None) -> None:
    """Wait until the node's one connection has got to this size."""

    def reported() -> bool:
        return node.total("antquic_path_mtu_sum_bytes") == expected

    def wait() -> None:
        wait_until(reported, timeout_s=TIMEOUT_S, what=f"path MTU of {expected} bytes at the node")

    await ask(in_namespace, namespace, wait) if namespace else await ask(wait)


def test_loopback_carries_the_maximum(start_node: StartNode) -> None:
    """The node finds 1452 for a peer that probes nothing itself, uses it, and never sends more."""
    node = start_node(echo=True)

    async def story() -> None:
        client = SizedClient()
        connection = client.dial("127.0.0.1", node.port)
        await connection.wait_connected(HANDSHAKE_TIMEOUT_S)
        await path_mtu_of_node(node, 1452)
        await exchange(client, connection)

        received = client.sized.received_sizes
        assert max(received) == 1452
        assert received.count(1452) > 100
        assert max(client.sized.sent_sizes) == 1200
        connection.close()
        client.close()

    run_clients(story(), timeout_s=60)
    wait_for_value(partial(node.total, "antquic_mtu_probes_sent_total"), 1, timeout_s=5.0, what="probes sent")
    assert node.total("antquic_mtu_probes_lost_total") == 0
    assert node.total("antquic_mtu_black_holes_total") == 0


def test_handshake_stays_at_the_initial_size(start_node: StartNode) -> None:
    """Everything before the probe fits 1200 bytes, also the node's flight with its 5 kB of signature and key."""
    node = start_node(echo=True)

    async def story() -> None:
        client = SizedClient()
        connection = client.dial("127.0.0.1", node.port, mtu_max=1452)
        await connection.wait_connected(HANDSHAKE_TIMEOUT_S)
        await until(lambda: connection.quic.path_mtu_bytes == 1452, timeout_s=TIMEOUT_S, what="probe of the client")
        await path_mtu_of_node(node, 1452)

        received = client.sized.received_sizes
        first_large = next(index for index, size in enumerate(received) if size > 1200)
        assert sum(received[:first_large]) > 5000
        assert [size for size in received if size > 1200] == [1452]
        connection.close()
        client.close()

    run_clients(story(), timeout_s=60)


def test_maximum_for_tunnels_is_never_exceeded(start_node: StartNode) -> None:
    """``mtu.max = 1280``: neither data nor a probe above 1280 bytes leaves the node."""
    node = start_node(echo=True, settings=["mtu.max=1280"])

    async def story() -> None:
        client = SizedClient()
        connection = client.dial("127.0.0.1", node.port)
        await connection.wait_connected(HANDSHAKE_TIMEOUT_S)
        await path_mtu_of_node(node, 1280)
        await exchange(client, connection)

        assert max(client.sized.received_sizes) == 1280
        connection.close()
        client.close()

    run_clients(story(), timeout_s=60)


@pytest.mark.parametrize("version", [4, 6])
def test_narrow_link_is_found_to_the_byte(tmp_path: Path, version: int) -> None:
    """Both ends settle at 1300 less the headers; what their own link refuses is a lost probe, and no error."""
    index, headers = (0, 28) if version == 4 else (1, 48)
    expected = LINK_MTU - headers
    with ExitStack() as stack:
        link = stack.enter_context(veth_pair(LINK_MTU))
        near, far = link.near_hosts[index], link.far_hosts[index]
        listen = f"{near}:0" if version == 4 else f"[{near}]:0"
        starting = running_node(tmp_path, echo=True, arguments=["--listen", listen])
        node = in_namespace(link.near, lambda: stack.enter_context(starting))

        async def story() -> None:
            client = SizedClient(host=far, namespace=link.far)
            connection = client.dial(near, node_port(node, near), mtu_max=1452)
            await connection.wait_connected(HANDSHAKE_TIMEOUT_S)
            await until(lambda: connection.quic.path_mtu_bytes == expected, timeout_s=TIMEOUT_S, what="size of client")
            await path_mtu_of_node(node, expected, link.near)
            await exchange(client, connection)
            assert max(client.sized.received_sizes) == expected
            connection.close()
            client.close()

        run_clients(story(), timeout_s=90)
        metrics = in_namespace(link.near, node.metrics)
        assert metrics["antquic_mtu_probes_lost_total"] >= 3
        assert metrics["antquic_mtu_black_holes_total"] == 0
        drops = {key: value for key, value in metrics.items() if key.startswith("antquic_drops_total") and value}
        # The last probe may still have been on its way when the connection ended.
        refused = drops.pop('antquic_drops_total{reason="above_link_mtu"}')
        assert 0 <= refused - metrics["antquic_mtu_probes_lost_total"] <= 1
        assert "send_error" not in str(drops)
