"""Checks of qlog files against draft-ietf-quic-qlog-main-schema-02 and draft-ietf-quic-qlog-quic-events-01."""

import json
from typing import Any, NoReturn

__all__ = ["check_qlog", "events_named", "frames_of"]

EVENTS = {
    *("transport:version_information", "transport:parameters_set", "transport:parameters_restored"),
    *("transport:packet_sent", "transport:packet_received", "transport:packet_dropped", "transport:packet_buffered"),
    *("transport:datagrams_sent", "transport:datagrams_received", "transport:datagram_dropped"),
    *("security:key_updated", "security:key_retired"),
    *("recovery:parameters_set", "recovery:metrics_updated", "recovery:congestion_state_updated"),
    *("recovery:loss_timer_updated", "recovery:packet_lost", "recovery:marked_for_retransmit"),
    *("connectivity:connection_started", "connectivity:connection_closed", "connectivity:connection_state_updated"),
    *("connectivity:connection_id_updated", "connectivity:spin_bit_updated", "transport:alpn_information"),
}
PACKET_TYPES = {"initial", "handshake", "0RTT", "1RTT", "retry", "version_negotiation"}
FRAME_FIELDS: dict[str, dict[str, type]] = {
    "padding": {},
    "ping": {},
    "ack": {"acked_ranges": list},
    "reset_stream": {"stream_id": int, "error_code": int, "final_size": int},
    "stop_sending": {"stream_id": int, "error_code": int},
    "crypto": {"offset": int, "length": int},
    "new_token": {},
    "stream": {"stream_id": int, "offset": int, "length": int},
    "max_data": {"maximum": int},
    "max_stream_data": {"stream_id": int, "maximum": int},
    "max_streams": {"stream_type": str, "maximum": int},
    "data_blocked": {"limit": int},
    "stream_data_blocked": {"stream_id": int, "limit": int},
    "streams_blocked": {"stream_type": str, "limit": int},
    "new_connection_id": {"sequence_number": int, "retire_prior_to": int, "connection_id": str},
    "retire_connection_id": {"sequence_number": int},
    "path_challenge": {"data": str},
    "path_response": {"data": str},
    "connection_close": {"error_space": str},
    "handshake_done": {},
    "datagram": {"length": int},
    "unknown": {"raw_frame_type": int},
}
"""Frames of the drafts, each with what it must have, DATAGRAM as in the drafts that came later."""


def check_qlog(text: str) -> dict[str, Any]:
    """Return the one trace of a file after checking everything that the schema demands; AssertionError if not valid."""
    document = json.loads(text, parse_constant=_no_constant)
    assert document["qlog_version"] == "0.3"
    assert document["qlog_format"] == "JSON"
    (trace,) = document["traces"]
    assert trace["vantage_point"]["type"] == "server"
    common = trace["common_fields"]
    assert common["time_format"] == "absolute"
    assert common["protocol_type"] == ["QUIC"]
    assert bytes.fromhex(common["ODCID"])
    last = 0.0
    for event in trace["events"]:
        assert event.keys() == {"time", "name", "data"}, event
        assert event["name"] in EVENTS, event
        assert isinstance(event["data"], dict), event
        assert event["time"] >= last, event
        last = event["time"]
        if event["name"] in ("transport:packet_sent", "transport:packet_received"):
            _check_packet(event["data"])
    assert isinstance(trace, dict)
    return trace


def events_named(trace: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the data of all events of one name."""
    return [event["data"] for event in trace["events"] if event["name"] == name]


def frames_of(trace: dict[str, Any], direction: str) -> list[dict[str, Any]]:
    """Return all frames of packets that were ``sent`` or ``received``."""
    return [frame for data in events_named(trace, f"transport:packet_{direction}") for frame in data["frames"]]


def _check_packet(data: dict[str, Any]) -> None:
    assert data["header"]["packet_type"] in PACKET_TYPES, data
    assert isinstance(data["header"]["packet_number"], int), data
    assert data["raw"]["length"] > 0, data
    for frame in data["frames"]:
        required = FRAME_FIELDS[frame["frame_type"]]
        for name, kind in required.items():
            assert isinstance(frame[name], kind), frame


def _no_constant(word: str) -> NoReturn:
    raise AssertionError(f"{word} is no JSON")
