"""Tests of ``workers.relay_streams``: which streams are the relay's, and which the application's."""

import asyncio
from typing import Any

import pytest

from antquic_server.bench.load_client import ClientConnection
from antquic_server.ipc.relay_messages import RelayReserve
from antquic_server.protocol.codepoints import ApplicationErrorCode, NamedGroup
from antquic_server.protocol.profiles import HandshakeProfile
from antquic_server.protocol.raw_public_key import peer_id
from antquic_server.protocol.relay_stream import (
    BIND_REQUEST,
    MAX_REQUEST_BYTES,
    ConnectUdpRequest,
    RelayStatus,
    encode_request,
)
from support.in_process import Bench, run, running_worker, settings_with, until
from support.pair import node_key
from support.relay_client import RelayClient, RelayRefusedError, read_response, write
from support.relay_hub import fake_hub

CLIENT_ID = peer_id(node_key("client").public_key)
LOOPBACK = {"allowed_targets": ("127.0.0.0/8",)}


def streams_of(bench: Bench) -> dict[int, Any]:
    """What the service keeps about the one connection's streams."""
    tables = list(bench.worker.relay_streams._streams.values())
    return tables[0] if tables else {}


def was_stopped(connection: ClientConnection, stream_id: int) -> bool:
    """Whether the client has been told that the server does not read on."""
    stream = connection.quic._streams.get(stream_id)
    return stream is None or stream.sender._reset_error_code == ApplicationErrorCode.LIFECYCLE_CLEANUP


def test_request_in_one_piece_or_byte_by_byte() -> None:
    """ant-quic writes length and body separately; any cut will do."""

    async def story() -> None:
        async with running_worker(echo=False) as bench, fake_hub(bench) as hub:
            connection = await bench.connected()
            await RelayClient.open(connection)
            stream_id = connection.quic.get_next_available_stream_id()
            for byte in BIND_REQUEST:
                write(connection, stream_id, bytes((byte,)))
                await asyncio.sleep(0)
            response = await read_response(connection, stream_id)
            assert response.is_success
            assert hub.reserved == [
                RelayReserve(session=number, peer_id=CLIENT_ID, host="127.0.0.1") for number in (1, 2)
            ]

    run(story())


@pytest.mark.parametrize("beginning", [b"ANQAckB3" + bytes(16), b"ANQAppB1", b"\x00\x00\x04\x01" + bytes(8), b"GET /"])
def test_what_is_no_request_goes_to_the_application(beginning: bytes) -> None:
    """Magic of other streams, and lengths that no request has; a node that serves no streams resets them."""

    async def story() -> None:
        async with running_worker(echo=False) as bench, fake_hub(bench) as hub:
            connection = await bench.connected()
            stream_id = connection.quic.get_next_available_stream_id()
            write(connection, stream_id, beginning)
            await until(lambda: was_stopped(connection, stream_id), "reset")
            # The client's own reset ends the affair.
            await until(lambda: streams_of(bench) == {}, "forgotten stream")
            short = connection.quic.get_next_available_stream_id()
            write(connection, short, beginning[:3], end=True)
            empty = connection.quic.get_next_available_stream_id()
            write(connection, empty, b"", end=True)
            await RelayClient.open(connection)
            assert hub.reserved[0].session == 1
            assert len(streams_of(bench)) == 1

    run(story())


def test_echo_keeps_all_streams_but_exact_requests() -> None:
    """With --echo whatever is not exactly what ant-quic peers ask comes back, also if it begins like it."""

    async def story() -> None:
        async with running_worker(echo=True) as bench, fake_hub(bench) as hub:
            connection = await bench.connected()
            other_request = encode_request(ConnectUdpRequest(bind=True, host="::1", port=0))
            for data in (
                b"",
                b"\x00",
                bytes(1000),
                BIND_REQUEST[:-1],
                other_request,
                b"hello",
                bytes(range(256)) * 100,
            ):
                assert await connection.echo(data, 5.0) == data
            stream_id = connection.quic.get_next_available_stream_id()
            for part in (b"\x00", b"\x00\x00", b"\x01", b"end"):
                write(connection, stream_id, part)
                await asyncio.sleep(0.01)
            write(connection, stream_id, b"!", end=True)
            assert await connection.read_stream(stream_id, 5.0) == b"\x00\x00\x00\x01end!"
            assert hub.reserved == []
            await RelayClient.open(connection)
            assert len(hub.reserved) == 1
            assert next(iter(streams_of(bench).values())).session is not None

    run(story())


@pytest.mark.parametrize(
    ("data", "end", "status", "reason"),
    [
        (b"\x00\x00\x00\x00", False, RelayStatus.BAD_REQUEST, "bad_request"),
        (b"\x00\x00\x00\x06\x01\x05::\x00\x00", False, RelayStatus.BAD_REQUEST, "bad_request"),
        (BIND_REQUEST[:-1], True, RelayStatus.BAD_REQUEST, "bad_request"),
        (BIND_REQUEST + b"\x00", False, RelayStatus.BAD_REQUEST, "bad_request"),
        (BIND_REQUEST, True, RelayStatus.BAD_REQUEST, "bad_request"),
        (
            encode_request(ConnectUdpRequest(bind=False, host="198.18.0.1", port=53)),
            False,
            RelayStatus.NOT_IMPLEMENTED,
            "unsupported",
        ),
    ],
)
def test_unsound_requests_are_answered(data: bytes, end: bool, status: int, reason: str) -> None:
    """With a status, a reason and the end of our side; the hub is not troubled, and an honest request passes."""

    async def story() -> None:
        async with running_worker(echo=False) as bench, fake_hub(bench) as hub:
            connection = await bench.connected()
            stream_id = connection.quic.get_next_available_stream_id()
            write(connection, stream_id, data, end=end)
            response = await read_response(connection, stream_id)
            assert (response.status, response.address, response.reason) == (status, None, reason)
            await connection.read_stream(stream_id, 5.0)
            assert bench.counted("relay_refusals", f"stream|{reason}") == 1
            assert hub.reserved == []
            if not end:
                write(connection, stream_id, bytes(5000))
                write(connection, stream_id, b"", end=True)
            await until(lambda: streams_of(bench) == {}, "forgotten stream")
            await RelayClient.open(connection)

    run(story())


def test_request_is_bounded() -> None:
    """A length of 1024 is waited for, and no more than that is held."""

    async def story() -> None:
        async with running_worker(echo=False) as bench, fake_hub(bench):
            connection = await bench.connected()
            stream_id = connection.quic.get_next_available_stream_id()
            write(connection, stream_id, MAX_REQUEST_BYTES.to_bytes(4, "big") + bytes(MAX_REQUEST_BYTES - 1))
            await until(lambda: streams_of(bench) and len(streams_of(bench)[stream_id].begun) > 1000, "beginning")
            write(connection, stream_id, b"\x00")
            assert (await read_response(connection, stream_id)).status == RelayStatus.BAD_REQUEST
            assert streams_of(bench)[stream_id].begun == b""

    run(story())


@pytest.mark.parametrize(
    ("refusal", "reason", "released", "counted"),
    [("", "bad_request", [1], 1), ("peer_sessions", "peer_sessions", [], 0)],
)
@pytest.mark.parametrize("end", [False, True])
def test_who_talks_before_the_answer_is_refused(
    refusal: str, reason: str, released: list[int], counted: int, end: bool
) -> None:
    """Once there is one: a refusal is counted once, and nothing released that was not given; no data is kept."""

    async def story() -> None:
        async with running_worker(echo=False) as bench, fake_hub(bench, refusal=refusal, silent=True) as hub:
            connection = await bench.connected()
            stream_id = connection.quic.get_next_available_stream_id()
            write(connection, stream_id, BIND_REQUEST)
            await until(lambda: hub.reserved, "question to the hub")
            write(connection, stream_id, b"too early", end=end)
            await until(lambda: streams_of(bench)[stream_id].is_hasty, "what comes too early")
            hub.answer(1)
            assert (await read_response(connection, stream_id)).reason == reason
            if released:
                await until(lambda: hub.released, "release")
            assert [item.session for item in hub.released] == released
            assert bench.counted("relay_refusals") == counted
            assert bench.counted("relay_sessions_opened") == 0
            assert bench.worker.relay_streams._desk._numbered == {}
            if end:
                await until(lambda: streams_of(bench) == {}, "forgotten stream")

    run(story())


def test_stranger_without_a_key_is_refused() -> None:
    """Who has not authenticated itself gets no port; the hub is not asked."""

    async def story() -> None:
        async with running_worker(echo=False) as bench, fake_hub(bench) as hub:
            connection = await bench.connected(profile=HandshakeProfile.X509, groups=(NamedGroup.X25519_ML_KEM_768,))
            with pytest.raises(RelayRefusedError) as caught:
                await RelayClient.open(connection)
            assert (caught.value.response.status, caught.value.response.reason) == (403, "unauthenticated")
            assert hub.reserved == []

    run(story())


def test_request_that_is_given_up_is_forgotten() -> None:
    """Reset before, while and after the hub is asked: nothing stays, here or there."""

    async def story() -> None:
        async with (
            running_worker(settings_with(relay=LOOPBACK), echo=False) as bench,
            fake_hub(bench, silent=True) as hub,
        ):
            connection = await bench.connected()
            for data in (b"\x00", BIND_REQUEST):
                stream_id = connection.quic.get_next_available_stream_id()
                write(connection, stream_id, data)
                await until(lambda: bool(streams_of(bench)), "stream")
                connection.quic.reset_stream(stream_id, 7)
                bench.client.flush([connection])
                await until(lambda: streams_of(bench) == {}, "forgotten stream")
            await until(lambda: hub.reserved and not hub.held, "release")
            stream_id = connection.quic.get_next_available_stream_id()
            write(connection, stream_id, BIND_REQUEST)
            await until(lambda: len(hub.reserved) == 2, "question to the hub")
            hub.refusal = "peer_sessions"
            hub.answer(2)
            assert (await read_response(connection, stream_id)).status == RelayStatus.CONFLICT
            connection.quic.reset_stream(stream_id, 7)
            bench.client.flush([connection])
            await until(lambda: streams_of(bench) == {}, "forgotten stream")

    run(story())


def test_connection_that_ends_takes_its_streams_along() -> None:
    """Nothing is kept for a connection that is gone."""

    async def story() -> None:
        async with running_worker(echo=False) as bench, fake_hub(bench) as hub:
            connection = await bench.connected()
            await RelayClient.open(connection)
            write(connection, connection.quic.get_next_available_stream_id(), b"\x00")
            connection.close()
            await until(lambda: not bench.worker.relay_streams._streams, "forgotten connection")
            await until(lambda: hub.held == [], "release")
            assert bench.counted("relay_sessions_closed", "stream|connection_lost") == 1

    run(story())
