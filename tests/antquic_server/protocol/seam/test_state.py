"""Tests of ``antquic_server.protocol.seam.state``: what a connection answers before, during and after its life."""

from support.pair import CLIENT_ADDRESS, Pair, server_connection


def test_state_before_the_first_packet() -> None:
    """A connection that has seen nothing yet answers every question."""
    server = server_connection(bytes(8))
    assert (server.profile, server.peer_public_key, server.server_name, server.negotiated_group) == (None,) * 4
    assert not server.handshake_complete
    assert not server.hello_retry_request
    assert not server.is_closing
    assert not server.is_path_validated
    assert server.max_datagram_frame_bytes == 0
    server.abandon(0, "")
    assert server.is_terminated


def test_forged_source_is_no_validated_address() -> None:
    """The path follows it until it has failed to answer; what is proven is the address before."""
    pair = Pair().handshake()
    pair.advance(5.0)
    assert pair.server.validated_address == CLIENT_ADDRESS
    forged = ("198.51.100.66", 6666)
    pair.client.send_ping(1)
    for data, _ in pair.client.datagrams_to_send(pair.now_s):
        pair.server.receive_datagram(data, forged, pair.now_s)
    assert pair.server.get_peer_address() == forged
    assert pair.server.validated_address == CLIENT_ADDRESS


def test_stream_is_writable_until_its_end() -> None:
    """A stream takes data from its beginning until its end, a reset or a STOP_SENDING."""
    pair = Pair().handshake()
    for stream_id in (0, 4, 8):
        pair.client.send_stream_data(stream_id, b"x")
    assert not pair.server.stream_is_writable(0)
    pair.flush()
    pair.advance(0.1)
    assert all(pair.server.stream_is_writable(stream_id) for stream_id in (0, 4, 8))
    pair.server.send_stream_data(0, b"", end_stream=True)
    pair.server.reset_stream(4, 1)
    assert not any(pair.server.stream_is_writable(stream_id) for stream_id in (0, 4))
    pair.client.stop_stream(8, 1)
    pair.flush()
    pair.advance(0.1)
    assert not any(pair.server.stream_is_writable(stream_id) for stream_id in (0, 4, 8, 12))
