"""The library's peer for the lab, as processes on loopback that report by ant-quic's names."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from antquic_server.natlab.counting_peer import main
from support.json_lines import JsonLineProcess, Message
from support.node import StartNode, node_environment

pytestmark = pytest.mark.end_to_end

TIMEOUT_S = 30.0
PROGRAM = """
import signal
# Whoever runs the tests in the background may have it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
from antquic_server.natlab.counting_peer import main
raise SystemExit(main())
"""
Start = Callable[..., JsonLineProcess]


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that starts a peer which knows a node; all of them end with the test."""
    with ExitStack() as stack:

        def run(node: str, *words: str) -> JsonLineProcess:
            command = [
                sys.executable,
                "-c",
                PROGRAM,
                "--listen",
                "127.0.0.1:0",
                "--known-peers",
                node,
                "--counter-interval",
                "50",
                *words,
            ]
            process = JsonLineProcess(command, environment=node_environment())
            stack.callback(process.stop)
            return process

        yield run


def event(process: JsonLineProcess, name: str, **facts: object) -> Message:
    """Return the first event of that name with these facts, waiting for it."""
    return process.wait_for(
        lambda message: message.get("event") == name and facts.items() <= message.items(),
        timeout_s=TIMEOUT_S,
        what=name,
    )


def test_two_peers_meet_and_count(start_node: StartNode, start: Start) -> None:
    """Each says who it is, how it is seen, whom it meets and how, and what it hears."""
    node = start_node()
    target = start(node.address)
    target_id = event(target, "local_identity")["peer_id"]
    assert event(target, "peer_connected", peer_id=node.peer_id)["connection_type"] == "direct"
    assert event(target, "external_address_discovered")["addr"].startswith("127.0.0.1:")
    initiator = start(node.address, "--connect-peer-id", target_id)
    initiator_id = event(initiator, "local_identity")["peer_id"]

    for process, other in ((initiator, target_id), (target, initiator_id)):
        met = event(process, "peer_connected", peer_id=other)
        assert met["connection_type"] == "nat_traversed"
        assert met["addr"].startswith("udp://127.0.0.1:")
        assert event(process, "counter_received", peer=other)["counter"] >= 1
        assert event(process, "counter_received", peer=other, counter=3)
    initiator.process.send_signal(signal.SIGINT)
    assert initiator.wait(timeout_s=TIMEOUT_S) == 0
    assert event(target, "peer_disconnected", peer_id=initiator_id)["event"]


def test_a_peer_that_is_not_there_is_reported(start_node: StartNode, start: Start) -> None:
    """With the library's word for it."""
    peer = start(start_node().address, "--connect-peer-id", "ab" * 32)

    assert event(peer, "connect_failed", peer_id="ab" * 32)["reason"] == "unknown_target"


def test_without_a_node_it_ends_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The last line says which was not reached; nobody has met anybody."""
    assert main(["--listen", "127.0.0.1:0", "--known-peers", "[::1]:9"]) == 1
    written = capsys.readouterr()
    assert "[::1]:9" in written.err
    assert written.out == ""
