"""Our peers behind real NATs that nothing punches through: a node carries them, and lets go when it is not needed."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from pathlib import Path

import pytest

from antquic_server.natlab.lab import Lab
from antquic_server.natlab.model import KINDS
from antquic_server.net.sockets import ListenGroup, bind_slots
from antquic_server.peer import sockets
from antquic_server.peer.connection import PeerConnection
from antquic_server.peer.endpoint import Endpoint
from antquic_server.peer.settings import PeerSettings
from support.node import node_environment

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

NODE_PORT = 4433
DISCOVERY_S = 3.0
STORY_TIMEOUT_S = 60.0
DATA_BYTES = 1_000_000
LISTEN = {"a": "127.0.0.1:0", "b": "127.0.0.2:0"}
"""By which the endpoints of the two sites are told apart when they bind, which they do elsewhere."""

Story = Callable[[Endpoint, Endpoint], Awaitable[None]]


@pytest.fixture
def meet(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, Story], None]:
    """Return a function that runs a story with a peer behind each of two NATs and a node."""
    address = f"{lab.addresses.node[0]}:{NODE_PORT}"

    def bind_behind(listen: Sequence[str], count: int) -> list[ListenGroup]:
        (site,) = [name for name, text in LISTEN.items() if (text,) == tuple(listen)]
        return lab.call(site, lambda: bind_slots(["0.0.0.0:0"], count))

    monkeypatch.setattr(sockets, "bind_slots", bind_behind)

    def run(kind_a: str, kind_b: str, story: Story) -> None:
        lab.kind("A", KINDS[kind_a])
        lab.kind("B", KINDS[kind_b])
        _start_node(lab, address, tmp_path)

        async def main() -> None:
            one, other = (
                PeerSettings(listen=(LISTEN[site],), known_peers=(address,), discovery_timeout_s=DISCOVERY_S)
                for site in ("a", "b")
            )
            async with Endpoint(one) as a, Endpoint(other) as b:
                await story(a, b)

        asyncio.run(asyncio.wait_for(main(), STORY_TIMEOUT_S))

    return run


def _start_node(lab: Lab, address: str, directory: Path) -> None:
    """Start our node in its namespace and wait until it serves; the lab ends it."""
    command = [sys.executable, "-m", "antquic_server", "serve", "--workers", "1", "--admin", "127.0.0.1:0"]
    command += ["--identity", str(directory / "node.pem"), "--set", "nat.coordination_burst=100"]
    command += ["--set", "relay.bandwidth_per_peer_bytes_per_s=50000000", "--listen", address]
    with (directory / "node.log").open("wb") as log:
        process = lab.popen("node", command, stdout=subprocess.PIPE, stderr=log, env=node_environment())
    assert process.stdout is not None
    with process.stdout:
        line = process.stdout.readline()
    assert line, (directory / "node.log").read_text()
    assert json.loads(line)["event"] == "ready"


async def deliver(sender: PeerConnection, receiver: PeerConnection) -> None:
    """Send a stream and have every byte of it arrive."""
    data = os.urandom(DATA_BYTES)

    async def read() -> bytes:
        stream, digest = await receiver.accept_stream(), sha256()
        while part := await stream.read():
            digest.update(part)
        return digest.digest()

    reading = asyncio.create_task(read())
    stream = await sender.open_stream()
    await stream.write(data)
    await stream.close()
    assert await reading == sha256(data).digest()


@pytest.mark.parametrize(
    ("kind_a", "kind_b"),
    [("symmetric", "symmetric"), ("symmetric", "port-restricted"), ("cgnat-symmetric", "symmetric")],
)
def test_what_cannot_be_punched_is_carried(meet: Callable[[str, str, Story], None], kind_a: str, kind_b: str) -> None:
    """Bytes arrive both ways, and both ends know how and why."""

    async def story(one: Endpoint, other: Endpoint) -> None:
        began_s = time.monotonic()
        here = await one.connect_peer(other.peer_id)
        took_s = time.monotonic() - began_s
        there = await other.accept()
        assert (here.path, there.path) == ("relayed", "relayed")
        assert here.why_not_direct == "no_path"
        assert took_s < DISCOVERY_S + 2
        await asyncio.gather(deliver(here, there), deliver(there, here))

    meet(kind_a, kind_b, story)


def test_a_firewall_that_opens_makes_it_direct(meet: Callable[[str, str, Story], None], lab: Lab) -> None:
    """Real NATs, a rule between the two sites that is taken away: the same connection goes on by the direct path."""

    async def story(one: Endpoint, other: Endpoint) -> None:
        lab.block_udp("A", remote=lab.addresses.routers["B"])
        here = await one.connect_peer(other.peer_id)
        there = await other.accept()
        assert (here.path, there.path) == ("relayed", "relayed")
        link = here.link_number
        lab.unblock_udp("A")
        moving = asyncio.gather(here.wait_for_path("punched"), there.wait_for_path("punched"))
        while not moving.done():
            await asyncio.gather(deliver(here, there), deliver(there, here))
        await moving
        await deliver(here, there)
        assert here.link_number == link
        assert one.stats().moved_to_direct == other.stats().moved_to_direct == 1

    meet("port-restricted", "port-restricted", story)
