"""
A CONNECTION_CLOSE in a lone Initial packet, for clients that get no connection.

Refusing with a packet tells the client at once; silence costs it its handshake timeout. Nothing is kept: the keys
derive from the connection ID the client chose (RFC 9001, section 5.2).
"""

from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicFrameType, QuicPacketType
from aioquic.quic.packet_builder import QuicPacketBuilder

_MAX_DATAGRAM_BYTES = 1200
_FRAME_CAPACITY_BYTES = 16


def encode_initial_close(
    *, version: int, client_source_cid: bytes, client_destination_cid: bytes, error_code: int
) -> bytes:
    """
    Build one datagram that closes a connection before it exists.

    Args:
        version: QUIC version of the client's Initial.
        client_source_cid: Its Source Connection ID, to which we answer.
        client_destination_cid: Its Destination Connection ID, from which the Initial keys derive.
        error_code: Transport error code (RFC 9000, section 20.1).
    """
    crypto = CryptoPair()
    crypto.setup_initial(cid=client_destination_cid, is_client=False, version=version)
    builder = QuicPacketBuilder(
        host_cid=client_destination_cid,
        is_client=False,
        max_datagram_size=_MAX_DATAGRAM_BYTES,
        peer_cid=client_source_cid,
        version=version,
    )
    builder.start_packet(QuicPacketType.INITIAL, crypto)
    buf = builder.start_frame(QuicFrameType.TRANSPORT_CLOSE, capacity=_FRAME_CAPACITY_BYTES)
    buf.push_uint_var(error_code)
    buf.push_uint_var(QuicFrameType.PADDING)
    buf.push_uint_var(0)
    datagrams, _ = builder.flush()
    return datagrams[0]
