"""A node and real ant-quic peers inside a NAT lab, each with a home of its own."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from antquic_server.natlab.json_process import JsonProcess, Message
from antquic_server.natlab.lab import Lab
from support.ant_quic import find_program
from support.node import node_environment
from support.require import require

__all__ = ["LabPeer", "lab_node", "lab_peer"]

BOOT_TIMEOUT_S = 30.0
MEETING_TIMEOUT_S = 40.0
"""Two seconds of dialling directly, ten of waiting for the relay, and thirty until a peer gives up."""

PRINTED_ID_DIGITS = 16


class LabPeer:
    """One running ``ant-quic``."""

    def __init__(self, process: JsonProcess) -> None:
        self.process = process

    @property
    def peer_id(self) -> str:
        """Its own id, 64 hex digits."""
        return str(self.wait("local_identity", timeout_s=BOOT_TIMEOUT_S)["peer_id"])

    @property
    def outside_address(self) -> str:
        """Where the first node that it was connected to has seen it."""
        found = self.wait("external_address_discovered", timeout_s=BOOT_TIMEOUT_S)
        return str(found["addr"]).removeprefix("udp://")

    def events(self, event: str, other: str | None = None) -> list[Message]:
        """Return the events of one kind so far; with ``other`` only those about that peer."""
        return self.process.find(lambda message: _is_about(message, event, other))

    def wait(self, event: str, other: str | None = None, *, timeout_s: float = MEETING_TIMEOUT_S) -> Message:
        """Wait for an event; LabError if it does not come."""
        return self.process.wait_for(
            lambda message: _is_about(message, event, other), what=f"{event} about {other}", timeout_s=timeout_s
        )


def _is_about(message: Message, event: str, other: str | None) -> bool:
    if message.get("event") != event:
        return False
    return other is None or message.get("peer_id", message.get("peer")) == other[:PRINTED_ID_DIGITS]


@contextmanager
def lab_node(
    lab: Lab, directory: Path, listen: str, *, name: str = "node", arguments: Sequence[str] = ()
) -> Iterator[JsonProcess]:
    """Run a node in the lab's public segment; its log lines are messages of the process."""
    command = [sys.executable, "-m", "antquic_server", "serve", "--listen", listen, "--admin", "127.0.0.1:0"]
    command += ["--identity", str(directory / f"{name}.pem"), "--log-level", "debug", *arguments]
    node = JsonProcess(
        lab, "node", command, environment=node_environment(), directory=directory, log=directory / f"{name}.log"
    )
    try:
        node.wait_for(
            lambda message: message.get("event") == "ready" and "listen" in message,
            what="ready line",
            timeout_s=BOOT_TIMEOUT_S,
        )
        yield node
    finally:
        node.stop(signal.SIGTERM)


@contextmanager
def lab_peer(
    lab: Lab, role: str, directory: Path, known_peers: Sequence[str], *arguments: str, name: str | None = None
) -> Iterator[LabPeer]:
    """Run a peer on a host of the lab; it is ended with force, as its farewell takes seconds."""
    program = find_program("ant-quic")
    require(program, "ant-quic is not built: run `make peers`")
    home = directory / (name or f"peer-{role}")
    home.mkdir()
    command = [str(program), "--no-mdns", "--no-port-mapping", "--no-default-bootstrap", "--json"]
    command += ["--known-peers", ",".join(known_peers), *arguments]
    if "--listen" not in arguments:
        command += ["--listen", "0.0.0.0:0"]
    environment: dict[str, Any] = dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME"), str(home))
    environment |= {"PATH": os.environ.get("PATH", ""), "NO_COLOR": "1"}
    process = JsonProcess(lab, role, command, environment=environment, directory=home, log=home.with_suffix(".log"))
    try:
        yield LabPeer(process)
    finally:
        process.stop(signal.SIGKILL)
