"""Messages, datagrams and bounds of a connection."""

import asyncio

import pytest

from antquic_server.errors import PeerClosedError, PeerError, UsageError
from antquic_server.peer import messages
from antquic_server.protocol.codepoints import ApplicationErrorCode
from antquic_server.protocol.liveness import ANSWER_MAGIC
from support.peers import Couple, eventually, with_couple


def test_messages_arrive_whole() -> None:
    """Short ones and the longest there is."""

    async def story(couple: Couple) -> None:
        longest = bytes(range(256)) * 4096
        await couple.here.send_message(b"short")
        await couple.here.send_message(longest)
        assert sorted([await couple.there.recv_message(), await couple.there.recv_message()], key=len) == [
            b"short",
            longest,
        ]
        await couple.there.send_message(b"back")
        assert await couple.here.recv_message() == b"back"

    with_couple(story, max_message_bytes=1 << 20)


def test_a_message_of_a_wrong_length_is_refused_here() -> None:
    """Before anything is sent."""

    async def story(couple: Couple) -> None:
        for size in (0, 101):
            with pytest.raises(UsageError):
                await couple.here.send_message(bytes(size))

    with_couple(story, max_message_bytes=100)


def test_many_messages_get_through_the_stream_limit() -> None:
    """More than the 128 streams a peer grants at first."""

    async def story(couple: Couple) -> None:
        async def send() -> None:
            for number in range(500):
                await couple.here.send_message(number.to_bytes(2, "big"))

        sender = asyncio.create_task(send())
        got = {int.from_bytes(await couple.there.recv_message(), "big") for _ in range(500)}
        await sender
        assert got == set(range(500))

    with_couple(story)


def test_queues_are_bounded_and_what_is_dropped_is_counted() -> None:
    """Of messages, datagrams and streams that nobody takes."""

    async def story(couple: Couple) -> None:
        for number in range(5):
            await couple.here.send_message(b"m%d" % number)
            assert couple.here.send_datagram(b"d%d" % number)
            await (await couple.here.open_stream()).write(b"s")
        wanted = {"message_queue_full": 3, "datagram_queue_full": 3, "stream_queue_full": 3}
        await eventually(lambda: wanted.items() <= couple.other.stats().drops.items(), what="drops")
        assert await couple.there.recv_message() == b"m0"
        assert await couple.there.recv_datagram() == b"d0"
        assert await (await couple.there.accept_stream()).read() == b"s"

    with_couple(story, max_queued_messages=2, max_queued_datagrams=2, max_queued_streams=2)


def test_a_datagram_that_fits_no_packet_is_refused() -> None:
    """One that fits arrives."""

    async def story(couple: Couple) -> None:
        with pytest.raises(UsageError, match="at most"):
            couple.here.send_datagram(bytes(2000))
        assert couple.here.send_datagram(bytes(1000))
        assert await couple.there.recv_datagram() == bytes(1000)

    with_couple(story)


def test_closing_tells_the_other_side_why() -> None:
    """Everything that waits there ends with the reason."""

    async def story(couple: Couple) -> None:
        waiting = [
            asyncio.create_task(couple.there.recv_message()),
            asyncio.create_task(couple.there.recv_datagram()),
            asyncio.create_task(couple.there.accept_stream()),
        ]
        await asyncio.sleep(0)
        await couple.here.close(code=77, reason="enough")
        for item in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(item, PeerClosedError)
            assert (item.code, item.reason) == (77, "enough")
        assert (couple.there.close_code, couple.there.close_reason) == (77, "enough")
        with pytest.raises(PeerClosedError):
            await couple.here.send_message(b"x")
        with pytest.raises(PeerClosedError):
            await couple.there.open_stream()
        assert [message async for message in couple.there.messages()] == []
        await couple.here.close()

    with_couple(story)


def test_a_ping_proves_that_bytes_pass_both_ways() -> None:
    """Many at once are told apart, and none of them is a message of the application."""

    async def story(couple: Couple) -> None:
        for took_s in await asyncio.gather(*(couple.here.ping() for _ in range(10)), couple.there.ping()):
            assert 0 < took_s < 5
        # An answer that nobody waits for any more.
        await couple.here.send_message(ANSWER_MAGIC + bytes(18))
        await couple.here.send_message(b"first")
        assert await couple.there.recv_message() == b"first"

    with_couple(story)


def test_a_ping_without_an_answer_fails_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connected is not enough."""

    async def story(couple: Couple) -> None:
        monkeypatch.setattr(messages, "answer_probe_untrusted", lambda _: None)
        with pytest.raises(PeerError, match="no bytes pass"):
            await couple.here.ping(timeout_s=0.2)

    with_couple(story)


def test_a_ping_ends_with_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason of the close."""

    async def story(couple: Couple) -> None:
        monkeypatch.setattr(messages, "answer_probe_untrusted", lambda _: None)
        waiting = asyncio.create_task(couple.here.ping())
        await couple.there.recv_message()
        await couple.there.close(code=77, reason="enough")
        with pytest.raises(PeerClosedError, match="enough"):
            await waiting

    with_couple(story)


def test_a_connection_knows_its_path_and_its_place() -> None:
    """Dialled by address, it is direct."""

    async def story(couple: Couple) -> None:
        assert (couple.here.path, couple.there.path) == ("direct", "direct")
        assert couple.here.remote_address == ("127.0.0.1", couple.other.addresses[0].port)
        assert (couple.here.dialled_by_us, couple.there.dialled_by_us) == (True, False)
        assert couple.here.peer_id == couple.other.peer_id
        assert couple.one.stats().path_mtu_bytes == {couple.other.peer_id.hex(): couple.here.path_mtu_bytes}
        assert ApplicationErrorCode.PEER_SHUTDOWN not in (couple.here.close_code, couple.there.close_code)

    with_couple(story)
