"""
200,000 hostile datagrams against a running node.

What must hold: no traceback, no connection that failed by a fault of ours, bounded memory, and a well-behaved client
is served all the while. On a developer's machine the campaign is shorter; CI and ``ANTQUIC_SLOW=1`` run it whole.
"""

import asyncio
import socket
from pathlib import Path

import psutil
import pytest

from antquic_server.bench.load_client import ClientConnection, ClientSettings, LoadClient, random_node_key
from antquic_server.pqc.pool import PqcPool
from antquic_server.pqc.select import load_provider
from fuzz.forge import Forge
from support.node import Node, running_node
from support.require import slow_tests_wanted
from support.waiting import wait_until

SEED = 0xA11CE
SOURCES = 16
"""Sockets the attack comes from, so that the kernel's spreading by address has something to spread."""

BATCH_DATAGRAMS = 1000
CHECK_EVERY_DATAGRAMS = 10_000
WAIT_S = 20.0
GROWTH_LIMIT_BYTES = 48 << 20
CONNECTION_BYTES = 160 << 10
"""What the workers may grow by in the second half of the attack: a little, and more only for more connections alive at
once. One that never completes costs up to 160 kB for its five seconds, and the allocator keeps what the peak took."""

SETTINGS = (
    # The limits that would keep this attacker out have tests of their own; here everything must reach the parsers.
    'limits.retry="off"',
    "limits.handshakes_per_address_per_s=1e6",
    "limits.handshakes_per_prefix_per_s=1e6",
    "endpoint.max_connections=20000",
    "pqc.handshake_timeout_multiplier=1.0",
    # The attack wants as much CPU as the node: on a small machine that is shared with other tests, two seconds without
    # a heartbeat are not yet a crash, and a replaced worker would hide one.
    "endpoint.heartbeat_timeout_s=30.0",
    'log.level="debug"',
)


def _resident_bytes(pids: list[int]) -> int:
    return sum(psutil.Process(pid).memory_info().rss for pid in pids)


def _received(node: Node) -> float:
    return node.metrics().get("antquic_datagrams_received_total", 0.0)


class Campaign:
    """The attack: forged datagrams from several sockets, never more in flight than the node's buffers hold."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.forge = Forge(SEED)
        self.sent = 0
        self.peak_connections = 0
        self._sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(SOURCES)]
        for sock in self._sockets:
            sock.bind(("127.0.0.1", 0))
            sock.connect(("127.0.0.1", node.port))
            sock.setblocking(False)

    async def send_batch(self) -> None:
        """Send one batch and wait until the node has read nearly all of it."""
        goal = self.sent + BATCH_DATAGRAMS
        while self.sent < goal:
            sock = self._sockets[self.sent % SOURCES]
            for datagram in self.forge.next_datagrams():
                sock.send(datagram)
                self.sent += 1
            if self.sent % 50 == 0:
                await asyncio.sleep(0)
        self._discard_answers()
        alive = sum(worker["connections"] for worker in self.node.status()["workers"])
        self.peak_connections = max(self.peak_connections, alive)

    def _discard_answers(self) -> None:
        for sock in self._sockets:
            try:
                while sock.recv(2048):
                    pass
            except BlockingIOError:
                continue

    def close(self) -> None:
        """Close the sockets."""
        for sock in self._sockets:
            sock.close()


async def _attack(node: Node, total: int) -> None:
    campaign = Campaign(node)
    pool = PqcPool(load_provider("cryptography"), 4)
    settings = ClientSettings(pqc=pool, node_key=random_node_key(pool))
    client = LoadClient()
    try:
        steady = client.connect("127.0.0.1", node.port, settings)
        await steady.wait_connected(WAIT_S)
        campaign.forge.node_connection_ids = _node_connection_ids(steady)
        baseline_bytes = baseline_peak = 0
        while campaign.sent < total:
            await _attack_until(campaign, min(total, campaign.sent + CHECK_EVERY_DATAGRAMS))
            assert await steady.echo(b"still here", WAIT_S) == b"still here"
            newcomer = client.connect("127.0.0.1", node.port, settings)
            await newcomer.wait_connected(WAIT_S)
            assert await newcomer.echo(b"let me in", WAIT_S) == b"let me in"
            newcomer.close()
            if baseline_bytes == 0 and campaign.sent >= total // 2:
                baseline_bytes, baseline_peak = _resident_bytes(node.worker_pids), campaign.peak_connections
        growth_bytes = _resident_bytes(node.worker_pids) - baseline_bytes
        peak = campaign.peak_connections
        limit_bytes = GROWTH_LIMIT_BYTES + CONNECTION_BYTES * (peak - baseline_peak)
        assert growth_bytes < limit_bytes, f"workers grew by {growth_bytes >> 20} MiB, {peak} connections at most"
    finally:
        client.close()
        campaign.close()


async def _attack_until(campaign: Campaign, goal: int) -> None:
    while campaign.sent < goal:
        await campaign.send_batch()
        # Heartbeats bring the figures; what the kernel has dropped by then was never an attack.
        for _ in range(40):
            if await asyncio.to_thread(_received, campaign.node) >= campaign.sent - BATCH_DATAGRAMS:
                break
            await asyncio.sleep(0.05)


def _node_connection_ids(connection: ClientConnection) -> list[bytes]:
    quic = connection.quic
    return [item.cid for item in (quic._peer_cid, *quic._peer_cid_available)]


@pytest.mark.end_to_end
def test_hostile_datagrams_neither_break_nor_swell_the_node(tmp_path: Path) -> None:
    """Random, truncated and mutated datagrams leave no trace but counters, and good clients are served."""
    total = 200_000 if slow_tests_wanted() else 10_000
    with running_node(tmp_path, workers=2, echo=True, settings=SETTINGS) as node:
        workers = node.worker_pids

        try:
            asyncio.run(_attack(node, total))
        except (AssertionError, ConnectionError) as error:
            raise AssertionError(f"{error}\n{node.describe()}") from error

        wait_until(lambda: _received(node) > 0.98 * total, timeout_s=5.0, what="arrival of the attack")
        assert node.worker_pids == workers
        assert "Traceback" not in node.log()
        assert "fault of ours" not in node.log(), _faults(node)
        in_flight = "antquic_handshakes_in_flight"
        wait_until(lambda: node.metrics()[in_flight] == 0, timeout_s=30.0, what="end of all half-open handshakes")


def _faults(node: Node) -> str:
    return "\n".join(sorted({line for line in node.log().splitlines() if "fault of ours" in line})[:20])
