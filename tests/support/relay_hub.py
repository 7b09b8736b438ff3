"""The hub's part in the stream relay, for one worker in the test's own process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from antquic_server.ipc.messages import Message
from antquic_server.ipc.relay_messages import RelayReleased, RelayReserve, RelayReserved, RelayUsage
from support.in_process import Bench

__all__ = ["FakeHub", "fake_hub"]

POLL_INTERVAL_S = 0.002


@dataclass(kw_only=True)
class FakeHub:
    """Grants what is asked, unless ``refusal`` says why not; says nothing while ``silent``."""

    bench: Bench
    refusal: str = ""
    silent: bool = False
    rate_bytes_per_s: float = 1e12
    reserved: list[RelayReserve] = field(default_factory=list)
    released: list[RelayReleased] = field(default_factory=list)
    moved_bytes: dict[int, int] = field(default_factory=dict)
    others: list[Message] = field(default_factory=list)

    @property
    def held(self) -> list[int]:
        """Numbers of the sessions that have been granted and not released."""
        return sorted({item.session for item in self.reserved} - {item.session for item in self.released})

    def say(self, message: Message) -> None:
        """Say something to the worker."""
        self.bench.worker.relay_streams.handle_message(message)

    def listen(self) -> None:
        """Take what the worker has said, and answer."""
        told, self.bench.told_hub[:] = self.bench.told_hub[:], []
        for message in told:
            match message:
                case RelayReserve():
                    self.reserved.append(message)
                    if not self.silent:
                        self.answer(message.session)
                case RelayReleased():
                    self.released.append(message)
                    self._moved(message.session, message.moved_bytes)
                case RelayUsage():
                    for session, moved_bytes in zip(message.sessions, message.moved_bytes, strict=True):
                        self._moved(session, moved_bytes)
                case _:
                    self.others.append(message)

    def answer(self, session: int) -> None:
        """Grant or refuse a session."""
        self.say(
            RelayReserved(
                session=session,
                refusal=self.refusal,
                rate_bytes_per_s=self.rate_bytes_per_s,
                burst_bytes=self.rate_bytes_per_s,
                start_bytes=self.rate_bytes_per_s,
            )
        )

    def _moved(self, session: int, moved_bytes: int) -> None:
        self.moved_bytes[session] = self.moved_bytes.get(session, 0) + moved_bytes


@asynccontextmanager
async def fake_hub(bench: Bench, *, refusal: str = "", silent: bool = False) -> AsyncIterator[FakeHub]:
    """Listen to a worker until the block ends."""
    hub = FakeHub(bench=bench, refusal=refusal, silent=silent)

    async def listen() -> None:
        while True:
            hub.listen()
            await asyncio.sleep(POLL_INTERVAL_S)

    task = asyncio.create_task(listen())
    try:
        yield hub
    finally:
        task.cancel()
        hub.listen()
