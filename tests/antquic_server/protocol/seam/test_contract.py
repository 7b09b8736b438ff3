"""
Every private name the seam borrows from aioquic, with its type or signature.

aioquic promises nothing about these. When its release changes, this file fails first and says which of our overrides
and accesses to look at; the last test makes sure that the tables leave nothing out.
"""

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest
from aioquic import tls
from aioquic.quic import connection as stock
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.congestion.base import create_congestion_control
from aioquic.quic.crypto import CryptoContext
from aioquic.quic.stream import QuicStream

import antquic_server.protocol.seam

SEAM = Path(antquic_server.protocol.seam.__path__[0])

CONNECTION_METHODS = {
    # Overridden.
    "_close_end": "() -> None",
    "_confirm_handshake": "() -> None",
    "_initialize": "(peer_cid: bytes) -> None",
    "_send_probing_frames": "(network_path: QuicNetworkPath, now: float) -> list[tuple[bytes, typing.Any]]",
    "_parse_transport_parameters": "(data: bytes, from_session_ticket: bool = False) -> None",
    "_replenish_connection_ids": "() -> None",
    "_serialize_transport_parameters": "() -> bytes",
    "_write_connection_limits": "(builder: QuicPacketBuilder, space: QuicPacketSpace) -> None",
    "_write_stream_limits": "(builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream) -> None",
    # Called, or handed on as delivery handlers.
    "_add_network_path": "(network_path: QuicNetworkPath) -> None",
    "_flush_builder": (
        "(builder: QuicPacketBuilder, network_path: QuicNetworkPath, peer_cid: bytes, now: float)"
        " -> list[tuple[bytes, typing.Any]]"
    ),
    "_retire_peer_cid": "(connection_id: QuicConnectionId) -> None",
    "_send_probe": "() -> None",
    "_on_connection_limit_delivery": "(delivery: QuicDeliveryState, limit: Limit) -> None",
    "_on_max_stream_data_delivery": "(delivery: QuicDeliveryState, stream: QuicStream) -> None",
}

CONNECTION_ATTRIBUTES = {
    "_QuicConnection__frame_handlers": "dict",
    "_close_event": "NoneType",
    "_close_pending": "bool",
    "_configuration": "QuicConfiguration",
    "_crypto_buffers": "dict",
    "_cryptos": "dict",
    "_cryptos_initial": "dict",
    "_datagrams_pending": "deque",
    "_events": "deque",
    "_handshake_complete": "bool",
    "_handshake_confirmed": "bool",
    "_host_cids": "list",
    "_is_client": "bool",
    "_local_initial_source_connection_id": "bytes",
    "_local_max_data": "Limit",
    "_local_max_stream_data_bidi_local": "int",
    "_local_max_stream_data_bidi_remote": "int",
    "_local_max_stream_data_uni": "int",
    "_local_max_streams_bidi": "Limit",
    "_local_max_streams_uni": "Limit",
    "_logger": "QuicConnectionAdapter",
    "_loss": "QuicPacketRecovery",
    "_max_datagram_size": "int",
    "_network_paths": "list",
    "_original_destination_connection_id": "bytes",
    "_packet_number": "int",
    "_peer_cid": "QuicConnectionId",
    "_peer_cid_available": "list",
    "_probe_pending": "bool",
    "_quic_logger": "NoneType",
    "_remote_max_datagram_frame_size": "NoneType",
    "_spaces": "dict",
    "_spin_bit": "bool",
    "_state": "QuicConnectionState",
    "_streams": "dict",
    "_streams_blocked_uni": "list",
    "_version": "QuicProtocolVersion",
}

RECOVERY_METHODS = {
    "_in_persistent_congestion": "(*, packets: list[QuicSentPacket]) -> bool",
    "_on_packets_lost": (
        "(*, congestion_event: bool = True, now: float, packets: collections.abc.Iterable[QuicSentPacket],"
        " persistent_congestion: bool = False, space: QuicPacketSpace) -> None"
    ),
}

RECOVERY_ATTRIBUTES = {
    "_cc": "RenoCongestionControl",
    "_pacer": "QuicPacketPacer",
    "_pto_count": "int",
    "_quic_logger": "NoneType",
    "_rtt_first_sample_time": "float",
    "_rtt_initialized": "bool",
    "_rtt_latest": "float",
    "_rtt_min": "float",
    "_rtt_smoothed": "float",
    "_rtt_variance": "float",
}

# Also in CONNECTION_ATTRIBUTES, under the same name.
DATAGRAM_SIZE_ATTRIBUTES = {"_max_datagram_size": "int"}

TLS_METHODS = {
    # Overridden, client side.
    "_client_handle_certificate_verify": "(input_buf: Buffer) -> None",
    "_client_handle_encrypted_extensions": "(input_buf: Buffer) -> None",
    "_client_handle_finished": "(input_buf: Buffer, output_buf: Buffer) -> None",
    "_client_handle_hello": "(input_buf: Buffer, output_buf: Buffer) -> None",
    "_client_send_hello": "(output_buf: Buffer) -> None",
    "_set_peer_certificate": "(certificate: Certificate) -> None",
    # Overridden, server side.
    "_server_handle_certificate": "(input_buf: Buffer) -> None",
    "_server_handle_certificate_verify": "(input_buf: Buffer) -> None",
    "_server_handle_hello": "(input_buf: Buffer, initial_buf: Buffer, handshake_buf: Buffer) -> None",
    # Called.
    "_server_expect_finished": "() -> None",
    "_set_state": "(state: State) -> None",
    "_setup_traffic_protection": "(direction: Direction, epoch: Epoch, label: bytes) -> None",
    "_signature_algorithms_for_private_key": "() -> list[SignatureAlgorithm]",
}

TLS_ATTRIBUTES = {
    "_alpn_protocols": "NoneType",
    "_certificate_request": "NoneType",
    "_cipher_suites": "list",
    "_dec_key": "NoneType",
    "_enc_key": "NoneType",
    "_is_client": "bool",
    "_key_schedule_proxy": "KeyScheduleProxy",
    "_legacy_compression_methods": "list",
    "_server_name": "NoneType",
    "_signature_algorithms": "list",
    "_supported_versions": "list",
}

SENDER_ATTRIBUTES = {"_buffer": "bytearray", "_buffer_fin": "NoneType", "_reset_error_code": "NoneType"}

AEAD_ATTRIBUTES = {"_aead": "AESGCM", "_iv": "int"}

HEADER_PROTECTION_ATTRIBUTES = {"_encryptor": "CipherContext", "_is_chacha20": "bool"}

PAIR_METHODS = {"_update_key": "(trigger: str) -> None"}

HEADER_PROTECTION_METHODS = {"_mask": "(sample: bytes) -> bytes"}


@pytest.fixture(scope="module")
def connection() -> stock.QuicConnection:
    """A stock client connection that has sent its Initial, so that all of its parts exist."""
    client = stock.QuicConnection(configuration=QuicConfiguration(is_client=True))
    client.connect(("127.0.0.1", 1), now=0.0)
    return client


def _signature(function: Any) -> str:
    """Return the signature with type names as they are spelled inside aioquic, modules left out."""
    words = str(inspect.signature(function)).replace("'", "")
    for module in ("aioquic._buffer", "aioquic.tls", "aioquic.quic.connection", "aioquic.quic.packet_builder"):
        words = words.replace(module + ".", "")
    return words.replace("aioquic.quic.recovery.", "").replace("aioquic.quic.stream.", "")


def _attribute_types(owner: object, names: dict[str, str]) -> dict[str, str]:
    return {name: type(getattr(owner, name)).__name__ for name in names}


def _method_signatures(owner: object, names: dict[str, str]) -> dict[str, str]:
    return {name: _signature(getattr(owner, name)) for name in names}


def test_connection_has_the_methods_we_override_and_call(connection: stock.QuicConnection) -> None:
    """aioquic's connection still calls, and can be called by, the methods of these names and signatures."""
    assert _method_signatures(connection, CONNECTION_METHODS) == CONNECTION_METHODS


def test_connection_has_the_attributes_we_read(connection: stock.QuicConnection) -> None:
    """aioquic's connection keeps its state where we look for it."""
    assert _attribute_types(connection, CONNECTION_ATTRIBUTES) == CONNECTION_ATTRIBUTES


def test_loss_detection_has_the_parts_we_use(connection: stock.QuicConnection) -> None:
    """Losses go through one method, and congestion control and pacing each keep the datagram size."""
    recovery = connection._loss

    assert _method_signatures(recovery, RECOVERY_METHODS) == RECOVERY_METHODS
    assert _attribute_types(recovery, RECOVERY_ATTRIBUTES) == RECOVERY_ATTRIBUTES
    for part in (recovery._cc, recovery._pacer, create_congestion_control("cubic", max_datagram_size=1200)):
        assert _attribute_types(part, DATAGRAM_SIZE_ATTRIBUTES) == DATAGRAM_SIZE_ATTRIBUTES


def test_tls_context_has_the_methods_we_override_and_call(connection: stock.QuicConnection) -> None:
    """aioquic's TLS context still dispatches to the methods of these names and signatures."""
    assert _method_signatures(connection.tls, TLS_METHODS) == TLS_METHODS


def test_tls_context_has_the_attributes_we_read(connection: stock.QuicConnection) -> None:
    """aioquic's TLS context keeps its state where we look for it."""
    assert _attribute_types(connection.tls, TLS_ATTRIBUTES) == TLS_ATTRIBUTES


def test_stream_sender_has_the_attributes_we_read() -> None:
    """The unsent and unacknowledged bytes of a stream are where the flow-control bound counts them."""
    assert _attribute_types(QuicStream(0).sender, SENDER_ATTRIBUTES) == SENDER_ATTRIBUTES


def test_packet_protection_has_the_parts_we_use(connection: stock.QuicConnection) -> None:
    """AEAD and header protection of an epoch are made of the parts that our faster functions use."""
    context: CryptoContext = connection._cryptos_initial[1].send

    assert _attribute_types(context.aead, AEAD_ATTRIBUTES) == AEAD_ATTRIBUTES
    assert _attribute_types(context.hp, HEADER_PROTECTION_ATTRIBUTES) == HEADER_PROTECTION_ATTRIBUTES
    assert _method_signatures(context.hp, HEADER_PROTECTION_METHODS) == HEADER_PROTECTION_METHODS
    assert _method_signatures(connection._cryptos_initial[1], PAIR_METHODS) == PAIR_METHODS


def test_frame_handler_table_maps_type_to_handler_and_epochs(connection: stock.QuicConnection) -> None:
    """The name-mangled table holds (handler, epochs) by frame type, and a handler takes context, type, buffer."""
    table: dict[int, Any] = connection._QuicConnection__frame_handlers  # type: ignore[attr-defined]
    handler, epochs = table[0x1C]

    assert list(inspect.signature(handler).parameters) == ["context", "frame_type", "buf"]
    assert stock.EPOCHS("01") == frozenset({tls.Epoch.ZERO_RTT, tls.Epoch.ONE_RTT})
    assert isinstance(epochs, frozenset)


def test_the_tables_name_everything_the_seam_borrows(connection: stock.QuicConnection) -> None:
    """No module of the seam uses a private name of aioquic that the tables above leave out."""
    listed = {
        *CONNECTION_METHODS,
        *CONNECTION_ATTRIBUTES,
        *RECOVERY_METHODS,
        *RECOVERY_ATTRIBUTES,
        *TLS_METHODS,
        *TLS_ATTRIBUTES,
        *SENDER_ATTRIBUTES,
        *AEAD_ATTRIBUTES,
        *HEADER_PROTECTION_ATTRIBUTES,
        *HEADER_PROTECTION_METHODS,
        *PAIR_METHODS,
    }
    pair = connection._cryptos_initial[1]
    protection = pair.send
    owners = (
        *(connection, connection._loss, connection._loss._cc, connection._loss._pacer, pair),
        *(connection.tls, QuicStream(0).sender, protection, protection.aead, protection.hp),
    )
    borrowed: set[str] = set()
    for path in SEAM.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node, "attr", getattr(node, "name", None))
            if isinstance(name, str) and name.startswith("_") and not name.startswith("__"):
                borrowed.update({name} if any(hasattr(owner, name) for owner in owners) else ())

    assert borrowed - listed == set()
    assert listed - borrowed == set()
