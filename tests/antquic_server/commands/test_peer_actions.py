"""``antquic-server peer``, as processes on loopback."""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from antquic_server.cli import main
from antquic_server.commands.peer_actions import why
from support.json_lines import JsonLineProcess
from support.node import REPOSITORY, StartNode, node_environment

TIMEOUT_S = 30.0


class PeerCommand(JsonLineProcess):
    """One ``peer`` command with ``--json``."""

    def event(self, name: str) -> dict[str, Any]:
        """Wait for an event."""
        return self.wait_for(lambda message: message.get("event") == name, timeout_s=TIMEOUT_S, what=name)


@pytest.fixture
def peer() -> Iterator[Any]:
    """Return a function that starts a ``peer`` command; all of them end with the test."""
    with ExitStack() as stack:

        def start(*words: str) -> PeerCommand:
            command = [sys.executable, "-m", "antquic_server", "peer", *words, "--listen", "127.0.0.1:0", "--json"]
            process = PeerCommand(command, environment=node_environment(), directory=REPOSITORY)
            stack.callback(lambda: process.stop() if process.running else process.wait(timeout_s=5))
            return process

        yield start


def test_each_path_says_why_it_is_not_better() -> None:
    """There is nothing above direct."""
    assert "nothing better" in why("direct")
    assert "not direct" in why("punched")


@pytest.mark.end_to_end
def test_connect_through_a_node(start_node: StartNode, peer: Any, tmp_path: Path) -> None:
    """Both sides report the connection; the listener keeps its identity in a file."""
    node = start_node()
    identity = tmp_path / "key.pem"
    listener = peer("listen", "--via", node.address, "--identity", str(identity))
    ready = listener.event("ready")
    dialler = peer("connect", ready["peer_id"], "--via", node.address)

    connected = dialler.event("connected")
    assert (connected["peer_id"], connected["path"]) == (ready["peer_id"], "punched")
    assert connected["why"]
    assert dialler.wait(timeout_s=TIMEOUT_S) == 0
    assert listener.event("connected")["peer_id"] == dialler.event("ready")["peer_id"]
    assert listener.event("disconnected")["reason"] == "PeerShutdown"
    assert identity.exists()
    assert ready["external_addresses"]


@pytest.mark.end_to_end
def test_a_file_goes_from_one_to_the_other(start_node: StartNode, peer: Any, tmp_path: Path) -> None:
    """The receiver ends after it, the checksum is the same everywhere."""
    node = start_node()
    source, inbox = tmp_path / "data.bin", tmp_path / "inbox"
    source.write_bytes(bytes(range(256)) * 8192)
    inbox.mkdir()
    receiver = peer("receive", str(inbox), "--via", node.address)
    sender = peer("send", str(source), receiver.event("ready")["peer_id"], "--via", node.address)

    digest = sha256(source.read_bytes()).hexdigest()
    assert sender.event("sent")["sha256"] == digest
    assert receiver.event("received")["sha256"] == digest
    assert sender.wait(timeout_s=TIMEOUT_S) == 0
    assert receiver.wait(timeout_s=TIMEOUT_S) == 0
    assert (inbox / "data.bin").read_bytes() == source.read_bytes()


@pytest.mark.end_to_end
def test_text_is_for_people(start_node: StartNode, capsys: pytest.CaptureFixture[str]) -> None:
    """A node can be dialled by its address; without --json there is no JSON."""
    node = start_node()

    assert main(["peer", "connect", node.address, "--listen", "127.0.0.1:0"]) == 0
    text = capsys.readouterr().out
    assert f"connected to {node.peer_id} at {node.address}: direct" in text
    with pytest.raises(json.JSONDecodeError):
        json.loads(text.splitlines()[0])
