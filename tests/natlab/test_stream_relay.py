"""Real ant-quic peers, unchanged, that cannot reach each other: their traffic passes through our node."""

import json
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from antquic_server.natlab.json_process import JsonProcess
from antquic_server.natlab.lab import Lab
from antquic_server.natlab.meeting import host_of
from antquic_server.natlab.model import KINDS
from support.lab_peers import LabPeer, lab_node, lab_peer
from support.waiting import wait_until

pytestmark = [pytest.mark.end_to_end, pytest.mark.peers, pytest.mark.slow]

NODE = "198.18.0.1:4433"
SECOND_NODE = "198.18.0.2:4434"
PAIRS = 20
PAYLOAD_BYTES = 1_000_000
LOST_BY_ITSELF = 3

COUNTERS = ("--counter-test", "--counter-interval", "200")
WELL_PAID = ("--set", "relay.bandwidth_per_peer_bytes_per_s=100000000")
"""A megabyte of test data is 3.5 megabytes of JSON, and the default would make it take its time."""


@pytest.fixture
def divided_lab(lab: Lab) -> Lab:
    """A full cone NAT and one that admits nobody unasked, with no UDP between the two."""
    lab.kind("A", KINDS["full-cone"])
    lab.kind("B", KINDS["port-restricted"])
    lab.block_udp("B", remote=lab.addresses.routers["A"])
    return lab


def relay_status(lab: Lab, node: JsonProcess) -> dict[str, Any]:
    """The relay's part of ``/status``."""
    ready = next(message for message in node.messages if message.get("event") == "ready" and "admin" in message)

    def ask() -> dict[str, Any]:
        with urlopen(f"{ready['admin']}/status", timeout=5.0) as response:
            document: dict[str, Any] = json.load(response)
            return document

    relay: dict[str, Any] = lab.call("node", ask)["relay"]
    return relay


def session_address(*nodes: JsonProcess) -> str:
    """Where the first session that one of the nodes has opened is reached; empty while there is none."""
    for node in nodes:
        for message in node.messages:
            if message.get("event") == "relay session opened":
                return str(message["address"])
    return ""


def test_pair_is_relayed_and_counters_pass(divided_lab: Lab, tmp_path: Path) -> None:
    """The initiator calls the connection relayed, and each side gets the other's counters."""
    lab = divided_lab
    with (
        lab_node(lab, tmp_path, NODE, arguments=("--workers", "2")) as node,
        lab_peer(lab, "a", tmp_path, [NODE], *COUNTERS) as target,
    ):
        address = target.outside_address
        with lab_peer(lab, "b", tmp_path, [NODE], "--connect", address, *COUNTERS) as initiator:
            connected = initiator.wait("peer_connected", target.peer_id)
            assert connected["connection_type"] == "relayed"
            initiator.wait("counter_received", target.peer_id)
            target.wait("counter_received", initiator.peer_id)
            assert relay_status(lab, node)["sessions"]["stream"] == 1
        # With its peer the session ends; the node knows at the latest when the connection idles out.
        assert session_address(node).startswith("198.18.0.1:")


def test_data_arrives_unharmed(divided_lab: Lab, tmp_path: Path) -> None:
    """
    ``--send-to`` says that every checksum was right, and so does the receiver.

    The node listens on all its addresses: the session is at the one that its peer has dialled.
    """
    lab = divided_lab
    everywhere, dialled = "0.0.0.0:4433", "198.18.0.2:4433"
    with (
        lab_node(lab, tmp_path, everywhere, arguments=("--workers", "2", *WELL_PAID)) as node,
        lab_peer(lab, "a", tmp_path, [dialled], "--verify-data") as target,
    ):
        send = ("--send-to", target.peer_id, "--generate-data", str(PAYLOAD_BYTES))
        with lab_peer(lab, "b", tmp_path, [dialled], "--connect", target.outside_address, *send) as initiator:
            sent = initiator.wait("send_to_complete", timeout_s=90.0)
            assert sent["sha_ok"] is True
            assert sent["failures"] == 0
            assert initiator.wait("peer_connected", target.peer_id)["connection_type"] == "relayed"
            assert session_address(node).startswith("198.18.0.2:")
            # The receiver has two readers that share what arrives, and only one of them checks sums. Each gives up
            # after a moment and begins again, and now and then drops what it has just been given.
            wait_until(
                lambda: len(target.events("data_received")) >= sent["chunks"] - LOST_BY_ITSELF,
                timeout_s=30.0,
                what="chunks at the receiver",
            )
            checked = [message["sha_match"] for message in target.events("data_received") if "sha_match" in message]
            assert checked
            assert all(checked)


@pytest.mark.slow
def test_twenty_pairs_at_once(divided_lab: Lab, tmp_path: Path) -> None:
    """All of them over two workers: every pair relayed, counters both ways."""
    lab = divided_lab
    with ExitStack() as stack:
        node = stack.enter_context(lab_node(lab, tmp_path, NODE, arguments=("--workers", "2")))
        targets = [_start(stack, lab, "a", number, tmp_path) for number in range(PAIRS)]
        addresses = [target.outside_address for target in targets]
        initiators = [
            _start(stack, lab, "b", number, tmp_path, "--connect", address) for number, address in enumerate(addresses)
        ]
        for target, initiator in zip(targets, initiators, strict=True):
            assert initiator.wait("peer_connected", target.peer_id, timeout_s=60.0)["connection_type"] == "relayed"
            initiator.wait("counter_received", target.peer_id, timeout_s=30.0)
            target.wait("counter_received", initiator.peer_id, timeout_s=30.0)
        assert relay_status(lab, node)["sessions"]["stream"] == PAIRS
        slots = {message["slot"] for message in node.messages if message.get("event") == "relay session opened"}
        assert slots == {0, 1}


def _start(stack: ExitStack, lab: Lab, role: str, number: int, directory: Path, *arguments: str) -> LabPeer:
    name = f"peer-{role}-{number}"
    return stack.enter_context(lab_peer(lab, role, directory, [NODE], *arguments, *COUNTERS, name=name))


@pytest.mark.parametrize("by_peer_id", [False, True], ids=["address", "peer-id"])
def test_listener_behind_a_symmetric_nat_is_reached(lab: Lab, tmp_path: Path, by_peer_id: bool) -> None:
    """
    A peer that two nodes see at different ports asks for a session by itself; a stranger reaches it there.

    It is told the address by somebody, or only the peer's id: then the node names the address in its introduction.

    ant-quic 0.27.44 accepts connections through its session only if it could not open a socket for each address
    family (docs/wire.md), so both are taken before it starts.
    """
    lab.kind("A", KINDS["symmetric"])
    lab.kind("B", KINDS["port-restricted"])
    lab.block_udp("B", remote=lab.addresses.routers["A"])
    with ExitStack() as stack:
        port = _port_it_cannot_have(stack, lab, "a")
        first = stack.enter_context(lab_node(lab, tmp_path, NODE))
        second = stack.enter_context(lab_node(lab, tmp_path, SECOND_NODE, name="second-node"))
        listen = f"{lab.addresses.hosts['a']}:{port}"
        known = [NODE, SECOND_NODE]
        listener = stack.enter_context(lab_peer(lab, "a", tmp_path, known, "--listen", listen, *COUNTERS))
        address = wait_until(lambda: session_address(first, second), timeout_s=20.0, what="session of the listener")
        whom = ("--connect-peer-id", listener.peer_id) if by_peer_id else ("--connect", address)
        stranger = stack.enter_context(lab_peer(lab, "b", tmp_path, [NODE], *whom, *COUNTERS))
        connected = stranger.wait("peer_connected", listener.peer_id)
        assert host_of(str(connected["addr"])) == address.rpartition(":")[0]
        assert str(connected["addr"]).endswith(":" + address.rpartition(":")[2])
        stranger.wait("counter_received", listener.peer_id)
        listener.wait("counter_received", stranger.peer_id)


def _port_it_cannot_have(stack: ExitStack, lab: Lab, role: str) -> int:
    """Take a port of a host, of both families, but not at the address the peer will name."""

    def take() -> tuple[socket.socket, socket.socket]:
        ipv4 = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        ipv6 = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        ipv4.bind(("127.0.0.1", 0))
        ipv6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        ipv6.bind(("::", ipv4.getsockname()[1]))
        return ipv4, ipv6

    ipv4, ipv6 = lab.call(role, take)
    stack.callback(ipv4.close)
    stack.callback(ipv6.close)
    return int(ipv4.getsockname()[1])
