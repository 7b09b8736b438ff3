"""``antquic-server peer``, as processes on loopback."""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from antquic_server.cli import main
from antquic_server.commands.peer_actions import (
    _receive,
    _receive_from,
    _Reporter,
    _watch,
    describe_nat,
    path_facts,
    why,
)
from antquic_server.errors import PeerError
from antquic_server.peer.endpoint import Endpoint
from antquic_server.peer.files import MAGIC, send_file
from antquic_server.peer.punching import Failure
from support.json_lines import JsonLineProcess
from support.node import REPOSITORY, StartNode, node_environment
from support.peers import Couple, eventually, loopback, with_couple
from support.virtual_network import Dependence, NatKind, VirtualNetwork

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
    """There is nothing above direct; a relay is named, and what punching has failed of, if we have tried."""

    def said(path: str, *, node: bytes | None = None, reason: Failure | None = None) -> str:
        connection: Any = SimpleNamespace(path=path, relayed_by=node, why_not_direct=reason)
        facts = path_facts(connection)
        assert (facts["path"], facts["why"]) == (path, why(connection))
        assert facts["relayed_by"] == (None if node is None else node.hex())
        assert facts["why_not_direct"] == reason
        return why(connection)

    assert "nothing better" in said("direct")
    assert "not direct" in said("punched")
    assert "the other side has asked" in said("relayed")
    assert "carried by a node; not punched: no_path: both sides dialled" in said("relayed", reason=Failure.NO_PATH)
    assert "carried by the node 0707" in said("relayed", node=b"\x07" * 32, reason=Failure.COORDINATOR_SILENT)


@pytest.mark.parametrize(
    ("kind", "nodes", "expected"),
    [
        (None, 1, "two --via addresses would tell"),
        (None, 2, "easy to punch through"),
        (NatKind(mapping=Dependence.NOTHING, filtering=Dependence.ADDRESS_AND_PORT), 2, "easy to punch through"),
        (NatKind(mapping=Dependence.ADDRESS_AND_PORT, filtering=Dependence.ADDRESS_AND_PORT), 2, "without an order"),
        (NatKind(mapping=Dependence.ADDRESS_AND_PORT, filtering=Dependence.NOTHING, step=2), 2, "2 apart"),
    ],
)
def test_our_nat_is_described_as_far_as_it_is_known(kind: NatKind | None, nodes: int, expected: str) -> None:
    """From what one or two nodes have told."""
    network = VirtualNetwork(seed=3)
    for _ in range(nodes):
        network.add_node()

    assert expected in describe_nat(network.add_host(kind).core.statistics())


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
    alive = dialler.event("alive")
    assert 0 < alive["round_trip_s"] < 5
    assert alive["peer_id"] == ready["peer_id"]
    assert alive["path_mtu_bytes"] >= 1200
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
    sent = sender.event("sent")
    assert (sent["sha256"], sent["path"]) == (digest, "punched")
    assert "introduced by a node" in sent["why"]
    assert receiver.event("received")["sha256"] == digest
    assert sender.wait(timeout_s=TIMEOUT_S) == 0
    assert receiver.wait(timeout_s=TIMEOUT_S) == 0
    assert (inbox / "data.bin").read_bytes() == source.read_bytes()


def test_receiving_ends_when_nobody_is_let_in_any_more(tmp_path: Path) -> None:
    """With the error, instead of waiting for ever for files of nobody."""

    class Broken:
        def incoming(self) -> AsyncIterator[None]:
            raise RuntimeError("a mistake of ours")

    async def story() -> None:
        endpoint: Any = Broken()
        arguments = argparse.Namespace(words=[str(tmp_path)], count=1)
        async with asyncio.timeout(TIMEOUT_S):
            await _receive(endpoint, arguments, _Reporter(as_json=True))

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(story())
    assert caught.group_contains(RuntimeError, match="a mistake of ours")


def receiving(couple: Couple, directory: Path) -> "asyncio.Task[None]":
    """Receive files from one side of a couple, as the command does."""
    files: asyncio.Queue[None] = asyncio.Queue()
    return asyncio.create_task(_receive_from(couple.there, directory, files, _Reporter(as_json=True)))


def test_whoever_sends_no_file_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Instead of being left to write into nothing; the next file of the same peer is stored."""
    source, inbox = tmp_path / "a", tmp_path / "inbox"
    source.write_bytes(b"x" * 1000)
    inbox.mkdir()

    async def story(couple: Couple) -> None:
        receiver = receiving(couple, inbox)
        stream = await couple.here.open_stream()
        async with asyncio.timeout(TIMEOUT_S):
            with pytest.raises(PeerError, match="the peer has given the stream up"):
                await stream.write(bytes(40_000_000))
            await send_file(couple.here, source, lambda *_: None)
        await couple.here.close()
        await receiver

    with_couple(story)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["failed", "received"]
    assert events[0]["reason"] == "what arrives is no file"
    assert [item.name for item in inbox.iterdir()] == ["a"]


def test_a_sender_that_leaves_in_mid_file_is_a_failed_transfer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is reported, and nothing is left behind."""

    async def story(couple: Couple) -> None:
        receiver = receiving(couple, tmp_path)
        stream = await couple.here.open_stream()
        await stream.write(MAGIC + b"\0\1a" + (1000).to_bytes(8, "big") + b"123")
        await eventually(lambda: list(tmp_path.iterdir()), what="begin of the transfer")
        await couple.here.close(5, "had enough")
        await receiver

    with_couple(story)
    (event,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert event["event"] == "failed"
    assert "had enough" in event["reason"]
    assert list(tmp_path.iterdir()) == []


def test_a_close_reason_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Nor pretend to be a line of ours; programs get it as it is."""
    reason = "bye\x1b[2J\nconnected to FAKE at 192.0.2.1:5: direct \x1b]0;owned\x07"

    async def story(couple: Couple) -> None:
        watchers = [asyncio.create_task(_watch(couple.there, _Reporter(as_json=form))) for form in (False, True)]
        await couple.here.close(5, reason)
        await asyncio.gather(*watchers)

    with_couple(story)
    text, document = capsys.readouterr().out.splitlines()
    assert text.isprintable()
    assert r"is gone: bye\x1b[2J\nconnected to FAKE" in text
    assert json.loads(document)["reason"] == reason


@pytest.mark.end_to_end
@pytest.mark.parametrize("size", [100, 3_000_000])
def test_a_file_for_somebody_who_takes_none_fails_at_once(
    start_node: StartNode, peer: Any, tmp_path: Path, size: int
) -> None:
    """The sender is told so, in one line, however short the file is; the listener goes on."""
    node = start_node()
    source = tmp_path / "data.bin"
    source.write_bytes(bytes(size))
    listener = peer("listen", "--via", node.address)
    sender = peer("send", str(source), listener.event("ready")["peer_id"], "--via", node.address)

    assert sender.wait(timeout_s=TIMEOUT_S) == 1
    assert "the peer has given the stream up" in sender.describe()
    assert listener.event("refused")["peer_id"] == sender.event("ready")["peer_id"]
    assert listener.event("disconnected")
    assert listener.running


@pytest.mark.end_to_end
@pytest.mark.parametrize("form", [["--json"], []], ids=["json", "text"])
def test_a_file_whose_name_is_no_text_is_sent(peer: Any, tmp_path: Path, form: list[str]) -> None:
    """Without a traceback; its name is shown with escapes."""
    source, inbox = tmp_path / os.fsdecode(b"bad\xff.txt"), tmp_path / "inbox"
    source.write_bytes(b"x")
    inbox.mkdir()
    receiver = peer("receive", str(inbox))
    (address,) = receiver.event("ready")["addresses"]

    command = [sys.executable, "-m", "antquic_server", "peer", "send", str(source), address, "--listen", "127.0.0.1:0"]
    environment = node_environment() | {"PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [*command, *form],
        env=environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert r"bad\udcff.txt" in done.stdout
    assert receiver.event("received")["bytes"] == 1


@pytest.mark.end_to_end
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_tells_the_peers_and_leaves_no_half_of_a_file(peer: Any, tmp_path: Path, number: int) -> None:
    """And is what the exit code says."""
    receiver = peer("receive", str(tmp_path))
    (address,) = receiver.event("ready")["addresses"]

    async def story() -> None:
        async with Endpoint(loopback()) as sender:
            connection = await sender.connect(address)
            stream = await connection.open_stream()
            await stream.write(MAGIC + b"\0\1a" + (1 << 30).to_bytes(8, "big") + bytes(100_000))
            await eventually(lambda: list(tmp_path.iterdir()), what="begin of the transfer")
            receiver.process.send_signal(number)
            async with asyncio.timeout(TIMEOUT_S):
                await connection.closed.wait()
            assert connection.close_reason == "PeerShutdown"

    asyncio.run(story())
    assert receiver.wait(timeout_s=TIMEOUT_S) == 128 + number
    assert list(tmp_path.iterdir()) == []


@pytest.mark.end_to_end
def test_text_is_for_people(start_node: StartNode, capsys: pytest.CaptureFixture[str]) -> None:
    """A node can be dialled by its address; without --json there is no JSON."""
    node = start_node(arguments=["--listen", "127.0.0.2:0"])
    other_address = next(item for item in node.ready["listen"] if item != node.address)

    via = ["--via", node.address, "--via", other_address]
    assert main(["peer", "connect", node.address, *via, "--listen", "0.0.0.0:0"]) == 0
    text = capsys.readouterr().out
    assert f"connected to {node.peer_id} at {node.address}: direct" in text
    assert "bytes pass both ways: round trip" in text
    assert "our NAT  none, or one that shows everybody the same address" in text
    with pytest.raises(json.JSONDecodeError):
        json.loads(text.splitlines()[0])
