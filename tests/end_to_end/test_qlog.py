"""``antquic-server qlog`` against a running node: files that viewers read, of the right connections only."""

import json
import os
import signal
from pathlib import Path

import pytest

from antquic_server.bench.load_client import random_node_key
from support.ant_quic import AntQuicPeer
from support.control import command, start_command
from support.forwarder import UdpForwarder
from support.load import ask, client_pool, connect_peers, run_clients, start_peer, until
from support.node import StartNode
from support.qlog import check_qlog, events_named, frames_of
from support.waiting import wait_until

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

TIMEOUT_S = 30.0


def test_traces_of_a_peer_that_is_here_and_comes_again(start_node: StartNode, tmp_path: Path) -> None:
    """One file for the connection it had, one with the handshake for the one it opens; none of the other peer's."""
    node = start_node(workers=2, echo=True)

    async def story() -> str:
        key = random_node_key(client_pool())
        (stranger,) = await connect_peers(node, 1)
        (peer,) = await connect_peers(node, 1, key=key)
        process = start_command(node, "qlog", peer.peer_id, "--seconds", "60", "--output", str(tmp_path))
        await until(lambda: "connections are traced" in node.log(), timeout_s=TIMEOUT_S, what="trace")
        again = start_peer(node, key=key)
        await again.connection.wait_connected(TIMEOUT_S)
        for each in (stranger, peer, again):
            assert await each.connection.echo(os.urandom(30_000), TIMEOUT_S)
            assert await each.connection.echo_datagram(b"x" * 100, TIMEOUT_S)
        again.leave()
        await until(lambda: len(node.peer(peer.peer_id)) == 1, timeout_s=TIMEOUT_S, what="second connection's end")
        # As Ctrl-C does.
        process.send_signal(signal.SIGINT)
        output = (await ask(process.communicate, timeout=TIMEOUT_S))[0]
        assert process.returncode == 0, output
        assert await peer.connection.echo(b"untraced again", TIMEOUT_S) == b"untraced again"
        for each in (stranger, peer):
            each.leave()
        return str(output)

    output = run_clients(story(), timeout_s=120)
    traces = [check_qlog(path.read_text()) for path in sorted(tmp_path.glob("*.qlog"))]

    assert len(traces) == 2
    assert output.count(".qlog") == 2
    assert all(path.stat().st_mode & 0o777 <= 0o644 for path in tmp_path.iterdir())
    facts = [json.loads(trace["description"]) for trace in traces]
    assert sorted(each["from_start"] for each in facts) == [False, True]
    assert len({each["peer_id"] for each in facts}) == 1
    for trace, fact in zip(traces, facts, strict=True):
        for direction in ("sent", "received"):
            kinds = {frame["frame_type"] for frame in frames_of(trace, direction)}
            assert {"stream", "datagram", "ack"} <= kinds
        assert events_named(trace, "recovery:metrics_updated")
        if fact["from_start"]:
            packets = events_named(trace, "transport:packet_received")
            assert packets[0]["header"]["packet_type"] == "initial"
            assert sum(frame["length"] for frame in frames_of(trace, "sent") if frame["frame_type"] == "crypto") > 5000
            extension = [frame for frame in frames_of(trace, "sent") if frame["frame_type"] == "unknown"]
            assert "ObservedAddress" in {frame["name"] for frame in extension}
            assert "connection_close" in {frame["frame_type"] for frame in frames_of(trace, "received")}
    assert "fault of ours" not in node.log()


def test_peer_that_is_not_here_leaves_no_file(start_node: StartNode, tmp_path: Path) -> None:
    """One line says so, with exit code 1; the node forgets the request."""
    node = start_node()
    done = command(node, "qlog", "ab" * 32, "--seconds", "0.5", "--output", str(tmp_path))

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "the peer had no connection to trace" in done.stderr
    assert list(tmp_path.iterdir()) == []
    wait_until(node.healthy, timeout_s=5, what="healthy node")


@pytest.mark.peers
def test_real_peer_is_traced_from_its_first_packet(
    start_node: StartNode, ant_quic_program: Path, tmp_path: Path
) -> None:
    """ant-quic's own handshake and frames make a valid trace, those of its extensions with their names."""
    node = start_node(workers=2)
    # What the peer sends waits in the forwarder's socket until the trace has begun.
    forwarder = UdpForwarder(("127.0.0.1", node.port))
    with AntQuicPeer([f"127.0.0.1:{forwarder.port}"], program=ant_quic_program) as peer:
        process = start_command(node, "qlog", peer.peer_id, "--seconds", "60", "--output", str(tmp_path))
        wait_until(lambda: "connections are traced" in node.log(), timeout_s=TIMEOUT_S, what="trace")
        with forwarder:
            peer.wait_connected(node.peer_id, timeout_s=TIMEOUT_S)
            peer.wait_for("external_address_discovered", timeout_s=TIMEOUT_S)
            peer.stop()
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=TIMEOUT_S)

    assert process.returncode == 0, output
    traces = [check_qlog(path.read_text()) for path in tmp_path.glob("*.qlog")]
    assert any(json.loads(trace["description"])["from_start"] for trace in traces)
    sent = [frame for trace in traces for frame in frames_of(trace, "sent") if frame["frame_type"] == "unknown"]
    assert "ObservedAddress" in {frame["name"] for frame in sent}
    assert "fault of ours" not in node.log()
