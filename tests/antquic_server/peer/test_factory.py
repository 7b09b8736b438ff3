"""Real connections of a peer with itself, in memory."""

from dataclasses import replace

import pytest

from antquic_server.bench.load_client import random_node_key
from antquic_server.identity import identity_from_seed
from antquic_server.peer.factory import QuicFactory
from antquic_server.peer.registry import RANK_BYTES, RANK_CONTEXT, RANK_LABEL
from antquic_server.peer.settings import PeerSettings
from antquic_server.pqc.pool import PqcPool
from antquic_server.pqc.select import load_provider
from antquic_server.protocol.codepoints import NamedGroup
from antquic_server.protocol.profiles import HandshakeProfile
from antquic_server.protocol.routing import destination_connection_id_untrusted
from antquic_server.protocol.seam.connection import NodeQuicConnection
from antquic_server.protocol.seam.tls_context import TlsOptions

SEED = b"seed of a test".ljust(32, b".")
HERE, THERE = ("198.18.0.1", 1), ("198.18.0.2", 2)
TURNS = 12


def factory_with(**settings: object) -> QuicFactory:
    """Make a factory with a known key and the provider that is always there."""
    return QuicFactory(PeerSettings(identity_seed=SEED, pqc_provider="cryptography", **settings))  # type: ignore[arg-type]


def shake_hands(
    client: NodeQuicConnection, factory: QuicFactory, *, turns: int = 12
) -> tuple[NodeQuicConnection, list[int]]:
    """Connect a client to a server of the factory; returns the server and the sizes of all datagrams of both."""
    client.connect(THERE, 0.0)
    first = client.datagrams_to_send(0.0)
    cid = destination_connection_id_untrusted(first[0][0])
    assert cid is not None
    server = factory.server(cid)
    sizes = [len(data) for data, _ in first]
    for data, _ in first:
        server.receive_datagram(data, HERE, 0.0)
    for turn in range(TURNS):
        # Later each time, so that acknowledgements are not held back.
        now_s = 0.05 * turn
        for source, sink, place in ((server, client, THERE), (client, server, HERE)):
            timer_s = source.get_timer()
            if timer_s is not None and timer_s <= now_s:
                source.handle_timer(now_s)
            for data, _ in source.datagrams_to_send(now_s):
                sizes.append(len(data))
                sink.receive_datagram(data, place, now_s)
    return server, sizes


def test_the_two_roles_understand_each_other() -> None:
    """The handshake authenticates both ends with raw keys, and both derive the same rank."""
    factory = factory_with()
    client = factory.client("peer")
    server, _ = shake_hands(client, factory)

    key = identity_from_seed(SEED).public_key
    assert client.handshake_complete
    assert server.handshake_complete
    assert client.peer_public_key == server.peer_public_key == key
    assert server.profile is HandshakeProfile.ANT_QUIC
    rank = client.export_keying_material(RANK_LABEL, RANK_CONTEXT, RANK_BYTES)
    assert rank == server.export_keying_material(RANK_LABEL, RANK_CONTEXT, RANK_BYTES)
    assert len(rank) == RANK_BYTES
    factory.close()


@pytest.mark.parametrize(("initial", "maximum", "probes"), [(1200, 1452, 2), (1200, 1280, 2), (1300, 1300, 0)])
def test_both_roles_look_for_the_largest_datagram(initial: int, maximum: int, probes: int) -> None:
    """After a handshake of the initial size each sends one probe, of the maximum; with nothing to look for none."""
    factory = factory_with(mtu_initial=initial, mtu_max=maximum)
    client = factory.client("peer")
    server, sizes = shake_hands(client, factory)

    assert (client.path_mtu_bytes, server.path_mtu_bytes) == (maximum, maximum)
    assert factory.tally.mtu_probes_sent == probes
    assert sizes[0] == sizes[1] == initial
    assert [size for size in sizes if size > initial] == [maximum] * probes
    factory.close()


@pytest.mark.parametrize(("mode", "admitted"), [("require", False), ("any", True)])
def test_mode_decides_about_classical_key_exchange(mode: str, admitted: bool) -> None:
    """Of peers that dial us; they authenticate with the same raw keys."""
    factory = factory_with(pqc_mode=mode)
    pool = PqcPool(load_provider("cryptography"), 2)
    dialling = factory_with()
    tls = TlsOptions(pqc=pool, node_key=random_node_key(pool), client_groups=(NamedGroup.X25519,))
    dialling._options = replace(dialling._options, tls=tls)
    client = dialling.client("peer")
    server, _ = shake_hands(client, factory)

    assert (client.handshake_complete and server.handshake_complete) == admitted
    assert client.is_closing == (not admitted)
    for item in (factory, dialling):
        item.close()


def test_without_a_seed_the_key_is_fresh() -> None:
    """Two endpoints are two peers."""
    one, other = QuicFactory(PeerSettings()), QuicFactory(PeerSettings())

    assert one.identity.peer_id != other.identity.peer_id
