"""Tests of ``antquic_server.protocol.seam.initial_close``, as a client sees it."""

import pytest
from aioquic.quic.events import ConnectionTerminated

from antquic_server.protocol.codepoints import TransportErrorCode
from antquic_server.protocol.seam.initial_close import encode_initial_close
from support.pair import SERVER_ADDRESS, START_S, client_connection, open_initial, packet_headers


@pytest.mark.parametrize("code", [TransportErrorCode.CONNECTION_REFUSED, TransportErrorCode.INVALID_TOKEN, 0x128])
@pytest.mark.parametrize("source_cid_bytes", [0, 8, 20])
def test_client_ends_with_the_code(code: int, source_cid_bytes: int) -> None:
    """A client that has sent its hello and gets this datagram is closed, with the code it says."""
    client = client_connection(connection_id_bytes=source_cid_bytes)
    client.connect(SERVER_ADDRESS, START_S)
    (first, _), *_ = client.datagrams_to_send(START_S)
    header, _, _ = open_initial(first)
    refusal = encode_initial_close(
        version=1,
        client_source_cid=header.source_cid,
        client_destination_cid=header.destination_cid,
        error_code=code,
    )
    client.receive_datagram(refusal, SERVER_ADDRESS, START_S + 0.02)
    client.handle_timer(START_S + 30.0)
    events = []
    while (event := client.next_event()) is not None:
        events.append(event)
    assert [event.error_code for event in events if isinstance(event, ConnectionTerminated)] == [code]


def test_refusal_is_one_small_initial() -> None:
    """It is far smaller than what it answers: nothing to amplify with."""
    refusal = encode_initial_close(
        version=1, client_source_cid=bytes(20), client_destination_cid=bytes(20), error_code=0x100 + 255
    )
    assert len(refusal) < 150
    (header,) = packet_headers(refusal)
    assert (header.source_cid, header.destination_cid) == (bytes(20), bytes(20))


def test_refusal_for_another_connection_is_ignored() -> None:
    """The keys come from the client's own ID: nobody who has not seen it can close a connection."""
    client = client_connection()
    client.connect(SERVER_ADDRESS, START_S)
    (first, _), *_ = client.datagrams_to_send(START_S)
    header, _, _ = open_initial(first)
    refusal = encode_initial_close(
        version=1, client_source_cid=header.source_cid, client_destination_cid=bytes(8), error_code=2
    )
    client.receive_datagram(refusal, SERVER_ADDRESS, START_S + 0.02)
    assert not client.is_closing
