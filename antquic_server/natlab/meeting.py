"""
The trial with programs: two peers that know nobody but the node, each of which may be ant-quic or our own library.

The target connects to the node and waits. The initiator does the same and asks for the target by its id; the node
coordinates. Both send counters of eight bytes, and what counts is that each receives the other's. With another
coordinator than ours in the node's place the same cell shows which failures are the peers' own.
"""

import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import IPv6Address, ip_address
from pathlib import Path

from antquic_server.natlab.json_process import JsonProcess, Message
from antquic_server.natlab.lab import Lab
from antquic_server.natlab.matrix import Cell, Outcome, TrialResult
from antquic_server.natlab.namespaces import LabError
from antquic_server.natlab.programs import AntQuic, PeerProgram, package_environment

__all__ = ["Coordinator", "MeetingTrial", "host_of", "outcome_of"]

COUNTER_BYTES = 8

_NODE_PORT = 4433
_NODE_BOOT_TIMEOUT_S = 30.0
_PEER_BOOT_TIMEOUT_S = 20.0
_MEETING_TIMEOUT_S = 35.0
"""ant-quic gives up looking for an unknown address after 30 seconds, our library after ``nat.discovery_timeout_s``."""

_DELIVERY_TIMEOUT_S = 5.0
_PRINTED_ID_DIGITS = 16  # of a peer id's 64, in every event of ant-quic's but the peer's own

_OUTCOMES = {"direct": Outcome.DIRECT, "nat_traversed": Outcome.PUNCHED, "relayed": Outcome.RELAYED}


class Coordinator(StrEnum):
    """Who is the only known peer."""

    OURS = "antquic-server"
    ANT_QUIC = "ant-quic"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeetingTrial:
    """
    Runs a cell with a program on each side; call it as a ``matrix.Trial``.

    ``node_arguments`` go to our node in addition to its own; ``ant_quic`` is what runs in its place with the other
    coordinator; ``log_directory`` keeps the logs of every process.
    """

    a: PeerProgram
    b: PeerProgram
    coordinator: Coordinator = Coordinator.OURS
    ant_quic: AntQuic | None = None
    node_arguments: Sequence[str] = ()
    log_directory: Path | None = None

    @property
    def relaying(self) -> bool:
        """Whether what cannot go directly has to be carried by the node: if it is ours, and both sides' too."""
        return self.a.relays and self.b.relays and self.coordinator is Coordinator.OURS

    @property
    def prediction(self) -> bool:
        """Whether theory may count on predicted ports: only if both sides predict."""
        return self.a.predicts_ports and self.b.predicts_ports

    def __call__(self, lab: Lab, cell: Cell) -> TrialResult:
        """Run one meeting."""
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="antquic-natlab-")))
            stack.callback(self._keep_logs, directory, cell)
            addresses = stack.enter_context(self._node(lab, directory))
            target = stack.enter_context(self._peer(lab, cell.target, addresses, directory))
            target_id = _own_id(target)
            _wait_registered(target)
            initiator = stack.enter_context(self._peer(lab, cell.initiator, addresses, directory, target_id))
            ids = (_own_id(initiator), target_id)
            result = self._observe(initiator, target, cell, ids, lab.addresses.node)
            return result if result.is_direct_path else _with_evidence(result, lab, cell)

    @property
    def _verbose(self) -> bool:
        return self.log_directory is not None

    def _program(self, role: str) -> PeerProgram:
        return self.a if role == "a" else self.b

    @contextmanager
    def _node(self, lab: Lab, directory: Path) -> Iterator[list[str]]:
        """Run the coordinator; yields the addresses the peers are told."""
        listen = [f"{host}:{_NODE_PORT}" for host in lab.addresses.node]
        if self.coordinator is Coordinator.ANT_QUIC:
            assert self.ant_quic is not None, "somebody must be the coordinator"
            command = self.ant_quic.node_command(f"0.0.0.0:{_NODE_PORT}", verbose=self._verbose)
            with self._process(lab, "node", command, self.ant_quic, directory) as node:
                _own_id(node)
                yield listen[:1]
            return
        log_level = "debug" if self._verbose else "info"
        command = [sys.executable, "-m", "antquic_server", "serve", "--workers", "2", "--admin", "127.0.0.1:0"]
        command += ["--identity", str(directory / "node.pem"), "--log-level", log_level]
        command += [word for address in listen for word in ("--listen", address)]
        node = JsonProcess(
            lab,
            "node",
            [*command, *self.node_arguments],
            environment=package_environment(),
            directory=directory,
            log=directory / "node.log",
            name="antquic-server",
        )
        try:
            node.wait_for(
                lambda message: message.get("event") == "ready" and "listen" in message,
                what="ready line",
                timeout_s=_NODE_BOOT_TIMEOUT_S,
            )
            yield listen
        finally:
            node.stop(signal.SIGTERM)

    @contextmanager
    def _peer(
        self, lab: Lab, role: str, known_peers: Sequence[str], directory: Path, target: str | None = None
    ) -> Iterator[JsonProcess]:
        program = self._program(role)
        command = program.command(known_peers, target, verbose=self._verbose)
        with self._process(lab, role, command, program, directory) as peer:
            yield peer

    @contextmanager
    def _process(
        self, lab: Lab, role: str, command: list[str], program: PeerProgram, directory: Path
    ) -> Iterator[JsonProcess]:
        """Run a peer with a home of its own."""
        home = directory / f"peer-{role}"
        home.mkdir()
        peer = JsonProcess(
            lab,
            role,
            command,
            environment=program.environment(home),
            directory=home,
            log=directory / f"peer-{role}.log",
            name=program.name,
        )
        try:
            yield peer
        finally:
            # In a lab that is over nobody has to say goodbye, for which ant-quic takes five seconds.
            peer.stop(signal.SIGKILL)

    def _keep_logs(self, directory: Path, cell: Cell) -> None:
        if self.log_directory is not None:
            kept = self.log_directory / f"{cell.kind_a.name}-{cell.kind_b.name}-{cell.initiator}"
            kept.mkdir(parents=True, exist_ok=True)
            for log in directory.glob("*.log"):
                shutil.copy(log, kept)

    def _observe(
        self,
        initiator: JsonProcess,
        target: JsonProcess,
        cell: Cell,
        ids: tuple[str, str],
        node_addresses: Sequence[str],
    ) -> TrialResult:
        """Wait for both peers to name each other and for the counters; ``ids`` are the initiator's and the target's."""
        initiator_id, target_id = ids
        started_s = time.monotonic()
        failure = self._program(cell.initiator).failure
        seconds = 0.0
        try:
            _wait_connected(initiator, target_id, failure)
            seconds = time.monotonic() - started_s
            _wait(target, "peer_connected", initiator_id, _DELIVERY_TIMEOUT_S)
            _wait(initiator, "counter_received", target_id, _DELIVERY_TIMEOUT_S)
            _wait(target, "counter_received", initiator_id, _DELIVERY_TIMEOUT_S)
            reason = ""
        except LabError as error:
            # What the peer itself gives as the reason says more than what did not come.
            reason = failure(initiator) or str(error)
            seconds = seconds or time.monotonic() - started_s
        received = len(_events(initiator, "counter_received", target_id))
        received += len(_events(target, "counter_received", initiator_id))
        # Only now: a peer names its connections one after another, and bytes may come before the last name.
        outcome = _outcome(initiator, target_id, node_addresses)
        if outcome is Outcome.RELAYED and not reason:
            reason = _why_relayed(initiator, target_id)
        return TrialResult(outcome=outcome, reason=reason, seconds=seconds, delivered_bytes=received * COUNTER_BYTES)


def outcome_of(connected: Message, node_addresses: Sequence[str]) -> Outcome:
    """
    Tell from a ``peer_connected`` event how a peer got through.

    A connection whose other end is the node's address is relayed, whatever it is called.
    """
    if host_of(str(connected.get("addr", ""))) in node_addresses:
        return Outcome.RELAYED
    return _OUTCOMES.get(str(connected.get("connection_type")), Outcome.FAILED)


def host_of(address: str) -> str:
    """Return the host of an address in the peers' form; an IPv4-mapped one becomes IPv4, a malformed one empty."""
    try:
        host = ip_address(address.removeprefix("udp://").rpartition(":")[0].strip("[]"))
    except ValueError:
        return ""
    mapped = host.ipv4_mapped if isinstance(host, IPv6Address) else None
    return str(mapped or host)


def _outcome(peer: JsonProcess, other_id: str, node_addresses: Sequence[str]) -> Outcome:
    """
    Tell how the initiator got through.

    For one meeting it names up to two connections, its own and the one the target made, which it calls direct.
    """
    named = {outcome_of(message, node_addresses) for message in _events(peer, "peer_connected", other_id)}
    for outcome in (Outcome.PUNCHED, Outcome.DIRECT, Outcome.RELAYED):
        if outcome in named:
            return outcome
    return Outcome.FAILED


def _why_relayed(peer: JsonProcess, other_id: str) -> str:
    connections = _events(peer, "peer_connected", other_id)
    return next((str(item["why_not_direct"]) for item in connections if item.get("why_not_direct")), "")


def _events(peer: JsonProcess, event: str, other_id: str) -> list[Message]:
    return peer.find(lambda message: _is_about(message, event, other_id))


def _wait(peer: JsonProcess, event: str, other_id: str, timeout_s: float) -> None:
    peer.wait_for(lambda message: _is_about(message, event, other_id), what=event, timeout_s=timeout_s)


def _wait_connected(peer: JsonProcess, other_id: str, failure: Callable[[JsonProcess], str]) -> None:
    """Wait until the peer names the other one; a peer that says itself that it has failed is not waited for."""
    peer.wait_for(
        lambda message: _is_about(message, "peer_connected", other_id) or message.get("event") == "connect_failed",
        what="peer_connected",
        timeout_s=_MEETING_TIMEOUT_S,
    )
    if not _events(peer, "peer_connected", other_id):
        raise LabError(failure(peer))


def _is_about(message: Message, event: str, other_id: str) -> bool:
    subject = str(message.get("peer_id", message.get("peer")))
    return message.get("event") == event and subject[:_PRINTED_ID_DIGITS] == other_id[:_PRINTED_ID_DIGITS]


def _with_evidence(result: TrialResult, lab: Lab, cell: Cell) -> TrialResult:
    """Add to the reason which side never sent anything to the other: no NAT is to blame for that."""
    routers = {"a": "A", "b": "B"}
    silent = [
        f"{peer} ({role}) sent nothing to the other side"
        for role, peer, other in (("initiator", cell.initiator, cell.target), ("target", cell.target, cell.initiator))
        if lab.addresses.routers[routers[other]] not in lab.contacts(routers[peer])
    ]
    return replace(result, reason="; ".join([result.reason, *silent]))


def _own_id(peer: JsonProcess) -> str:
    message = peer.wait_for(_is_event("local_identity"), what="local_identity", timeout_s=_PEER_BOOT_TIMEOUT_S)
    return str(message["peer_id"])


def _wait_registered(peer: JsonProcess) -> None:
    """Wait until the peer is connected to the node and knows its outside address: from then on it can be asked for."""
    for event in ("peer_connected", "external_address_discovered"):
        peer.wait_for(_is_event(event), what=event, timeout_s=_PEER_BOOT_TIMEOUT_S)


def _is_event(event: str) -> Callable[[Message], bool]:
    return lambda message: message.get("event") == event
