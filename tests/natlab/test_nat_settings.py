"""What the settings of a peer change about real NATs: our peers behind them, our node the only thing they know."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from antquic_server.errors import PeerUnreachableError
from antquic_server.natlab.lab import Lab
from antquic_server.natlab.model import KINDS
from antquic_server.net.sockets import ListenGroup, bind_slots
from antquic_server.peer import sockets
from antquic_server.peer.endpoint import Endpoint
from antquic_server.peer.settings import PeerSettings
from support.node import node_environment

pytestmark = pytest.mark.end_to_end

NODE_PORT = 4433
DISCOVERY_S = 5.0
STORY_TIMEOUT_S = 60.0
LISTEN = {"a": "127.0.0.1:0", "b": "127.0.0.2:0"}
"""By which the endpoints of the two sites are told apart when they bind, which they do elsewhere."""

Story = Callable[[Endpoint, Endpoint], Awaitable[None]]


@pytest.fixture
def meet(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that runs a story with a peer behind each of two NATs and a node with two addresses."""
    addresses = [f"{host}:{NODE_PORT}" for host in lab.addresses.node]

    def bind_behind(listen: Sequence[str], count: int) -> list[ListenGroup]:
        (site,) = [name for name, text in LISTEN.items() if (text,) == tuple(listen)]
        return lab.call(site, lambda: bind_slots(["0.0.0.0:0"], count))

    monkeypatch.setattr(sockets, "bind_slots", bind_behind)

    def run(kind_a: str, kind_b: str, story: Story, *, nodes: int = 2, **settings: object) -> None:
        lab.kind("A", KINDS[kind_a])
        lab.kind("B", KINDS[kind_b])
        _start_node(lab, addresses, tmp_path)
        known = {
            "known_peers": tuple(addresses[:nodes]),
            "discovery_timeout_s": DISCOVERY_S,
            "relay": "never",
        } | settings

        async def main() -> None:
            one = PeerSettings(listen=(LISTEN["a"],), **known)  # type: ignore[arg-type]
            other = PeerSettings(listen=(LISTEN["b"],), **known)  # type: ignore[arg-type]
            async with Endpoint(one) as a, Endpoint(other) as b:
                await story(a, b)

        asyncio.run(asyncio.wait_for(main(), STORY_TIMEOUT_S))

    return run


def _start_node(lab: Lab, addresses: Sequence[str], directory: Path) -> None:
    """Start our node in its namespace and wait until it serves; the lab ends it."""
    command = [sys.executable, "-m", "antquic_server", "serve", "--workers", "1", "--admin", "127.0.0.1:0"]
    command += ["--identity", str(directory / "node.pem"), "--set", "nat.coordination_burst=100"]
    command += [word for address in addresses for word in ("--listen", address)]
    with (directory / "node.log").open("wb") as log:
        process = lab.popen("node", command, stdout=subprocess.PIPE, stderr=log, env=node_environment())
    assert process.stdout is not None
    with process.stdout:
        line = process.stdout.readline()
    assert line, (directory / "node.log").read_text()
    assert json.loads(line)["event"] == "ready"


async def reached(one: Endpoint, other: Endpoint) -> None:
    """Each reaches the other through the node, and bytes pass both ways."""
    connection = await one.connect_peer(other.peer_id)
    assert connection.path == "punched"
    assert await connection.ping() > 0


async def not_reached(one: Endpoint, other: Endpoint) -> None:
    """Neither reaches the other; the reason is the path, and it is told in time."""
    for initiator, target in ((one, other), (other, one)):
        began_s = time.monotonic()
        with pytest.raises(PeerUnreachableError) as caught:
            await initiator.connect_peer(target.peer_id)
        assert caught.value.reason == "no_path"
        assert time.monotonic() - began_s < initiator.settings.discovery_timeout_s + 1


@pytest.mark.parametrize(
    ("kind_a", "kind_b"),
    [
        ("port-restricted", "symmetric-sequential"),
        ("symmetric-sequential", "port-restricted"),
        ("symmetric-sequential", "symmetric-sequential"),
    ],
)
def test_enable_symmetric_nat_gets_through_a_nat_that_counts(
    meet: Callable[..., None], kind_a: str, kind_b: str
) -> None:
    """Whoever asks."""
    meet(kind_a, kind_b, reached)


@pytest.mark.parametrize("kind_a", ["port-restricted", "symmetric-sequential"])
def test_without_enable_symmetric_nat_a_nat_that_counts_keeps_peers_out(meet: Callable[..., None], kind_a: str) -> None:
    """The same two fail, with a reason."""
    meet(kind_a, "symmetric-sequential", not_reached, enable_symmetric_nat=False)


def test_guessing_takes_a_retry_and_room_for_candidates(meet: Callable[..., None]) -> None:
    """The first round has the exact address alone."""
    meet("port-restricted", "symmetric-sequential", not_reached, hole_punch_retries=0)


def test_one_candidate_leaves_no_room_for_guesses(meet: Callable[..., None]) -> None:
    """However many rounds there are."""
    meet("port-restricted", "symmetric-sequential", not_reached, max_candidates=1)


def test_discovery_timeout_ends_an_impossible_attempt(meet: Callable[..., None]) -> None:
    """When the configured time is over, not before."""

    async def story(one: Endpoint, other: Endpoint) -> None:
        began_s = time.monotonic()
        await not_reached(one, other)
        assert 2 * 1.5 <= time.monotonic() - began_s < 2 * 1.5 + 1

    meet("symmetric", "symmetric", story, discovery_timeout_s=1.5)


@pytest.mark.parametrize(
    ("kind", "mapping", "step"),
    [
        ("port-restricted", "endpoint_independent", None),
        ("port-preserving", "endpoint_independent", None),
        ("symmetric-sequential", "dependent", 1),
    ],
)
def test_two_addresses_of_one_node_teach_how_a_nat_maps(
    meet: Callable[..., None], kind: str, mapping: str, step: int | None
) -> None:
    """Before anybody is asked for; one address teaches nothing."""

    async def story(one: Endpoint, _other: Endpoint) -> None:
        statistics = one.stats()
        assert (statistics.nat_mapping, statistics.nat_port_step) == (mapping, step)

    meet(kind, "full-cone", story)


def test_one_address_teaches_nothing(meet: Callable[..., None]) -> None:
    """There is nothing to compare."""

    async def story(one: Endpoint, _other: Endpoint) -> None:
        assert one.stats().nat_mapping == "unknown"

    meet("symmetric-sequential", "full-cone", story, nodes=1)
