"""Two endpoints of the library behind NATs of the lab, and a node with two addresses that is all they know."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from antquic_server.natlab.lab import Lab
from antquic_server.natlab.model import KINDS, Kind
from antquic_server.net.sockets import ListenGroup, bind_slots
from antquic_server.peer import sockets
from antquic_server.peer.endpoint import Endpoint
from antquic_server.peer.settings import PeerSettings
from support.node import node_environment

__all__ = ["LISTEN", "NODE_PORT", "Meet", "Story", "start_lab_node"]

NODE_PORT = 4433
DISCOVERY_S = 5.0
STORY_TIMEOUT_S = 90.0
LISTEN = {"a": "127.0.0.1:0", "b": "127.0.0.2:0"}
"""By which the endpoints of the two sites are told apart when they bind, which they do elsewhere."""

Story = Callable[[Endpoint, Endpoint], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Meet:
    """Runs a story with an endpoint behind each of two NATs."""

    lab: Lab
    directory: Path
    monkeypatch: pytest.MonkeyPatch
    ipv6: bool = False
    """Use IPv6 only, in a lab that has it."""

    def __call__(
        self, kind_a: str | Kind, kind_b: str | Kind, story: Story, *, nodes: int = 2, **settings: object
    ) -> None:
        """
        Put the lab's sites behind these NATs, start a node, and run ``story(a, b)``.

        Of the node's addresses the endpoints know ``nodes``; all else are settings of both of them, which do not relay.
        """
        for router, kind in (("A", kind_a), ("B", kind_b)):
            self.lab.kind(router, KINDS[kind] if isinstance(kind, str) else kind)
        self.monkeypatch.setattr(sockets, "bind_slots", self._bind_behind)
        addresses = start_lab_node(self.lab, self.directory, ipv6=self.ipv6)
        known: dict[str, object] = {
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

    def _bind_behind(self, listen: Sequence[str], count: int) -> list[ListenGroup]:
        (site,) = [name for name, text in LISTEN.items() if (text,) == tuple(listen)]
        return self.lab.call(site, lambda: bind_slots(["[::]:0" if self.ipv6 else "0.0.0.0:0"], count))


def start_lab_node(lab: Lab, directory: Path, *, workers: int = 1, ipv6: bool = False) -> list[str]:
    """Start our node in its namespace and return its addresses once it serves; the lab ends it."""
    hosts = [f"[{host}]" for host in lab.addresses.node_v6] if ipv6 else lab.addresses.node
    addresses = [f"{host}:{NODE_PORT}" for host in hosts]
    command = [sys.executable, "-m", "antquic_server", "serve", "--workers", str(workers), "--admin", "127.0.0.1:0"]
    command += ["--identity", str(directory / "node.pem"), "--set", "nat.coordination_burst=100"]
    command += [word for address in addresses for word in ("--listen", address)]
    with (directory / "node.log").open("wb") as log:
        process = lab.popen("node", command, stdout=subprocess.PIPE, stderr=log, env=node_environment())
    assert process.stdout is not None
    with process.stdout:
        line = process.stdout.readline()
    assert line, (directory / "node.log").read_text()
    assert json.loads(line)["event"] == "ready"
    return addresses
