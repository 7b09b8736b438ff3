"""The load generator's own promises."""

import asyncio
import os

import pytest

from antquic_server.bench.load_client import ClientSettings, LoadClient, random_node_key
from antquic_server.bench.node_process import ServerUnderTest, running_node
from antquic_server.pqc.cryptography_provider import CryptographyProvider
from antquic_server.pqc.pool import PqcPool

pytestmark = pytest.mark.end_to_end


def _settings() -> ClientSettings:
    pool = PqcPool(CryptographyProvider(), 4)
    return ClientSettings(pqc=pool, node_key=random_node_key(pool))


def test_streams_messages_and_datagrams_come_back_also_after_a_rebind() -> None:
    """Everything the echo service offers, before and after the local port changed."""

    async def scenario(server: ServerUnderTest) -> None:
        client = LoadClient()
        connection = client.connect("127.0.0.1", server.port, _settings())
        await connection.wait_connected(10)
        for _ in range(2):
            data = os.urandom(200_000)
            assert await connection.echo(data, 10) == data
            assert await connection.echo_message(b"message", 10) == b"message"
            assert await connection.echo_datagram(b"datagram", 10) == b"datagram"
            before = client.port
            client.rebind()
            assert client.port != before
        connection.close()
        client.close()

    with running_node() as server:
        asyncio.run(scenario(server))


def test_failed_handshake_is_a_connection_error_with_its_reason() -> None:
    """A pinned key that is not the server's ends the handshake with its alert."""

    async def scenario(server: ServerUnderTest) -> None:
        client = LoadClient()
        pool = PqcPool(CryptographyProvider(), 4)
        settings = ClientSettings(pqc=pool, node_key=random_node_key(pool), expected_public_key=bytes(1952))
        connection = client.connect("127.0.0.1", server.port, settings)
        with pytest.raises(ConnectionError, match="another public key"):
            await connection.wait_connected(10)
        client.close()

    with running_node() as server:
        asyncio.run(scenario(server))


def test_silence_is_a_connection_error() -> None:
    """Nobody listens: the wait ends at its timeout."""

    async def scenario() -> None:
        client = LoadClient()
        other = LoadClient()
        connection = client.connect("127.0.0.1", other.port, _settings())
        with pytest.raises(ConnectionError, match=r"no handshake within 0\.2 s"):
            await connection.wait_connected(0.2)
        client.close()
        other.close()

    asyncio.run(scenario())
