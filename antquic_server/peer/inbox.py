"""What has arrived for whoever asks next: a bounded queue that can end."""

import asyncio
from collections import deque
from typing import Generic, TypeVar

from antquic_server.errors import PeerError

__all__ = ["Inbox"]

Item = TypeVar("Item")


class Inbox(Generic[Item]):
    """A queue; whoever waits when it ends, or asks later, gets the error once nothing is left."""

    def __init__(self, maximum: int) -> None:
        self._items: deque[Item] = deque()
        self._maximum = maximum
        self._changed = asyncio.Event()
        self._error: PeerError | None = None

    def put(self, item: Item) -> bool:
        """Add an item; False when the queue is full."""
        if len(self._items) >= self._maximum:
            return False
        self._items.append(item)
        self._changed.set()
        return True

    def __len__(self) -> int:
        return len(self._items)

    def end(self, error: PeerError) -> None:
        """Take nothing more, for this reason."""
        self._error = error
        self._changed.set()

    async def get(self) -> Item:
        """Return the next item; the reason of the end if there will be none."""
        while not self._items:
            if self._error is not None:
                raise self._error
            self._changed.clear()
            await self._changed.wait()
        return self._items.popleft()
