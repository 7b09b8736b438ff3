"""The servers that echoes are measured against, and how a client dials each: stock aioquic twice, and a node."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Final

from antquic_server.bench.load_client import ClientSettings, random_node_key
from antquic_server.bench.node_process import ServerUnderTest, running_node, running_stock_server
from antquic_server.pqc.pool import PqcPool
from antquic_server.protocol.codepoints import NamedGroup
from antquic_server.protocol.profiles import HandshakeProfile

__all__ = ["NODE", "STOCK", "STOCK_UVLOOP", "EchoContender", "echo_contenders"]

NODE: Final = "antquic-server, 1 worker"
STOCK: Final = "aioquic.asyncio.serve"
STOCK_UVLOOP: Final = "aioquic.asyncio.serve on uvloop"


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoContender:
    """How to start a server, and how to dial it."""

    start: Callable[[], AbstractContextManager[ServerUnderTest]]
    settings: ClientSettings


def echo_contenders(pool: PqcPool, *, idle_timeout_s: float = 30.0) -> Mapping[str, EchoContender]:
    """Return all three, the yardstick first; clients compute in ``pool``."""
    # Stock aioquic knows classical groups and X.509 only; after the handshake the bytes are the same.
    stock = ClientSettings(
        pqc=pool,
        profile=HandshakeProfile.X509,
        groups=(NamedGroup.X25519,),
        server_name="localhost",
        idle_timeout_s=idle_timeout_s,
    )
    ours = ClientSettings(pqc=pool, node_key=random_node_key(pool), idle_timeout_s=idle_timeout_s)
    return {
        STOCK: EchoContender(start=partial(running_stock_server, "asyncio"), settings=stock),
        STOCK_UVLOOP: EchoContender(start=partial(running_stock_server, "uvloop"), settings=stock),
        NODE: EchoContender(start=running_node, settings=ours),
    }
