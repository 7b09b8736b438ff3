"""Limits of the relay on a running node: refused by name, lowered while sessions last, freed when a worker dies."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from antquic_server.bench.load_client import ClientConnection
from antquic_server.protocol.relay_control import ChannelClosed
from support.channel_peer import ChannelPeer, OpenChannel, channel_peer, open_channel
from support.load import connect_peers, run_clients, until
from support.node import Node, StartNode
from support.relay_client import RelayClient, RelayRefusedError, third_party
from support.waiting import wait_until

pytestmark = pytest.mark.end_to_end

TARGETS = "relay.allowed_targets=['127.0.0.0/8']"


def relay(node: Node) -> dict[str, Any]:
    """What the node says of its relay."""
    document: dict[str, Any] = node.status()["relay"]
    return document


async def refused(connection: ClientConnection) -> str:
    """Ask for a session that is not given; returns the reason."""
    with pytest.raises(RelayRefusedError) as raised:
        await RelayClient.open(connection)
    return raised.value.response.reason or ""


async def works(session: RelayClient) -> None:
    """Have a datagram go through a session and come back."""
    async with third_party(echo=True) as target:
        session.send(target.address, b"there and back")
        ((_, payload),) = await session.receive()
        assert payload == b"there and back"


def test_lowered_limit_ends_the_newest_session(start_node: StartNode, tmp_path: Path) -> None:
    """The older one goes on, whoever asks for another is told the limit, and raising it again gives room."""
    path = tmp_path / "limits.toml"
    path.write_text("[relay]\nmax_sessions_per_peer = 2\n")
    node = start_node(workers=1, arguments=["--config", str(path)], settings=[TARGETS])

    async def story() -> None:
        (peer,) = await connect_peers(node, 1)
        older, newer = [await RelayClient.open(peer.connection) for _ in range(2)]
        assert await refused(peer.connection) == "peer_sessions"
        await works(older)
        await works(newer)
        path.write_text("[relay]\nmax_sessions_per_peer = 1\n")
        os.kill(node.pid, signal.SIGHUP)
        await until(lambda: newer.ended or relay(node)["sessions"]["stream"] == 1, timeout_s=5, what="end of session")
        await works(older)
        assert await refused(peer.connection) == "peer_sessions"
        path.write_text("[relay]\nmax_sessions_per_peer = 2\n")
        os.kill(node.pid, signal.SIGHUP)
        await until(lambda: relay(node)["limits"]["max_sessions_per_peer"] == 2, timeout_s=5, what="reload")
        await works(await RelayClient.open(peer.connection))
        peer.leave()

    run_clients(story(), timeout_s=60)
    wait_until(lambda: relay(node)["sessions"]["peers"] == 0, timeout_s=10, what="sessions to end with the connection")
    assert relay(node)["refusals"]["stream"] == {"peer_sessions": 2}
    assert relay(node)["quota"]["used_bytes"] > 0


async def passes(channel: OpenChannel, sender: ChannelPeer, receiver: ChannelPeer, mark: bytes) -> None:
    """Have a datagram go through a channel."""
    sender.leg.send_data(channel.channel_id, mark)
    await until(lambda: mark in receiver.leg.payloads(channel.channel_id), timeout_s=10, what="payload")


def test_peer_that_is_denied_loses_its_channels(start_node: StartNode, tmp_path: Path) -> None:
    """Both sides are told why; a channel that another peer has asked for goes on."""
    path = tmp_path / "limits.toml"
    path.write_text("[relay]\n")
    node = start_node(workers=2, arguments=["--config", str(path)])

    async def story() -> None:
        async with channel_peer(node) as one, channel_peer(node) as other:
            denied, kept = await open_channel(one, other), await open_channel(other, one)
            await passes(denied, one, other, b"before")
            await passes(kept, other, one, b"before")
            path.write_text(f'[relay]\ndenied_peers = ["{one.peer.peer_id}"]\n')
            os.kill(node.pid, signal.SIGHUP)
            ends = [await one.heard(ChannelClosed), await other.heard(ChannelClosed)]
            assert {(end.channel_id, end.reason) for end in ends} == {(denied.channel_id, "peer_denied")}
            await passes(kept, one, other, b"after")
            assert relay(node)["sessions"]["channel"] == 1

    run_clients(story(), timeout_s=60)


def test_peer_out_of_bytes_is_cut_off(start_node: StartNode) -> None:
    """And hears why when it asks again; another peer is none the worse."""
    node = start_node(workers=1, settings=[TARGETS, "relay.max_bytes_per_peer=1000"])

    async def story() -> None:
        greedy, other = await connect_peers(node, 2)
        session = await RelayClient.open(greedy.connection)
        async with third_party() as target:
            session.send(target.address, bytes(1000))
            await target.receive()
        await until(lambda: relay(node)["sessions"]["stream"] == 0, timeout_s=5, what="end of session")
        assert await refused(greedy.connection) == "peer_bytes"
        await works(await RelayClient.open(other.connection))
        for peer in (greedy, other):
            peer.leave()

    run_clients(story(), timeout_s=60)


def test_death_of_a_worker_frees_its_sessions(start_node: StartNode) -> None:
    """Its peer may have as many again, at once."""
    node = start_node(workers=1, settings=[TARGETS, "relay.max_sessions_per_peer=1"])

    async def story() -> None:
        (peer,) = await connect_peers(node, 1)
        await works(await RelayClient.open(peer.connection))
        os.kill(node.worker_pids[0], signal.SIGKILL)
        await until(lambda: relay(node)["sessions"]["peers"] == 0, timeout_s=5, what="sessions to be freed")

    run_clients(story(), timeout_s=60)
    wait_until(node.healthy, timeout_s=10, what="replacement")
