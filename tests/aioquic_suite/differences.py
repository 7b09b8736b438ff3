"""Tests of aioquic that cannot pass with post-quantum TLS on, grouped by the reason why."""

_NO_RESUMPTION = """
We never select a PSK and never send NewSessionTicket: ant-quic peers present tickets of other nodes under a shared
server name. Without a ticket there is nothing to resume and no 0-RTT.
"""

_FLIGHT_SIZES = """
The test knows how many datagrams of which size each flight has, delivers just those, or writes down packet numbers
that follow from them. A hybrid ClientHello takes two datagrams instead of one, and the ServerHello is a kilobyte
longer.
"""

_RTT_AND_WINDOW = """
The test writes down a round-trip time or congestion window that depends on how many packets the handshake took.
"""

EXPECTED_DIFFERENCES: dict[str, str] = {
    "test_connect_and_serve_with_session_ticket": _NO_RESUMPTION,
    "test_connect_with_0rtt": _NO_RESUMPTION,
    "test_connect_with_0rtt_and_amplification_limited_paced_response": _NO_RESUMPTION,
    "test_connect_with_0rtt_and_amplification_limited_response": _NO_RESUMPTION,
    "test_connect_with_0rtt_and_late_0rtt_packet": _NO_RESUMPTION,
    "test_connect_with_0rtt_and_lost_client_first_flight": _NO_RESUMPTION,
    "test_connect_with_0rtt_bad_max_early_data": _NO_RESUMPTION,
    "test_connect_with_0rtt_without_loss": _NO_RESUMPTION,
    "test_connect_with_delayed_client_finished_and_session_ticket": _NO_RESUMPTION,
    "test_connect_with_late_server_handshake": _FLIGHT_SIZES,
    "test_connect_with_lost_client_initial": _FLIGHT_SIZES,
    "test_connect_with_lost_client_stream_data": _FLIGHT_SIZES,
    "test_connect_with_lost_server_encrypted_extensions": _FLIGHT_SIZES,
    "test_connect_with_lost_server_finished": _FLIGHT_SIZES,
    "test_connect_with_lost_server_handshake_and_full_congestion_window": _FLIGHT_SIZES,
    "test_connect_with_lost_server_handshake_done": _FLIGHT_SIZES,
    "test_connect_with_lost_server_initial": _FLIGHT_SIZES,
    "test_connect_with_lost_server_initial_and_handshake": _FLIGHT_SIZES,
    "test_connect_with_lost_server_initial_and_handshake_amplification_limited": _FLIGHT_SIZES,
    "test_connect_with_missing_client_finished_and_stream_data": _FLIGHT_SIZES,
    "test_connect_without_loss": _FLIGHT_SIZES,
    "test_datagram_frame_2": _RTT_AND_WINDOW,
    "test_migrate_amplification_limit_ack_size": _FLIGHT_SIZES,
    "test_migrate_to_spoofed_address_with_many_ack_ranges": _FLIGHT_SIZES,
    "test_migrate_with_small_datagram_and_ack_due": _FLIGHT_SIZES,
    "test_receive_datagram_retry": _FLIGHT_SIZES,
    "test_receive_datagram_retry_after_server_initial": _FLIGHT_SIZES,
    "test_version_negotiation_ok": _FLIGHT_SIZES,
    "test_migrate_amplification_limit_with_pacing": _RTT_AND_WINDOW,
    "test_send_max_data_blocked_by_cc": _RTT_AND_WINDOW,
}
