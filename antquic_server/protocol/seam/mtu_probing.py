"""
Path MTU discovery on aioquic's connection (RFC 8899; RFC 9000, section 14).

Probes are PING and PADDING, so nothing has to be repeated when one is lost, and their loss is no sign of congestion
(RFC 9000, section 14.4). Which sizes are probed, and when a path counts as a black hole, is decided in
``protocol.path_mtu``; here its decisions meet aioquic's packets. A lost probe needs no timer of its own: it is
ack-eliciting, so aioquic's probe timeout finds it. Probes that the kernel refuses (EMSGSIZE) end the same way.

A path that is new begins with the smallest size, and, unless only the port of the peer has changed, with congestion
control and round-trip time as unknown as at the start (RFC 9000, section 9.4). A path may say with an attribute
``overhead_bytes`` of its address how much it puts around each datagram.

The raise timer wakes nobody up either. It is looked at when the connection has something to send, which on an idle
connection is the next keep-alive.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable
from typing import Any

from aioquic.buffer import Buffer
from aioquic.quic import connection as stock
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.congestion.base import create_congestion_control
from aioquic.quic.packet import QuicFrameType, QuicPacketType
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder, QuicSentPacket
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.recovery import QuicPacketPacer, QuicPacketRecovery, QuicPacketSpace
from aioquic.tls import Epoch

from antquic_server.protocol.path_mtu import MIN_DATAGRAM_BYTES, BlackHoleDetector, PathMtu
from antquic_server.protocol.seam.options import ConnectionOptions, Tally
from antquic_server.protocol.seam.sliding_windows import SlidingWindowConnection

_MAX_UDP_PAYLOAD_SIZE = 0x03  # RFC 9000, section 18.2

_MAX_SUSPECTS = 64
"""Lost packets remembered by number; a late acknowledgement of one clears the path of its size."""

# Short header, packet number and tag; then frame type and a two-byte length. The connection ID comes on top.
_DATAGRAM_FRAME_OVERHEAD = 1 + 2 + 16 + 3


_Measured = tuple[bool, float, float, float, float, float]
"""What aioquic knows of the round-trip time."""

_UNMEASURED: _Measured = (False, 0.0, 0.0, math.inf, 0.0, 0.0)


class MtuRecovery(QuicPacketRecovery):
    """
    aioquic's loss detection, which tells lost probes from lost traffic.

    ``probes`` has the ticket of each probe in flight by packet number.
    """

    def __init__(self, *, path_mtu: PathMtu, tally: Tally, **stock_arguments: Any) -> None:
        super().__init__(**stock_arguments)
        self._algorithm: str = stock_arguments["congestion_control_algorithm"]
        self._first_of_path = 0
        """Number of the first packet sent on the present path, once a packet of an earlier one may be in flight."""
        self.path_mtu = path_mtu
        self.probes: dict[int, int] = {}
        self._tally = tally
        self._detector = BlackHoleDetector()
        self._unsure: dict[int, int] = {}
        """Probes that a probe timeout gave up: lost only if the path turns out to be alive."""
        self._suspects: dict[int, int] = {}
        """Sizes of large packets declared lost lately, by packet number."""
        self._watching = False
        """Whether acknowledgements matter here; False nearly always."""
        self._acked_at_s = 0.0

    def path_changed(self, now_s: float) -> None:
        """Begin anew on another path; what is still in flight on the old one does not count."""
        self.path_mtu.path_changed(now_s)
        self._detector.reset(now_s)
        self._unsure.clear()
        self._suspects.clear()

    def measure_anew(self, next_packet_number: int, datagram_bytes: int) -> None:
        """Know nothing of congestion and round-trip time; what is in flight elsewhere weighs on no window here."""
        for space in self.spaces:
            for packet in space.sent_packets.values():
                packet.in_flight = False
        self._cc = create_congestion_control(self._algorithm, max_datagram_size=datagram_bytes)
        self._pacer = QuicPacketPacer(max_datagram_size=datagram_bytes)
        self._pto_count = 0
        self._first_of_path = next_packet_number
        self._measured = _UNMEASURED

    @property
    def _measured(self) -> _Measured:
        first_s, latest_s, least_s = self._rtt_first_sample_time, self._rtt_latest, self._rtt_min
        return self._rtt_initialized, first_s, latest_s, least_s, self._rtt_smoothed, self._rtt_variance

    @_measured.setter
    def _measured(self, values: _Measured) -> None:
        self._rtt_initialized, self._rtt_first_sample_time, self._rtt_latest = values[:3]
        self._rtt_min, self._rtt_smoothed, self._rtt_variance = values[3:]

    def probe_acked(self, packet_number: int) -> None:
        """A probe has arrived, says the acknowledgement that is being handled."""
        ticket = self.probes.pop(packet_number, None)
        if ticket is not None:
            self.path_mtu.probe_acked(ticket, self._acked_at_s)

    def set_datagram_size(self, size_bytes: int) -> None:
        """Let congestion control and pacing reckon with this size (RFC 9002, section 7.2)."""
        controller: Any = self._cc
        controller._max_datagram_size = size_bytes
        self._pacer._max_datagram_size = size_bytes

    def on_ack_received(self, *, ack_rangeset: RangeSet, ack_delay: float, now: float, space: QuicPacketSpace) -> None:
        """Handle an ACK frame; while something is suspected, look at what it says about sizes."""
        self._acked_at_s = now
        if self._first_of_path and space.is_application_data:
            if ack_rangeset.bounds().stop <= self._first_of_path:
                # All of it was sent on the path we have left: no measure of this one.
                measured = self._measured
                super().on_ack_received(ack_rangeset=ack_rangeset, ack_delay=ack_delay, now=now, space=space)
                self._measured = measured
                return
            self._first_of_path = 0
        if not self._watching or not space.is_application_data:
            super().on_ack_received(ack_rangeset=ack_rangeset, ack_delay=ack_delay, now=now, space=space)
            return
        sent = space.sent_packets
        arrived = [sent[number].sent_bytes for number in _acknowledged(ack_rangeset, list(sent))]
        super().on_ack_received(ack_rangeset=ack_rangeset, ack_delay=ack_delay, now=now, space=space)
        if arrived:
            # Overtaken on the way and declared lost, but there: no rarity where datagrams are reordered.
            arrived += [self._suspects.pop(number) for number in _acknowledged(ack_rangeset, sorted(self._suspects))]
            self._judge(ack_rangeset, max(arrived), now)

    def _judge(self, ack_rangeset: RangeSet, largest_bytes: int, now_s: float) -> None:
        for packet_number, ticket in self._unsure.items():
            if packet_number in ack_rangeset:
                self.path_mtu.probe_acked(ticket, now_s)
            else:
                self._probe_lost(ticket, now_s)
        self._unsure.clear()
        if self._detector.acked(largest_bytes, now_s):
            self._detector.reset(now_s)
            if self.path_mtu.black_hole(now_s):
                self._tally.mtu_black_holes += 1
        self._watching = self._detector.suspicious
        if not self._watching:
            self._suspects.clear()

    def _on_packets_lost(
        self,
        *,
        congestion_event: bool = True,
        now: float,
        packets: Iterable[QuicSentPacket],
        persistent_congestion: bool = False,
        space: QuicPacketSpace,
    ) -> None:
        traffic = list(packets)
        if traffic and space.is_application_data:
            probes = [packet for packet in traffic if packet.packet_number in self.probes]
            if probes:
                traffic = [packet for packet in traffic if packet.packet_number not in self.probes]
                super()._on_packets_lost(congestion_event=False, now=now, packets=probes, space=space)
                self._probes_lost(probes, now, certain=congestion_event)
                persistent_congestion = persistent_congestion and self._in_persistent_congestion(packets=traffic)
            self._suspect([packet for packet in traffic if packet.in_flight])
        super()._on_packets_lost(
            congestion_event=congestion_event,
            now=now,
            packets=traffic,
            persistent_congestion=persistent_congestion,
            space=space,
        )

    def _probes_lost(self, probes: list[QuicSentPacket], now_s: float, *, certain: bool) -> None:
        for packet in probes:
            ticket = self.probes.pop(packet.packet_number)
            if certain:
                self._probe_lost(ticket, now_s)
            else:
                self._unsure[packet.packet_number] = ticket
                self._watching = True

    def _probe_lost(self, ticket: int, now_s: float) -> None:
        self._tally.mtu_probes_lost += 1
        self.path_mtu.probe_lost(ticket, now_s)

    def _suspect(self, packets: list[QuicSentPacket]) -> None:
        if packets:
            for packet in packets:
                if packet.sent_bytes > MIN_DATAGRAM_BYTES and len(self._suspects) < _MAX_SUSPECTS:
                    self._suspects[packet.packet_number] = packet.sent_bytes
            smallest_bytes = min(packet.sent_bytes for packet in packets)
            self._detector.lost(smallest_bytes, max(packet.sent_time or 0.0 for packet in packets))
            self._watching = self._watching or self._detector.suspicious


class MtuProbingConnection(SlidingWindowConnection):
    """aioquic's connection with path MTU discovery, if the options give an upper bound."""

    def __init__(self, *, configuration: QuicConfiguration, options: ConnectionOptions, **stock_arguments: Any) -> None:
        super().__init__(configuration=configuration, options=options, **stock_arguments)
        self._mtu_recovery: MtuRecovery | None = None
        self._mtu_path: stock.QuicNetworkPath | None = None
        if options.mtu_initial is not None:
            self._max_datagram_size = options.mtu_initial
        if options.mtu_max is not None:
            self._mtu_recovery = self._make_recovery(options, options.mtu_max)
            self._loss = self._mtu_recovery

    @property
    def path_mtu_bytes(self) -> int:
        """The largest datagram this connection sends now, probes apart."""
        return self._max_datagram_size

    @property
    def max_datagram_frame_bytes(self) -> int:
        """Largest DATAGRAM payload that fits one packet to this peer, 0 if it accepts none."""
        if not self._remote_max_datagram_frame_size:
            return 0
        overhead = _DATAGRAM_FRAME_OVERHEAD + len(self._peer_cid.cid)
        return min(self._max_datagram_size - overhead, self._remote_max_datagram_frame_size - 3)

    # Overridden steps of aioquic.

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Any]]:
        """Return the datagrams due, of the size the path carries; a probe that is due comes first."""
        recovery = self._mtu_recovery
        if recovery is None:
            return super().datagrams_to_send(now)
        path = self._network_paths[0]
        if path is not self._mtu_path:
            self._take_path(recovery, path, now)
        path_mtu = recovery.path_mtu
        size_bytes = path_mtu.size_bytes
        if size_bytes != self._max_datagram_size:
            self._resize(recovery, size_bytes)
        in_doubt = self._probe_pending or path.remote_challenges or not path.is_validated
        if in_doubt and size_bytes > MIN_DATAGRAM_BYTES and self._handshake_confirmed:
            # What is sent to find out whether anything arrives must not depend on the size in doubt. A challenge of
            # the peer may mean a new path that we know nothing of; aioquic pads the response to the full size.
            return self._at_smallest_size(super().datagrams_to_send, now)
        if now >= path_mtu.due_s:
            # First, before traffic has filled the congestion window.
            return self._send_mtu_probe(recovery, path, now) + super().datagrams_to_send(now)
        return super().datagrams_to_send(now)

    def _send_probing_frames(self, network_path: stock.QuicNetworkPath, now: float) -> list[tuple[bytes, Any]]:
        if self._mtu_recovery is None:
            return super()._send_probing_frames(network_path=network_path, now=now)
        # Padded to what any path carries (RFC 9000, section 8.2.1), not to what the present one does.
        return self._at_smallest_size(super()._send_probing_frames, network_path, now)

    def _confirm_handshake(self) -> None:
        super()._confirm_handshake()
        if self._mtu_recovery is not None:
            self._mtu_recovery.path_mtu.handshake_confirmed()

    def _parse_transport_parameters(self, data: bytes, from_session_ticket: bool = False) -> None:
        super()._parse_transport_parameters(data, from_session_ticket)
        if self._mtu_recovery is not None:
            peer_max_bytes = _max_udp_payload_size(data)
            if peer_max_bytes is not None:
                self._mtu_recovery.path_mtu.limit(peer_max_bytes)

    # Our own steps.

    def _take_path(self, recovery: MtuRecovery, path: stock.QuicNetworkPath, now: float) -> None:
        before, self._mtu_path = self._mtu_path, path
        overhead_bytes = getattr(path.addr, "overhead_bytes", 0)
        recovery.path_mtu.set_overhead(overhead_bytes)
        if before is None:
            return
        recovery.path_changed(now)
        if overhead_bytes or getattr(before.addr, "overhead_bytes", 0) or before.addr[0] != path.addr[0]:
            recovery.measure_anew(self._packet_number, recovery.path_mtu.size_bytes)
            # Acknowledged, it tells what of the old path is lost; and a server follows a client that says something.
            self._send_probe()

    def _make_recovery(self, options: ConnectionOptions, max_bytes: int) -> MtuRecovery:
        """Return what takes the place of the loss detection that aioquic has just made, with the same arguments."""
        configuration = self._configuration
        return MtuRecovery(
            path_mtu=PathMtu(
                min_bytes=options.mtu_min or MIN_DATAGRAM_BYTES,
                initial_bytes=self._max_datagram_size,
                max_bytes=max_bytes,
            ),
            tally=options.tally,
            congestion_control_algorithm=configuration.congestion_control_algorithm,
            initial_rtt=configuration.initial_rtt,
            max_datagram_size=self._max_datagram_size,
            peer_completed_address_validation=not self._is_client,
            quic_logger=self._quic_logger,
            send_probe=self._send_probe,
            logger=self._logger,
        )

    def _send_mtu_probe(
        self, recovery: MtuRecovery, path: stock.QuicNetworkPath, now: float
    ) -> list[tuple[bytes, Any]]:
        if not path.is_validated or self._close_pending or self._state in stock.END_STATES:
            return []
        size_bytes = recovery.path_mtu.next_probe(now)
        if size_bytes is None or size_bytes > recovery.congestion_window - recovery.bytes_in_flight:
            return []
        peer_cid = self._peer_cid.cid
        builder = QuicPacketBuilder(
            host_cid=self.host_cid,
            is_client=self._is_client,
            max_datagram_size=size_bytes,
            packet_number=self._packet_number,
            peer_cid=peer_cid,
            quic_logger=self._quic_logger,
            spin_bit=self._spin_bit,
            version=self._version or 0,
        )
        builder.start_packet(QuicPacketType.ONE_RTT, self._cryptos[Epoch.ONE_RTT])
        buf = builder.start_frame(
            QuicFrameType.PING,
            handler=self._on_mtu_probe_delivery,
            handler_args=(recovery, builder.packet_number),
        )
        buf.push_bytes(bytes(builder.remaining_buffer_space))  # PADDING
        recovery.probes[builder.packet_number] = recovery.path_mtu.probe_sent()
        self._options.tally.mtu_probes_sent += 1
        return self._flush_builder(builder=builder, network_path=path, peer_cid=peer_cid, now=now)

    def _on_mtu_probe_delivery(self, delivery: QuicDeliveryState, recovery: MtuRecovery, packet_number: int) -> None:
        if delivery is QuicDeliveryState.ACKED:
            recovery.probe_acked(packet_number)

    def _resize(self, recovery: MtuRecovery, size_bytes: int) -> None:
        shrunk = size_bytes < self._max_datagram_size
        self._max_datagram_size = size_bytes
        recovery.set_datagram_size(size_bytes)
        if shrunk and self._datagrams_pending:
            # aioquic would wait for room for the first of them for ever.
            fitting = [data for data in self._datagrams_pending if len(data) <= self.max_datagram_frame_bytes]
            self._options.tally.mtu_datagram_frames_dropped += len(self._datagrams_pending) - len(fitting)
            self._datagrams_pending.clear()
            self._datagrams_pending.extend(fitting)

    def _at_smallest_size(self, send: Any, *arguments: Any) -> list[tuple[bytes, Any]]:
        size_bytes = self._max_datagram_size
        self._max_datagram_size = MIN_DATAGRAM_BYTES
        try:
            datagrams: list[tuple[bytes, Any]] = send(*arguments)
        finally:
            self._max_datagram_size = size_bytes
        return datagrams


def _acknowledged(ack_rangeset: RangeSet, numbers: list[int]) -> list[int]:
    """Those of the packet numbers, which are sorted, that an ACK frame acknowledges."""
    # The peer chooses how many ranges there are, so none of them may cost a walk over the packets.
    return [
        number
        for acked in ack_rangeset
        for number in numbers[bisect_left(numbers, acked.start) : bisect_left(numbers, acked.stop)]
    ]


def _max_udp_payload_size(data: bytes) -> int | None:
    """Find one parameter in a list that aioquic has accepted."""
    buf = Buffer(data=data)
    while not buf.eof():
        parameter_id, length = buf.pull_uint_var(), buf.pull_uint_var()
        if parameter_id == _MAX_UDP_PAYLOAD_SIZE:
            return buf.pull_uint_var()
        buf.seek(buf.tell() + length)
    return None
