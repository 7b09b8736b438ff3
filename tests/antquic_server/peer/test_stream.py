"""Streams between peers."""

import asyncio
import os
from hashlib import sha256
from typing import Any

import pytest

from antquic_server.errors import PeerError
from antquic_server.peer.stream import WRITE_HIGH_BYTES
from support.peers import Couple, eventually, with_couple

LARGE = 5_000_000


def test_bytes_go_both_ways_and_end() -> None:
    """Reading ends with the other side's close, writing does not."""

    async def story(couple: Couple) -> None:
        stream = await couple.here.open_stream()
        await stream.write(b"question")
        await stream.close()
        accepted = await couple.there.accept_stream()
        assert await accepted.read_exactly(8) == b"question"
        assert await accepted.read() == b""
        await accepted.write(b"answer")
        await accepted.close()
        assert await stream.read_exactly(6) == b"answer"
        assert await stream.read() == b""
        with pytest.raises(PeerError, match="closed for writing"):
            await stream.write(b"more")

    with_couple(story)


def test_a_writer_hears_of_a_peer_that_never_meant_to_read() -> None:
    """Its STOP_SENDING comes before the stream's first data, so before there is a stream to tell."""

    async def story(couple: Couple) -> None:
        link = couple.here._link
        quic: Any = link.quic
        # Not a stream of the library's: that would answer the other side's RESET_STREAM, and so end it.
        stream_id = quic.get_next_available_stream_id()
        quic.send_stream_data(stream_id, b"question", end_stream=True)
        quic.stop_stream(stream_id, 7)
        couple.one._touch(link)
        accepted = await couple.there.accept_stream()
        assert await accepted.read_exactly(8) == b"question"
        with pytest.raises(PeerError, match="does not read this stream"):
            await accepted.write(b"answer")

    with_couple(story)


def test_five_megabytes_arrive_unchanged() -> None:
    """In both directions at once."""
    data = os.urandom(LARGE)

    async def story(couple: Couple) -> None:
        async def echo() -> None:
            accepted = await couple.there.accept_stream()
            while part := await accepted.read():
                await accepted.write(part)
            await accepted.close()

        async def send() -> None:
            await stream.write(data)
            await stream.close()

        stream = await couple.here.open_stream()
        tasks = [asyncio.create_task(echo()), asyncio.create_task(send())]
        digest = sha256()
        while part := await stream.read():
            digest.update(part)
        await asyncio.gather(*tasks)
        assert digest.digest() == sha256(data).digest()
        assert stream.bytes_sent == stream.bytes_received == LARGE

    with_couple(story)


def test_a_reader_that_does_not_read_stops_the_writer() -> None:
    """Neither side holds more than its bounds; reading makes it go on."""

    async def story(couple: Couple) -> None:
        stream = await couple.here.open_stream()
        size = 40_000_000
        writer = asyncio.create_task(stream.write(bytes(size)))
        await eventually(lambda: stream.bytes_sent > WRITE_HIGH_BYTES, what="writing")
        accepted = await couple.there.accept_stream()
        before = -1
        while before != accepted.bytes_received:
            before = accepted.bytes_received
            await asyncio.sleep(0.5)
        assert not writer.done()
        assert accepted.bytes_received < size / 2
        received = 0
        while received < size:
            received += len(await accepted.read(1 << 20))
        await writer

    with_couple(story)


def test_a_reset_reaches_the_other_side() -> None:
    """Its reader and its writer get an error."""

    async def story(couple: Couple) -> None:
        stream = await couple.here.open_stream()
        await stream.write(b"x")
        accepted = await couple.there.accept_stream()
        assert await accepted.read() == b"x"
        stream.reset(7)
        with pytest.raises(PeerError, match="given the stream up"):
            await accepted.read()
        with pytest.raises(PeerError):
            await accepted.write(b"y")
        with pytest.raises(PeerError):
            await stream.read()

    with_couple(story)


def test_the_end_of_the_connection_ends_the_stream() -> None:
    """What has arrived can still be read."""

    async def story(couple: Couple) -> None:
        stream = await couple.here.open_stream()
        await stream.write(b"last words")
        accepted = await couple.there.accept_stream()
        await eventually(lambda: accepted.bytes_received == 10, what="data")
        await couple.here.close()
        await couple.there.closed.wait()
        assert await accepted.read() == b"last words"
        with pytest.raises(PeerError):
            await accepted.read()
        with pytest.raises(PeerError):
            await stream.write(b"x")

    with_couple(story)
