"""What a punched path between two of our peers bears: silence, NATs that forget, lost packets."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path

import pytest

from antquic_server.errors import PeerError
from antquic_server.natlab.json_process import JsonProcess, Message
from antquic_server.natlab.lab import Lab
from antquic_server.natlab.model import KINDS, Filtering, Kind, Mapping, Nat
from antquic_server.peer.connection import PeerConnection
from antquic_server.peer.endpoint import Endpoint
from antquic_server.peer.settings import PeerSettings
from support.behind_nats import Meet, start_lab_node
from support.node import node_environment

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

TRANSFER_BYTES = 8_000_000
CHUNK_BYTES = 100_000
TRANSFER_TIMEOUT_S = 60.0
FILE_BYTES = 10_000_000
FILE_TIMEOUT_S = 120.0
LOSS_PER_MILLE = 20
SETTLED_S = 1.0
MEETING_S = 30.0
"""How long the two have to meet, which is not what is tested here."""
KEEP_ALIVE_S = PeerSettings().keep_alive_s


async def met(one: Endpoint, other: Endpoint) -> tuple[PeerConnection, PeerConnection]:
    """Return both ends of a punched connection over which bytes have passed."""
    here = await one.connect_peer(other.peer_id)
    there = await other.accept()
    assert (here.path, there.path) == ("punched", "punched")
    assert await here.ping() > 0
    return here, there


@pytest.mark.parametrize("asking", ["a", "b"])
def test_peers_behind_ipv6_firewalls_meet(
    lab_v6: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asking: str
) -> None:
    """Nothing is translated, but strangers are dropped: neither could be dialled without the other dialling too."""

    async def story(one: Endpoint, other: Endpoint) -> None:
        ends = (one, other) if asking == "a" else (other, one)
        stranger = await asyncio.to_thread(lab_v6.udp_socket, "node", ("2001:2::2", 0))
        stranger.sendto(bytes(1200), (lab_v6.addresses.hosts_v6["b" if asking == "a" else "a"], port_of(ends[1])))
        here, there = await met(*ends)
        assert there.remote_address[0] == lab_v6.addresses.hosts_v6[asking]
        assert here.remote_address[0] == lab_v6.addresses.hosts_v6["b" if asking == "a" else "a"]
        assert ends[1].stats().drops.get("not_quic", 0) == 0

    Meet(lab_v6, tmp_path, monkeypatch, ipv6=True)(
        "port-restricted", "port-restricted", story, discovery_timeout_s=MEETING_S
    )


def port_of(endpoint: Endpoint) -> int:
    """Return the port an endpoint is bound to."""
    return endpoint.addresses[0].port


# Silence.


def symmetric(lifetime_s: int) -> Kind:
    """Return a NAT where nothing but the flow itself keeps its mapping."""
    return Kind(name="", nat=Nat(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, lifetime_s=lifetime_s))


def address_restricted(lifetime_s: int) -> Kind:
    """Return a NAT that lets in only whom its host has sent to lately."""
    return Kind(name="", nat=Nat(filtering=Filtering.ADDRESS_DEPENDENT, lifetime_s=lifetime_s))


def in_silence(meet: Meet, *, lifetime_s: int, silence_s: float, then: str, keep_alive_s: float = KEEP_ALIVE_S) -> None:
    """Let two peers meet and say nothing; then each of them speaks first, and is heard or not."""

    async def story(one: Endpoint, other: Endpoint) -> None:
        ends = await met(one, other)
        # Silence is what is tested here: nothing can be observed without ending it. Both sides have dialled, and the
        # second handshake may end a moment after the first.
        await asyncio.sleep(SETTLED_S)
        before = [endpoint.stats().successful_connections for endpoint in (one, other)]
        await asyncio.sleep(silence_s - SETTLED_S)
        if then == "heard":
            for speaker in reversed(ends):
                assert await speaker.ping() > 0
            assert [endpoint.stats().successful_connections for endpoint in (one, other)] == before
        else:
            with pytest.raises(PeerError, match="no bytes pass"):
                await ends[1].ping(timeout_s=1.0)

    meet(
        symmetric(lifetime_s),
        address_restricted(lifetime_s),
        story,
        keep_alive_s=keep_alive_s,
        discovery_timeout_s=MEETING_S,
    )


@pytest.mark.slow
def test_keepalives_hold_mappings_of_thirty_seconds(meet: Meet) -> None:
    """With the settings there are by default, half a minute and more after the last word."""
    in_silence(meet, lifetime_s=30, silence_s=45.0, then="heard")


def test_keepalives_hold_short_mappings(meet: Meet) -> None:
    """``keep_alive_s`` below the lifetime is enough."""
    in_silence(meet, lifetime_s=6, silence_s=13.0, then="heard", keep_alive_s=1.0)


def test_without_keepalives_mappings_are_lost(meet: Meet) -> None:
    """Nobody is heard: it is the keepalives that hold them."""
    in_silence(meet, lifetime_s=3, silence_s=8.0, then="not heard", keep_alive_s=0)


# NATs that forget.


@pytest.mark.parametrize(
    ("kind_a", "kind_b", "forgetful", "sending"),
    [
        # The other side's NAT lets in whoever comes from the old address: QUIC follows.
        ("port-restricted", "full-cone", "A", "a"),
        ("symmetric", "address-restricted", "A", "b"),
        # It filters by port, and would drop everything for ever.
        ("port-restricted", "port-restricted", "A", "a"),
        ("port-restricted", "port-restricted", "A", "b"),
        ("symmetric", "address-restricted", "B", "a"),
        ("cgnat", "port-restricted", "A", "b"),
    ],
)
def test_rebinding_in_mid_transfer_loses_no_byte(
    meet: Meet, kind_a: str, kind_b: str, forgetful: str, sending: str
) -> None:
    """Either side's NAT gives out new ports while either side sends; the one stream goes on to its end."""
    data = os.urandom(TRANSFER_BYTES)

    async def story(one: Endpoint, other: Endpoint) -> None:
        ends = dict(zip("ab", await met(one, other), strict=True))
        sender, receiver = ends[sending], ends["b" if sending == "a" else "a"]
        old = ends["b" if forgetful == "A" else "a"].remote_address
        reading = asyncio.create_task(receive(receiver))
        stream = await sender.open_stream()
        for start in range(0, TRANSFER_BYTES, CHUNK_BYTES):
            await stream.write(data[start : start + CHUNK_BYTES])
            if start == TRANSFER_BYTES // 2:
                await asyncio.to_thread(meet.lab.rebind, forgetful)
        await stream.close()

        assert await reading == data
        new = ends["b" if forgetful == "A" else "a"].remote_address
        assert new[0] == old[0]
        assert new[1] != old[1]
        assert await sender.ping() > 0

    async def receive(connection: PeerConnection) -> bytes:
        stream, received = await connection.accept_stream(), bytearray()
        while part := await stream.read():
            received += part
        return bytes(received)

    async def in_time(one: Endpoint, other: Endpoint) -> None:
        await asyncio.wait_for(story(one, other), TRANSFER_TIMEOUT_S)

    meet(kind_a, kind_b, in_time, discovery_timeout_s=MEETING_S)


# Files, with the command.


class PeerCommand(JsonProcess):
    """One ``antquic-server peer`` inside the lab, with ``--json``."""

    def __init__(self, lab: Lab, role: str, words: list[str], directory: Path) -> None:
        command = [sys.executable, "-m", "antquic_server", "peer", *words, "--json"]
        log = directory / f"peer-{role}.log"
        super().__init__(lab, role, command, environment=node_environment(), directory=directory, log=log)

    def event(self, name: str, timeout_s: float = 30.0) -> Message:
        """Return the first event of that name, waiting for it."""
        return self.wait_for(lambda message: message.get("event") == name, what=name, timeout_s=timeout_s)


@pytest.fixture
def command(lab: Lab, tmp_path: Path) -> Iterator[Callable[[str, list[str]], PeerCommand]]:
    """Return a function that runs ``antquic-server peer`` on a host; all of them end with the test."""
    with ExitStack() as stack:

        def run(role: str, words: list[str]) -> PeerCommand:
            process = PeerCommand(lab, role, words, tmp_path)
            stack.callback(process.stop, signal.SIGTERM)
            return process

        yield run


def test_file_crosses_a_punched_path_with_two_percent_loss(
    lab: Lab, tmp_path: Path, command: Callable[[str, list[str]], PeerCommand]
) -> None:
    """Ten megabytes, by the commands an operator has; both say how they got through and why not better."""
    lab.kind("A", KINDS["port-restricted"])
    lab.kind("B", KINDS["port-restricted"])
    via = ["--via", start_lab_node(lab, tmp_path)[0]]
    file, inbox = tmp_path / "file", tmp_path / "inbox"
    file.write_bytes(os.urandom(FILE_BYTES))
    inbox.mkdir()
    lab.loss("A", per_mille=LOSS_PER_MILLE)

    receiving = command("b", ["receive", str(inbox), *via])
    sending = command("a", ["send", str(file), receiving.event("ready")["peer_id"], *via])
    sent, received = sending.event("sent", FILE_TIMEOUT_S), receiving.event("received", FILE_TIMEOUT_S)

    digest = sha256(file.read_bytes()).hexdigest()
    assert sha256((inbox / "file").read_bytes()).hexdigest() == digest
    assert (sent["sha256"], received["sha256"]) == (digest, digest)
    assert (sent["bytes"], received["bytes"]) == (FILE_BYTES, FILE_BYTES)
    for said in (sending.event("connected"), receiving.event("connected"), sent, received):
        assert said["path"] == "punched"
        assert said["why"].startswith("introduced by a node")
    assert lab.addresses.routers["B"] in sending.event("connected")["remote"]
    lost = lab.run("A", ["nft", "list", "table", "inet", "loss"])
    assert "numgen random mod 1000 < 20 drop" in lost


def test_peer_that_cannot_be_reached_is_told_why(
    lab: Lab, tmp_path: Path, command: Callable[[str, list[str]], PeerCommand]
) -> None:
    """In the time that was given, with what to do about it, and no other way: no node may carry it."""
    lab.kind("A", KINDS["symmetric"])
    lab.kind("B", KINDS["symmetric"])
    via = ["--via", start_lab_node(lab, tmp_path)[0]]
    waiting = command("b", ["listen", *via])

    asking = command("a", ["connect", waiting.event("ready")["peer_id"], "--timeout", "4", "--relay", "never", *via])

    said = asking.event("unreachable")
    assert said["reason"] == "no_path"
    assert "forward a UDP port" in said["advice"]
    assert not waiting.find(lambda message: message.get("event") == "connected")


def test_blocked_udp_is_told_apart(lab: Lab, tmp_path: Path) -> None:
    """Not even the node is reached: the address is named, and the exit code is 1."""
    via = start_lab_node(lab, tmp_path)[0]
    lab.kind("A", KINDS["udp-blocked"])

    words = ["listen", "--via", via, "--set", "pqc.handshake_timeout_multiplier=1"]
    ended = lab.popen(
        "a",
        [sys.executable, "-m", "antquic_server", "peer", *words],
        stderr=subprocess.PIPE,
        env=node_environment(),
        text=True,
    )

    _, complaint = ended.communicate(timeout=30.0)
    assert ended.returncode == 1
    assert f"cannot reach {via}: dial_timeout" in complaint
