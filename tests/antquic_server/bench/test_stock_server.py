"""The yardstick echoes like a node does."""

import asyncio

import pytest

from antquic_server.bench.load_client import ClientSettings, LoadClient
from antquic_server.bench.node_process import running_stock_server
from antquic_server.pqc.cryptography_provider import CryptographyProvider
from antquic_server.pqc.pool import PqcPool
from antquic_server.protocol.codepoints import NamedGroup
from antquic_server.protocol.profiles import HandshakeProfile

pytestmark = pytest.mark.end_to_end


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_datagrams_and_streams_come_back(loop: str) -> None:
    """The comparison is between two servers that do the same."""
    settings = ClientSettings(
        pqc=PqcPool(CryptographyProvider(), 1),
        profile=HandshakeProfile.X509,
        groups=(NamedGroup.X25519,),
        server_name="localhost",
    )

    async def scenario(port: int) -> None:
        client = LoadClient()
        connection = client.connect("127.0.0.1", port, settings)
        await connection.wait_connected(10)
        assert await connection.echo_datagram(b"datagram", 10) == b"datagram"
        assert await connection.echo(b"stream" * 1000, 10) == b"stream" * 1000
        connection.close()
        client.close()

    with running_stock_server(loop) as server:
        asyncio.run(scenario(server.port))
