"""Endpoints of the peer library on loopback, connected without a node."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from antquic_server.peer.connection import PeerConnection
from antquic_server.peer.endpoint import Endpoint
from antquic_server.peer.settings import PeerSettings

__all__ = ["LOOPBACK", "Couple", "eventually", "loopback", "run", "with_couple"]

STORY_TIMEOUT_S = 60.0
LOOPBACK = ("127.0.0.1:0",)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Couple:
    """Two endpoints and both ends of the connection between them; ``one`` has dialled."""

    one: Endpoint
    other: Endpoint
    here: PeerConnection
    there: PeerConnection


def loopback(**settings: Any) -> PeerSettings:
    """Return settings for an endpoint on loopback."""
    return PeerSettings(listen=LOOPBACK, **settings)


def run(story: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end, which must come within a minute."""
    return asyncio.run(asyncio.wait_for(story, STORY_TIMEOUT_S))


def with_couple(story: Callable[[Couple], Awaitable[None]], **settings: Any) -> None:
    """Run ``story`` with two connected endpoints."""

    async def main() -> None:
        async with Endpoint(loopback(**settings)) as one, Endpoint(loopback(**settings)) as other:
            here = await one.connect(other.addresses[0])
            await story(Couple(one, other, here, await other.accept()))

    run(main())


async def eventually(condition: Callable[[], object], *, timeout_s: float = 10.0, what: str) -> None:
    """Wait until ``condition()`` is true; AssertionError if it never is."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + timeout_s
    while not condition():
        assert loop.time() < deadline_s, f"no {what} within {timeout_s} s"
        await asyncio.sleep(0.02)
