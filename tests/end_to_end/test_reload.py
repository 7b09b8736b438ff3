"""SIGHUP to a running node: limits change, connections do not notice, a mistake changes nothing."""

import os
import signal
from pathlib import Path

import pytest

from support.load import connect_peers, run_clients
from support.node import StartNode
from support.waiting import wait_until

pytestmark = pytest.mark.end_to_end

ECHO_TIMEOUT_S = 10.0


def test_limits_change_below_living_connections(start_node: StartNode, tmp_path: Path) -> None:
    """Flags still win over the file, workers stay, and so do the connections on them."""
    path = tmp_path / "limits.toml"
    path.write_text("[relay]\nmax_sessions = 50\n")
    node = start_node(
        workers=2, echo=True, arguments=["--config", str(path)], settings=["relay.max_sessions_per_peer=3"]
    )
    workers = node.worker_pids

    def limits() -> tuple[int, int]:
        found = node.status()["relay"]["limits"]
        return found["max_sessions"], found["max_sessions_per_peer"]

    def reload(text: str) -> None:
        path.write_text(text)
        os.kill(node.pid, signal.SIGHUP)

    async def story() -> None:
        peers = await connect_peers(node, 4)
        reload("[relay]\nmax_sessions = 7\nmax_sessions_per_peer = 2\n")
        wait_until(lambda: limits() == (7, 3), timeout_s=5, what="limits to change")
        reload("[relay]\nmax_sessions = many\n")
        wait_until(lambda: "configuration not reloaded" in node.log(), timeout_s=5, what="complaint")
        for peer in peers:
            assert await peer.connection.echo(b"still here", ECHO_TIMEOUT_S) == b"still here"
            peer.leave()

    assert limits() == (50, 3)
    run_clients(story(), timeout_s=60)
    assert limits() == (7, 3)
    assert node.worker_pids == workers
    assert node.healthy()
