"""A bounded queue that can end."""

import asyncio

import pytest

from antquic_server.errors import PeerError
from antquic_server.peer.inbox import Inbox


def test_what_has_arrived_comes_before_the_end() -> None:
    """In order, and no more than fits; everybody who waits hears of the end."""

    async def story() -> None:
        inbox: Inbox[int] = Inbox(2)
        assert [inbox.put(number) for number in (1, 2, 3)] == [True, True, False]
        assert (await inbox.get(), len(inbox)) == (1, 1)
        inbox.end(PeerError("over"))
        assert await inbox.get() == 2
        with pytest.raises(PeerError, match="over"):
            await inbox.get()

    asyncio.run(story())


def test_all_who_wait_are_woken() -> None:
    """One of them by an item, the others by the end."""

    async def story() -> None:
        inbox: Inbox[int] = Inbox(2)
        waiting = [asyncio.create_task(inbox.get()) for _ in range(3)]
        await asyncio.sleep(0)
        inbox.put(1)
        inbox.end(PeerError("over"))
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [item for item in results if not isinstance(item, PeerError)] == [1]

    asyncio.run(story())
