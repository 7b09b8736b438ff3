"""Paths through nodes: what a link compares and what a connection leaves room for."""

from antquic_server.net.udp import PathAddress
from antquic_server.peer.relay_paths import RelayPath, StreamRelayPath, is_relayed


def test_paths_that_differ_are_different() -> None:
    """Two channels of a node are two paths, and neither is the node's own address."""
    one, other = RelayPath("198.18.0.1", 1, b"a" * 7), RelayPath("198.18.0.1", 1, b"b" * 7)

    assert one != other
    assert one == RelayPath("198.18.0.1", 1, b"a" * 7)
    assert one[:2] == other[:2] == ("198.18.0.1", 1)
    assert StreamRelayPath("198.18.0.1", 1, 1) != StreamRelayPath("198.18.0.1", 1, 2)


def test_only_these_are_relayed() -> None:
    """And each says what it puts around a datagram."""
    assert is_relayed(RelayPath("198.18.0.1", 1, bytes(7)))
    assert is_relayed(StreamRelayPath("198.18.0.1", 1, 1))
    assert not is_relayed(("198.18.0.1", 1))
    assert not is_relayed(PathAddress("198.18.0.1", 1, 0, 0, b"", 0))
    assert RelayPath("198.18.0.1", 1, bytes(7)).overhead_bytes == 8
    assert StreamRelayPath("198.18.0.1", 1, 1).overhead_bytes == 24
