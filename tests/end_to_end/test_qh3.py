"""qh3 as a client: what browsers do, X25519MLKEM768 with an X.509 certificate."""

import pytest

from antquic_server.protocol.codepoints import NamedGroup
from support.client_process import RunClient
from support.node import Node

pytestmark = [pytest.mark.end_to_end, pytest.mark.peers]


def test_client_completes_with_the_hybrid_group_and_a_certificate(echo_node: Node, qh3_client: RunClient) -> None:
    """Of the two shares it sends the node takes the post-quantum one, and a stream comes back whole."""
    result = qh3_client(echo_node.port, "--echo-bytes", "300000")

    assert result.ok, result.facts
    assert result.group == NamedGroup.X25519_ML_KEM_768
    assert result.certificate_type == "x509"
    assert result.echoed_bytes == 300000


@pytest.mark.parametrize("attempt", range(3))
def test_client_completes_every_time(echo_node: Node, qh3_client: RunClient, attempt: int) -> None:
    """The order of its extensions is random, so one success proves little."""
    result = qh3_client(echo_node.port, "--echo-bytes", "1")

    assert result.ok, result.facts
