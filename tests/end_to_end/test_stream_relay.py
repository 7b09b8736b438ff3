"""The stream relay of a real node: its limits, its bounds, and what becomes of sessions when a worker dies."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.relay_stream import BIND_REQUEST
from support.load import (
    HANDSHAKE_TIMEOUT_S,
    LoadPeer,
    ask,
    client_pool,
    connect_peers,
    run_clients,
    start_peer,
    udp_inodes,
    wait_healthy,
)
from support.node import Node, StartNode, running_node
from support.relay_client import RelayClient, RelayRefusedError, ThirdParty, read_response, third_party, write
from support.veth import in_namespace, veth_pair
from support.waiting import wait_until

pytestmark = pytest.mark.end_to_end

Value = TypeVar("Value")

LOOPBACK = "relay.allowed_targets=['127.0.0.0/8', '::1/128']"
"""The third parties of these tests live on this machine."""

SERVED_AGAIN_S = 2.0
"""From the death of a worker to a session of its peer carrying bytes again."""

ATTEMPTS = 3
"""A machine that is busy with something else takes its time to run what has only to be waited for."""

REQUESTS, UNANSWERED = 2000, 100
"""How many a greedy peer makes, and how many of them before it reads the answers."""


async def connected(node: Node, **options: str) -> LoadPeer:
    """Connect one peer with a key of its own."""
    peer = start_peer(node, **options)  # type: ignore[arg-type]
    await peer.connection.wait_connected(HANDSHAKE_TIMEOUT_S)
    return peer


async def delivered(relay: RelayClient, party: ThirdParty, payload: bytes) -> None:
    """Send a datagram out, and another one back, and check both."""
    relay.send(party.address, payload)
    ((data, source),) = await party.receive()
    assert data == payload
    party.send(source, payload[::-1])
    ((address, data),) = await relay.receive()
    assert (address.port, data) == (party.address.port, payload[::-1])


def metric(node: Node, name: str, **labels: str) -> float:
    """One series of the stream relay, summed over workers."""
    text = ",".join(f'{key}="{value}"' for key, value in sorted({"mode": "stream", **labels}.items()))
    return node.metrics().get(f"antquic_{name}{{{text}}}", 0.0)


async def metric_reaches(node: Node, expected: float, name: str, **labels: str) -> None:
    """Wait for a series to have a value."""
    deadline_s = time.monotonic() + 10.0
    while (value := await ask(metric, node, name, **labels)) != expected:
        assert time.monotonic() < deadline_s, f"{name}{labels}: {value} instead of {expected}"
        await asyncio.sleep(0.05)


async def metric_exceeds(node: Node, least: float, name: str, **labels: str) -> None:
    """Wait for a series to be greater than a value."""
    await ask(wait_until, lambda: metric(node, name, **labels) > least, timeout_s=10.0, what=f"{name}{labels}")


def test_session_over_both_families(start_node: StartNode) -> None:
    """An IPv4 peer gets an IPv4 port; an IPv6 one a port that IPv4 third parties reach as well."""
    node = start_node(workers=2, settings=[LOOPBACK], arguments=["--listen", "[::1]:0"])

    async def story() -> None:
        async with third_party() as ipv4, third_party("::1") as ipv6:
            peer = await connected(node)
            relay = await RelayClient.open(peer.connection)
            assert str(relay.address.host) == "127.0.0.1"
            for size in (1, 1200, 1452, 4096):
                await delivered(relay, ipv4, os.urandom(size))
            peer_v6 = await connected(node, host="::1")
            relay_v6 = await RelayClient.open(peer_v6.connection)
            assert str(relay_v6.address.host) == "::1"
            await delivered(relay_v6, ipv6, os.urandom(4096))
            mapped = SocketAddress.from_host(f"::ffff:{ipv4.address.host}", ipv4.address.port)
            relay_v6.send(mapped, b"to four")
            ((data, source),) = await ipv4.receive()
            assert (data, source) == (b"to four", ("127.0.0.1", relay_v6.address.port))
            ipv4.send(source, b"from four")
            assert await relay_v6.receive() == [(mapped, b"from four")]
            await metric_reaches(node, 2, "relay_sessions")
            for each in (peer, peer_v6):
                each.leave()
            await metric_reaches(node, 0, "relay_sessions")

    run_clients(story(), timeout_s=60)


def test_refused_targets_are_counted_and_cost_nothing_else(start_node: StartNode) -> None:
    """Metadata services, private networks, the node's own port: nothing goes there, and the session goes on."""
    node = start_node(settings=["relay.allowed_targets=['127.0.0.2/32']", "relay.denied_targets=['203.0.113.0/24']"])

    async def story() -> None:
        async with third_party("127.0.0.2") as party:
            relay = await RelayClient.open((await connected(node)).connection)
            refused = {
                "target_special": ["169.254.169.254:80", "10.0.0.1:53", "224.0.0.1:5353", "255.255.255.255:67"],
                "target_own": ["127.0.0.1:53", f"127.0.0.1:{node.port}"],
                "target_denied": ["203.0.113.7:4433"],
                "target_port": ["198.18.0.1:0"],
                "address_family": ["[2001:db8::1]:53"],
            }
            for targets in refused.values():
                for target in targets:
                    relay.send(target, b"x")
                    await delivered(relay, party, os.urandom(100))
            for reason, targets in refused.items():
                await metric_reaches(node, len(targets), "relay_drops_total", reason=reason)
            assert await ask(metric, node, "relay_sessions") == 1

    run_clients(story(), timeout_s=60)


def test_peer_that_floods_its_session_harms_nobody(start_node: StartNode) -> None:
    """Ever new targets, empty datagrams and rubbish: each is bounded and counted, and the neighbour goes on."""
    node = start_node(settings=[LOOPBACK, "relay.bandwidth_per_peer_bytes_per_s=200000"])

    async def story() -> None:
        async with third_party() as party, third_party() as victim:
            honest = await RelayClient.open((await connected(node)).connection)
            hostile = await connected(node)
            relay = await RelayClient.open(hostile.connection)
            for number in range(50):
                for port in range(100):
                    relay.send(f"198.18.{number}.1:{1000 + port}", b"")
                await delivered(honest, party, os.urandom(100))
            relay.send(victim.address, *[b""] * 5000)
            await delivered(honest, party, os.urandom(100))
            await metric_exceeds(node, 3000, "relay_drops_total", reason="new_targets")
            await metric_exceeds(node, 1000, "relay_drops_total", reason="rate")
            relay.write(bytes(4) * 200)
            await metric_reaches(node, 1, "relay_sessions_closed_total", reason="stream_malformed")
            await delivered(honest, party, os.urandom(100))

    run_clients(story(), timeout_s=60)


def test_peer_that_opens_thousands_is_refused_by_name(start_node: StartNode) -> None:
    """With the limit's name; its sessions and its neighbour's go on meanwhile, and none is left behind."""
    node = start_node(workers=2, settings=[LOOPBACK, "relay.max_sessions_per_peer=3"])

    async def story() -> None:
        async with third_party() as party:
            honest = await RelayClient.open((await connected(node)).connection)
            greedy = await connected(node)
            kept = [await RelayClient.open(greedy.connection) for _ in range(3)]
            statuses: set[tuple[int, str]] = set()
            slowest_s = 0.0
            for _ in range(REQUESTS // UNANSWERED):
                streams = []
                for _ in range(UNANSWERED):
                    streams.append(greedy.connection.quic.get_next_available_stream_id())
                    write(greedy.connection, streams[-1], BIND_REQUEST)
                started_s = time.monotonic()
                await delivered(honest, party, os.urandom(1000))
                slowest_s = max(slowest_s, time.monotonic() - started_s)
                for stream_id in streams:
                    response = await read_response(greedy.connection, stream_id)
                    statuses.add((response.status, response.reason))
                    write(greedy.connection, stream_id, b"", end=True)
            # What is asked too fast is refused in the worker already, or by the rate at which sessions may be opened.
            assert (409, "peer_sessions") in statuses or (503, "open_rate") in statuses
            assert statuses <= {(409, "peer_sessions"), (503, "open_rate")}
            # A datagram that waits behind a hundred requests is late by milliseconds; a busy machine adds to that.
            assert slowest_s < 5.0
            for relay in kept:
                await delivered(relay, party, os.urandom(1000))
            await metric_reaches(node, 4, "relay_sessions")
            await ask(
                wait_until,
                lambda: node.total("antquic_relay_refusals_total") >= REQUESTS,
                timeout_s=10.0,
                what="counted refusals",
            )

    run_clients(story(), timeout_s=120)


def test_limit_of_sessions_is_named(start_node: StartNode) -> None:
    """The fourth session of a peer that may have three, over two connections; one that ends makes room."""
    node = start_node(workers=2, settings=["relay.max_sessions_per_peer=3"])

    async def story() -> None:
        key = client_pool().signing_key(os.urandom(32))
        peers = []
        for _ in range(2):
            peer = start_peer(node, key=key)
            await peer.connection.wait_connected(HANDSHAKE_TIMEOUT_S)
            peers.append(peer)
        relays = [await RelayClient.open(peers[number % 2].connection) for number in range(3)]
        for peer in peers:
            with pytest.raises(RelayRefusedError) as caught:
                await RelayClient.open(peer.connection)
            assert (caught.value.response.status, caught.value.response.reason) == (409, "peer_sessions")
        await metric_reaches(node, 2, "relay_refusals_total", reason="peer_sessions")
        relays[0].write(b"", end=True)
        await metric_reaches(node, 2, "relay_sessions")
        await RelayClient.open(peers[1].connection)

    run_clients(story(), timeout_s=60)


def test_thousand_sessions_leave_no_port_behind(start_node: StartNode) -> None:
    """Opened and ended in every way, some with their connection: the worker has the sockets it began with."""
    node = start_node(settings=["relay.max_sessions_per_peer=1000", "relay.max_sessions_per_prefix=1000"])
    (worker,) = node.worker_pids
    before = udp_inodes(worker)

    async def story() -> None:
        opened = 0
        while opened < 1000:
            peer = await connected(node)
            relays = [await _open_patiently(peer) for _ in range(50)]
            opened += len(relays)
            quic = peer.connection.quic
            for number, relay in enumerate(relays[:30]):
                if number % 3 == 0:
                    relay.write(b"", end=True)
                elif number % 3 == 1:
                    quic.reset_stream(relay.stream_id, 0)
                else:
                    relay.write(b"\xff\xff\xff\xff")
            peer.leave()  # with twenty sessions
        await metric_reaches(node, 0, "relay_sessions")
        assert await ask(node.total, "antquic_relay_sessions_opened_total") == opened

    run_clients(story(), timeout_s=300)
    assert udp_inodes(worker) == before


async def _open_patiently(peer: LoadPeer) -> RelayClient:
    """Open a session, as often as it is told that it asks too fast."""
    while True:
        try:
            return await RelayClient.open(peer.connection)
        except RelayRefusedError as error:
            if error.response.reason != "open_rate":
                raise
        await asyncio.sleep(0.05)


def test_receiver_that_never_reads_is_bounded(start_node: StartNode) -> None:
    """A flood for a peer that has gone silent is dropped and counted; memory stays, and honest sessions go on."""
    settings = [LOOPBACK, "relay.bandwidth_per_peer_bytes_per_s=100000000", "relay.queue_bytes=65536"]
    node = start_node(settings=settings)
    (worker,) = node.worker_pids

    async def story() -> None:
        async with third_party() as party, third_party() as flooder:
            honest = await RelayClient.open((await connected(node)).connection)
            silent = await connected(node)
            relay = await RelayClient.open(silent.connection)
            await delivered(honest, party, os.urandom(1000))
            before = _resident_bytes(worker)
            silent.client.close()
            for _ in range(100):
                for _ in range(100):
                    flooder.send(relay.address, bytes(1200))
                await delivered(honest, party, os.urandom(1000))
            assert _resident_bytes(worker) - before < 4 << 20
            await metric_exceeds(node, 5000, "relay_drops_total", reason="queue_full")

    run_clients(story(), timeout_s=60)


def _resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_death_of_a_worker_ends_its_own_sessions_only(start_node: StartNode) -> None:
    """Sessions of the other worker lose nothing; a peer of the dead one has a new session within two seconds."""
    node = start_node(workers=2, settings=[LOOPBACK, "relay.max_sessions_per_peer=8"])

    async def story() -> float:
        async with third_party() as party:
            everybody: list[LoadPeer] = []
            while {peer.slot for peer in everybody} != {0, 1}:
                everybody += await connect_peers(node, 2)
            peers = {peer.slot: peer for peer in everybody}
            relays = {slot: await RelayClient.open(peer.connection) for slot, peer in peers.items()}
            for relay in relays.values():
                await delivered(relay, party, os.urandom(1000))
            await ask(wait_until, lambda: _ready_spares(node), timeout_s=20.0, what="spare")
            pids = await ask(wait_healthy, node)
            os.kill(pids[0], signal.SIGKILL)
            died_s = time.monotonic()
            again = asyncio.create_task(_open_again(node, relays[0], died_s))
            while not again.done():
                await delivered(relays[1], party, os.urandom(1000))
                await asyncio.sleep(0.01)
            newcomer, reopened = await again
            await delivered(reopened, party, os.urandom(1000))
            taken_s = time.monotonic() - died_s
            await delivered(relays[1], party, os.urandom(1000))
            # The port of the dead session is free: nobody of this machine has it.
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind((str(relays[0].address.host), relays[0].address.port))
            await metric_reaches(node, 2, "relay_sessions")
            for peer in (*everybody, newcomer):
                peer.leave()
            await metric_reaches(node, 0, "relay_sessions")
            return taken_s

    taken_s = [run_clients(story(), timeout_s=60)]
    while taken_s[-1] >= SERVED_AGAIN_S and len(taken_s) < ATTEMPTS:
        taken_s.append(run_clients(story(), timeout_s=60))
    assert taken_s[-1] < SERVED_AGAIN_S, taken_s


def _ready_spares(node: Node) -> list[int]:
    return [spare["pid"] for spare in node.status()["spares"] if spare["state"] == "spare"]


async def _open_again(node: Node, lost: RelayClient, died_s: float) -> tuple[LoadPeer, RelayClient]:
    """What a peer does: it goes on sending until it is told that the connection is gone, and then dials again."""
    while not lost.connection.closed.is_set():
        assert time.monotonic() < died_s + 20.0, "the dead worker's peer was never told"
        lost.send("198.18.0.1:4433", b"anything")
        await asyncio.sleep(0.05)
    assert lost.connection.stateless_reset
    peer = await connected(node)
    return peer, await RelayClient.open(peer.connection)


def test_fragments_pass_a_link_of_1500_bytes(tmp_path: Path, root: None) -> None:
    """Payloads of 4096 bytes cross an ordinary link in both directions, over IPv4 and IPv6, in pieces."""
    with veth_pair(1500) as pair:
        hosts = pair.near_hosts
        arguments = ["--listen", f"{hosts[0]}:0", "--listen", f"[{hosts[1]}]:0"]

        def inside(act: Callable[[], Value]) -> Value:
            return in_namespace(pair.far, act)

        def node_inside() -> None:
            with running_node(tmp_path, arguments=arguments) as node:
                listen = [SocketAddress.parse(text) for text in node.ready["listen"]]
                inside(lambda: run_clients(story(node, listen), timeout_s=60))

        async def story(node: Node, listen: list[SocketAddress]) -> None:
            for near, far in zip(pair.near_hosts, pair.far_hosts, strict=True):
                async with third_party(far) as party:
                    peer = start_peer(node, host=near, local_host=far)
                    await peer.connection.wait_connected(HANDSHAKE_TIMEOUT_S)
                    relay = await RelayClient.open(peer.connection)
                    assert str(relay.address.host) == near
                    assert any(str(address.host) == near for address in listen)
                    for size in (1452, 1453, 4096, 20_000):
                        await delivered(relay, party, os.urandom(size))
                    peer.leave()

        in_namespace(pair.near, node_inside)
