"""Real connections of a peer with itself, in memory."""

from antquic_server.identity import identity_from_seed
from antquic_server.peer.factory import QuicFactory
from antquic_server.peer.registry import RANK_BYTES, RANK_CONTEXT, RANK_LABEL
from antquic_server.peer.settings import PeerSettings
from antquic_server.protocol.profiles import HandshakeProfile
from antquic_server.protocol.routing import destination_connection_id_untrusted

SEED = b"seed of a test".ljust(32, b".")
HERE, THERE = ("198.18.0.1", 1), ("198.18.0.2", 2)


def test_the_two_roles_understand_each_other() -> None:
    """The handshake authenticates both ends with raw keys, and both derive the same rank."""
    factory = QuicFactory(PeerSettings(identity_seed=SEED, pqc_provider="cryptography"))
    client = factory.client("peer")
    client.connect(THERE, 0.0)
    first = client.datagrams_to_send(0.0)
    cid = destination_connection_id_untrusted(first[0][0])
    assert cid is not None
    server = factory.server(cid)
    for data, _ in first:
        server.receive_datagram(data, HERE, 0.0)
    for _ in range(6):
        for data, _ in server.datagrams_to_send(0.0):
            client.receive_datagram(data, THERE, 0.0)
        for data, _ in client.datagrams_to_send(0.0):
            server.receive_datagram(data, HERE, 0.0)

    key = identity_from_seed(SEED).public_key
    assert client.handshake_complete
    assert server.handshake_complete
    assert client.peer_public_key == server.peer_public_key == key
    assert server.profile is HandshakeProfile.ANT_QUIC
    rank = client.export_keying_material(RANK_LABEL, RANK_CONTEXT, RANK_BYTES)
    assert rank == server.export_keying_material(RANK_LABEL, RANK_CONTEXT, RANK_BYTES)
    assert len(rank) == RANK_BYTES
    factory.close()


def test_without_a_seed_the_key_is_fresh() -> None:
    """Two endpoints are two peers."""
    one, other = QuicFactory(PeerSettings()), QuicFactory(PeerSettings())

    assert one.identity.peer_id != other.identity.peer_id
