"""Traces of connections: valid qlog, switched on and off in the middle, and nothing where there is none."""

import json
from typing import Any

import pytest

from antquic_server.protocol.codepoints import FrameType, NamedGroup
from antquic_server.protocol.profiles import HandshakeProfile
from antquic_server.protocol.seam.connection import NodeQuicConnection
from antquic_server.protocol.seam.qlog import TAIL, ConnectionTrace, head
from support.pair import Link, Pair, client_connection, server_connection
from support.qlog import check_qlog, events_named, frames_of


class Recorder:
    """A file in memory."""

    def __init__(self, quic: NodeQuicConnection) -> None:
        self.texts: list[str] = []
        self.now_s = 1_700_000_000.0
        self.trace = ConnectionTrace(self.texts.append, self._clock, quic.original_destination_cid)
        self._head = head(
            title="a test", original_destination_cid=quic.original_destination_cid, description={"peer": '"quoted"'}
        )
        quic.set_trace(self.trace)

    def _clock(self) -> float:
        self.now_s += 0.001
        return self.now_s

    def finish(self) -> dict[str, Any]:
        """Return the trace, checked."""
        self.trace.flush()
        return check_qlog(self._head + ",\n".join(self.texts) + TAIL)


def traced_pair(**options: Any) -> tuple[Pair, list[Recorder]]:
    """Return a pair whose server is traced from its first packet on, and where the recorder will be."""
    recorders: list[Recorder] = []

    def make_server(destination_cid: bytes) -> NodeQuicConnection:
        quic = server_connection(destination_cid, allow_classical=True)
        recorders.append(Recorder(quic))
        return quic

    return Pair(make_server=make_server, **options), recorders


@pytest.mark.parametrize(
    ("profile", "group"),
    [
        (HandshakeProfile.ANT_QUIC, NamedGroup.ML_KEM_768),
        (HandshakeProfile.ANT_QUIC, NamedGroup.X25519_ML_KEM_768),
        (HandshakeProfile.X509, NamedGroup.X25519),
    ],
)
def test_whole_handshake_is_valid_qlog(profile: HandshakeProfile, group: NamedGroup) -> None:
    """Post-quantum or not: Initial, Handshake and 1-RTT packets both ways, with CRYPTO and our own frames."""
    key: dict[str, Any] = (
        {} if profile is HandshakeProfile.ANT_QUIC else {"without_key": True, "server_name": "localhost"}
    )
    pair, recorders = traced_pair(client=client_connection(profile=profile, groups=(group,), **key))
    pair.handshake()
    pair.client.send_stream_data(0, b"hello", end_stream=True)
    pair.client.send_datagram_frame(b"x" * 50)
    pair.flush()
    pair.advance(1.0)
    pair.client.close()
    pair.flush()
    pair.advance(1.0)
    trace = recorders[0].finish()

    for direction in ("sent", "received"):
        types = {data["header"]["packet_type"] for data in events_named(trace, f"transport:packet_{direction}")}
        assert types == {"initial", "handshake", "1RTT"}
    received = {frame["frame_type"] for frame in frames_of(trace, "received")}
    assert {"crypto", "ack", "stream", "datagram", "connection_close"} <= received
    assert events_named(trace, "transport:parameters_set")
    ours = [frame for frame in frames_of(trace, "sent") if frame["frame_type"] == "unknown"]
    assert {frame["raw_frame_type"] for frame in ours} == {FrameType.OBSERVED_ADDRESS_IPV4}
    assert ours[0]["name"] == "ObservedAddress"
    assert ours[0]["address"] == "192.0.2.7:50007"


def test_frames_of_a_received_packet_are_complete() -> None:
    """aioquic logs a packet before its frames: the text is made when they are there, in the order of events."""
    pair, recorders = traced_pair()
    pair.handshake()
    trace = recorders[0].finish()

    assert all(data["frames"] for data in events_named(trace, "transport:packet_received"))
    times = [event["time"] for event in trace["events"]]
    assert times == sorted(times)


def test_trace_begins_and_ends_on_a_living_connection() -> None:
    """Nothing of before and nothing of afterwards, and the connection goes on."""
    pair = Pair().handshake()
    recorder = Recorder(pair.server)
    server = pair.server
    assert server.trace == recorder.trace
    pair.client.send_stream_data(0, b"during")
    pair.flush()
    pair.advance(1.0)
    server.set_trace(None)
    assert server._loss._quic_logger is None
    count = len(recorder.texts)
    pair.client.send_stream_data(0, b"afterwards", end_stream=True)
    pair.flush()
    pair.advance(1.0)
    trace = recorder.finish()

    assert count >= len(recorder.texts) - 4, "only what waited was added"
    streams = [frame for frame in frames_of(trace, "received") if frame["frame_type"] == "stream"]
    assert [frame["length"] for frame in streams] == [len(b"during")]
    assert {data["header"]["packet_type"] for data in events_named(trace, "transport:packet_received")} == {"1RTT"}


def test_losses_and_probes_are_valid_too() -> None:
    """On a link that loses a tenth, switched on and off and on again."""
    pair = Pair(link=Link(loss=0.1), seed=7)
    pair.handshake()
    for round_number in range(3):
        recorder = Recorder(pair.server)
        for stream in range(4):
            pair.server.send_stream_data(4 * (4 * round_number + stream) + 1, bytes(20_000), end_stream=True)
        pair.flush()
        pair.advance(20.0)
        trace = recorder.finish()
        pair.server.set_trace(None)
        assert events_named(trace, "recovery:metrics_updated")


def test_disposed_connection_takes_no_trace() -> None:
    """It may have ended since somebody wanted to switch the trace off."""
    pair = Pair().handshake()
    recorder = Recorder(pair.server)
    server = pair.server
    server.dispose()
    server.set_trace(None)
    assert server.__dict__ == {}
    recorder.finish()


def test_head_is_json_whatever_the_texts() -> None:
    """A peer chooses none of them today; the file is valid even so."""
    text = head(title='"\n\\', original_destination_cid=b"\x01", description={"x": '"\n'}) + TAIL
    (trace,) = json.loads(text)["traces"]
    assert trace["title"] == '"\n\\'
    assert json.loads(trace["description"]) == {"x": '"\n'}
    assert trace["events"] == []
