"""The servers that echoes are measured against."""

import asyncio

import pytest

from antquic_server.bench.contenders import NODE, STOCK, STOCK_UVLOOP, echo_contenders
from antquic_server.bench.load_client import LoadClient
from antquic_server.pqc.cryptography_provider import CryptographyProvider
from antquic_server.pqc.pool import PqcPool

pytestmark = pytest.mark.end_to_end


def test_stock_is_the_yardstick() -> None:
    """It comes first, and ratios are taken to it; idle timeouts are those asked for."""
    contenders = echo_contenders(PqcPool(CryptographyProvider(), 2), idle_timeout_s=7)

    assert list(contenders) == [STOCK, STOCK_UVLOOP, NODE]
    assert {item.settings.idle_timeout_s for item in contenders.values()} == {7}


@pytest.mark.parametrize("name", [STOCK, STOCK_UVLOOP, NODE])
def test_each_echoes_for_the_client_that_comes_with_it(name: str) -> None:
    """A datagram comes back."""
    contender = echo_contenders(PqcPool(CryptographyProvider(), 2))[name]

    async def scenario(port: int) -> bytes:
        client = LoadClient()
        connection = client.connect("127.0.0.1", port, contender.settings)
        await connection.wait_connected(10)
        echoed = await connection.echo_datagram(b"hello", 10)
        connection.close()
        client.close()
        return echoed

    with contender.start() as server:
        assert asyncio.run(scenario(server.port)) == b"hello"
