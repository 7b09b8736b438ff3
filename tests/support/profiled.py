"""Load for a worker that is to be profiled, and which functions docs/profiling.md says its profile shows."""

import asyncio
import os
import re
import threading
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self

import uvloop

from antquic_server.bench.load_client import ClientSettings, LoadClient, random_node_key
from antquic_server.pqc.pool import PqcPool
from antquic_server.pqc.select import load_provider
from support.node import REPOSITORY, Node
from support.waiting import wait_until

__all__ = ["AMONG_THE_HEAVIEST", "NodeLoad", "documented_frames", "echo_load", "handshake_load"]

AMONG_THE_HEAVIEST: Final = 60
"""Functions by the width of their boxes, of several hundred."""

PATIENCE_S = 60.0
HANDSHAKE_TIMEOUT_S = 20.0
STALL_S = 0.5
CLIENTS = 4
IN_FLIGHT = 16
FRAME_BYTES = 1100


class NodeLoad:
    """Clients of a node, on a thread of their own inside the block; ``done`` counts what they have achieved."""

    def __init__(self, node: Node, client: Callable[["NodeLoad", PqcPool], Awaitable[None]]) -> None:
        self.node = node
        self.done = 0
        self.over = False
        self._client = client
        self._thread = threading.Thread(target=lambda: uvloop.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: self.done, timeout_s=PATIENCE_S, what="load")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.over = True
        self._thread.join()

    def going_on(self) -> bool:
        """Whether clients are still served; waits for that."""
        before = self.done
        return wait_until(lambda: self.done > before, timeout_s=PATIENCE_S, what="service")

    async def _run(self) -> None:
        pool = PqcPool(load_provider("auto"), 4 * CLIENTS)
        await asyncio.gather(*(self._client(self, pool) for _ in range(CLIENTS)))


def echo_load(node: Node) -> NodeLoad:
    """DATAGRAM frames, some always in flight."""
    return NodeLoad(node, _echo)


def handshake_load(node: Node) -> NodeLoad:
    """Handshakes of ant-quic peers, one after the other."""
    return NodeLoad(node, _shake_hands)


async def _echo(load: NodeLoad, pool: PqcPool) -> None:
    client = LoadClient()
    try:
        settings = ClientSettings(pqc=pool, node_key=random_node_key(pool))
        connection = client.connect("127.0.0.1", load.node.port, settings)
        await connection.wait_connected(HANDSHAKE_TIMEOUT_S)
        frame = os.urandom(FRAME_BYTES)
        missing = IN_FLIGHT
        heard_s = time.monotonic()
        while not load.over:
            for _ in range(missing):
                connection.quic.send_datagram_frame(frame)
            client.flush([connection])
            await asyncio.sleep(0.001)
            missing = len(connection.datagrams)
            connection.datagrams.clear()
            load.done += missing
            if missing:
                heard_s = time.monotonic()
            elif time.monotonic() - heard_s > STALL_S:
                # Frames that were lost are not repeated.
                missing, heard_s = IN_FLIGHT, time.monotonic()
        connection.close()
    finally:
        client.close()


async def _shake_hands(load: NodeLoad, pool: PqcPool) -> None:
    client = LoadClient()
    try:
        settings = ClientSettings(pqc=pool, node_key=random_node_key(pool))
        while not load.over:
            connection = client.connect("127.0.0.1", load.node.port, settings)
            await connection.wait_connected(HANDSHAKE_TIMEOUT_S)
            connection.close()
            client.abandon_all()
            load.done += 1
    finally:
        client.close()


def documented_frames(load: str) -> list[str]:
    """Return the functions that docs/profiling.md lists for a load, ``echo_load`` or ``handshake_load``."""
    page = (REPOSITORY / "docs" / "profiling.md").read_text(encoding="utf-8")
    title = {"echo_load": "### Echo load", "handshake_load": "### Handshake load"}[load]
    section = page.partition(f"{title}\n")[2].partition("\n## ")[0].partition("\n### ")[0]
    return re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)
