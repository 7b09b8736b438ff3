"""Streams that are over are forgotten, whoever ends them and however."""

import asyncio

import pytest
from aioquic.quic.events import StreamDataReceived

from antquic_server.errors import PeerError
from antquic_server.peer.connection import PeerConnection
from antquic_server.peer.stream import PeerStream
from support.peers import Couple, eventually, with_couple

ROUNDS = 200
"""More than the 128 streams that a peer may have open."""


async def echo(connection: PeerConnection) -> None:
    """Send everything back that comes on streams."""
    while True:
        stream = await connection.accept_stream()
        while part := await stream.read():
            await stream.write(part)
        await stream.close()


async def forgotten(couple: Couple) -> None:
    """Wait until neither end keeps a stream."""
    ends = (couple.here, couple.there)
    await eventually(lambda: not any(len(end._streams) for end in ends), what="end of all streams")
    await eventually(lambda: not any(end._streams._standing.blocked for end in ends), what="end of all waiting")
    for end in ends:
        assert not end._streams._standing.ending
        assert end._link.quic.open_streams == 0


@pytest.mark.parametrize("by_dialler", [True, False])
def test_streams_that_have_ended_are_forgotten(by_dialler: bool) -> None:
    """By the side that has opened them and by the other, whichever of them has dialled."""

    async def story(couple: Couple) -> None:
        opener, other = (couple.here, couple.there) if by_dialler else (couple.there, couple.here)
        server = asyncio.create_task(echo(other))
        most = 0
        for _ in range(ROUNDS):
            stream = await opener.open_stream()
            await stream.write(b"hi")
            await stream.close()
            assert await stream.read_exactly(2) == b"hi"
            assert await stream.read() == b""
            most = max(most, len(opener._streams), len(other._streams))
        assert most < 20
        await forgotten(couple)
        server.cancel()

    with_couple(story)


@pytest.mark.parametrize("by_dialler", [True, False])
def test_streams_that_are_given_up_are_forgotten(by_dialler: bool) -> None:
    """By their reader, while the sender does not even look."""

    async def story(couple: Couple) -> None:
        opener, other = (couple.here, couple.there) if by_dialler else (couple.there, couple.here)

        async def refuse() -> None:
            while True:
                (await other.accept_stream()).reset()

        server = asyncio.create_task(refuse())
        for _ in range(ROUNDS):
            stream = await opener.open_stream()
            await stream.write(b"x")
        await forgotten(couple)
        server.cancel()

    with_couple(story)


@pytest.mark.parametrize("half", ["reset_stream", "stop_stream"])
def test_half_a_stream_is_not_kept_for_its_other_half(half: str) -> None:
    """A peer that gives up one direction only has us end the other one."""

    async def story(couple: Couple) -> None:
        stream = await couple.here.open_stream()
        await stream.write(b"x")
        accepted = await couple.there.accept_stream()
        getattr(stream._quic, half)(stream.stream_id, 7)
        stream._touch(stream._link)
        with pytest.raises(PeerError, match="given the stream up"):
            await accepted.read_exactly(1000)
        await forgotten(couple)

    with_couple(story)


def test_a_stream_that_did_not_fit_the_queue_is_not_offered_later() -> None:
    """What still arrives of it is not the beginning of another one."""

    async def story(couple: Couple) -> None:
        def arrives(stream_id: int, data: bytes) -> None:
            event = StreamDataReceived(data=data, end_stream=False, stream_id=stream_id)
            couple.there.stream_activity(couple.there._link, event)

        # As of a peer that does not hear at once that it is to stop: the connection itself does not know these.
        arrives(400, b"first")
        arrives(404, b"second")
        assert await (await couple.there.accept_stream()).read() == b"first"
        arrives(404, b"more of it")
        arrives(408, b"third")
        assert await (await couple.there.accept_stream()).read() == b"third"
        assert couple.other.stats().drops["stream_queue_full"] == 1

    with_couple(story, max_queued_streams=1)


def test_whoever_holds_a_stream_keeps_what_has_arrived() -> None:
    """Data and end can be read when it is long forgotten; closing and giving it up do no harm then."""

    async def story(couple: Couple) -> None:
        async def answer() -> PeerStream:
            accepted = await couple.there.accept_stream()
            await accepted.write(b"data")
            await accepted.close()
            return accepted

        stream = await couple.here.open_stream()
        await stream.write(b"question")
        await stream.close()
        accepted = await answer()
        await forgotten(couple)
        assert (await stream.read(3), await stream.read(), await stream.read()) == (b"dat", b"a", b"")
        assert await accepted.read_exactly(8) == b"question"
        assert await accepted.read() == b""
        for held in (stream, accepted):
            with pytest.raises(PeerError, match="closed for writing"):
                await held.write(b"x")
            await held.close()
            held.reset()
        await forgotten(couple)
        assert couple.here._link.quic.held_by_application_bytes == 0

    with_couple(story)


def test_only_those_who_wait_for_room_are_woken() -> None:
    """A flush costs nothing for streams on which nobody writes."""

    async def story(couple: Couple) -> None:
        idle = [await couple.here.open_stream() for _ in range(20)]
        busy = await couple.here.open_stream()
        writer = asyncio.create_task(busy.write(bytes(3_000_000)))
        await eventually(lambda: busy in couple.here._streams._standing.blocked, what="a writer that waits")
        assert couple.here._streams._standing.blocked == {busy}
        assert len(couple.here._streams) == len(idle) + 1
        while (await couple.there.accept_stream()).stream_id != busy.stream_id:
            pass
        await writer

    with_couple(story)
