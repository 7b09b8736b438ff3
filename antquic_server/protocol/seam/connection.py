"""
aioquic's connection with our handshake, our connection IDs and the NAT-traversal frames.

Everything here is switched on by :class:`ConnectionOptions`; without them the class behaves exactly as aioquic's
own, which its own test suite checks (``tests/aioquic_suite``). What is borrowed from aioquic's private parts is
listed, name by name, in ``tests/antquic_server/protocol/seam/test_contract.py``.
"""

from dataclasses import dataclass
from typing import Any

from aioquic.buffer import Buffer
from aioquic.quic import connection as stock
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.tls import Epoch

from antquic_server.errors import FrameDecodeError, TransportParameterDecodeError
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.address_discovery import (
    ObservedAddressReceiver,
    ObservedAddressReporter,
    RemoteCandidates,
)
from antquic_server.protocol.codepoints import FrameType
from antquic_server.protocol.frames import (
    AddAddress,
    ExtensionFrame,
    ObservedAddress,
    RemoveAddress,
    frame_capacity,
    frame_type_of,
    pull_frame_untrusted,
    push_frame_body,
)
from antquic_server.protocol.parameters import (
    ExtensionParameters,
    nat_traversal_negotiated,
    pull_extension_parameters_untrusted,
    push_extension_parameters,
    receives_observed_address,
    sends_observed_address,
)
from antquic_server.protocol.profiles import HandshakeProfile
from antquic_server.protocol.seam.client_tls import ClientTlsContext
from antquic_server.protocol.seam.fast_crypto import install_fast_crypto
from antquic_server.protocol.seam.options import DEFAULT_OPTIONS, ConnectionOptions
from antquic_server.protocol.seam.server_tls import ServerTlsContext
from antquic_server.protocol.seam.state import ReadableConnection
from antquic_server.protocol.seam.tls_context import RawPublicKeyMixin

_OBSERVED_ADDRESS_TYPES = (FrameType.OBSERVED_ADDRESS_IPV4, FrameType.OBSERVED_ADDRESS_IPV6)
_NAT_TRAVERSAL_TYPES = (
    FrameType.ADD_ADDRESS_IPV4,
    FrameType.ADD_ADDRESS_IPV6,
    FrameType.PUNCH_ME_NOW_IPV4,
    FrameType.PUNCH_ME_NOW_IPV6,
    FrameType.REMOVE_ADDRESS,
    FrameType.TRY_CONNECT_TO_IPV4,
    FrameType.TRY_CONNECT_TO_IPV6,
    FrameType.TRY_CONNECT_TO_RESPONSE_IPV4,
    FrameType.TRY_CONNECT_TO_RESPONSE_IPV6,
)

MAX_BLOCKED_STREAMS = 16
"""Messages that may wait for MAX_STREAMS of the peer."""

_SHARED_EPOCHS: dict[frozenset[Epoch], frozenset[Epoch]] = {}


@dataclass
class ExtensionFrameReceived(QuicEvent):
    """An extension frame arrived; ``used`` is False when it was out of bounds or stale and had no effect."""

    frame: ExtensionFrame
    used: bool


class NodeQuicConnection(ReadableConnection):
    """A QUIC connection of ours, in either role; driven exactly like aioquic's."""

    def __init__(
        self,
        *,
        configuration: QuicConfiguration,
        options: ConnectionOptions | None = None,
        **stock_arguments: Any,
    ) -> None:
        super().__init__(configuration=configuration, options=options or DEFAULT_OPTIONS, **stock_arguments)
        self.reporter = ObservedAddressReporter()
        self.observed_by_peer = ObservedAddressReceiver()
        self.candidates = RemoteCandidates(self._options.max_candidates)
        self.remote_extensions: ExtensionParameters | None = None
        self._reported_addr: Any = None
        self._addresses_due: list[AddAddress | RemoveAddress] = []
        if self._options.new_connection_id is not None:
            self._replace_first_connection_id(self._options.new_connection_id())
        if self._options.extensions is not None:
            self._register_extension_frames()

    # What the rest of the project reads.

    @property
    def profile(self) -> HandshakeProfile | None:
        """The handshake profile a server chose for this client."""
        context = self._node_tls
        return context.profile if isinstance(context, ServerTlsContext) else None

    @property
    def peer_public_key(self) -> bytes | None:
        """The peer's authenticated raw public key, None for an anonymous or X.509 peer."""
        context = self._node_tls
        return context.peer_public_key if context is not None and self._handshake_complete else None

    def export_keying_material(self, label: bytes, context: bytes, length: int) -> bytes:
        """Derive bytes both ends of this connection know (RFC 8446, section 7.5); b"" without our handshake."""
        node_tls = self._node_tls
        return b"" if node_tls is None else node_tls.export_keying_material(label, context, length)

    @property
    def server_name(self) -> str | None:
        """The name in the client's SNI extension."""
        context = self._node_tls
        return context.client_server_name if isinstance(context, ServerTlsContext) else None

    @property
    def negotiated_group(self) -> int | None:
        """Named group of the key exchange."""
        return None if self._node_tls is None else self._node_tls.negotiated_group

    @property
    def hello_retry_request(self) -> bool:
        """Whether the handshake took a HelloRetryRequest."""
        return self._node_tls is not None and self._node_tls.hello_retry_request

    def send_message(self, data: bytes) -> bool:
        """
        Send a unidirectional stream of its own; False if the peer keeps too many earlier ones waiting.

        A peer that grants no streams would else have us hold one for each message it provokes.
        """
        if len(self._streams_blocked_uni) >= MAX_BLOCKED_STREAMS:
            return False
        self.send_stream_data(self.get_next_available_stream_id(is_unidirectional=True), data, end_stream=True)
        return True

    def advertise_address(self, frame: AddAddress | RemoveAddress) -> None:
        """Tell the peer of an address of ours, or that it is none any more, if it takes part in NAT traversal."""
        ours, theirs = self._options.extensions, self.remote_extensions
        if ours is not None and theirs is not None and nat_traversal_negotiated(ours, theirs):
            self._addresses_due.append(frame)

    def abandon(self, code: int, reason: str) -> None:
        """Forget the connection at once, without sending anything (a stateless reset was received)."""
        if self._state not in stock.END_STATES:
            self._close_event = stock.events.ConnectionTerminated(
                error_code=code, frame_type=None, reason_phrase=reason
            )
            self._close_end()

    def dispose(self) -> None:
        """
        Break every reference cycle of a terminated connection; nothing may be called on it afterwards.

        Its handlers and callbacks all point back to it, so without this its memory waits for the cyclic collector,
        whose pauses grow with the number of living connections.
        """
        self.__dict__.clear()

    # Overridden steps of aioquic.

    def receive_datagram(self, data: bytes, addr: Any, now: float) -> None:
        """Take in a datagram, unless the connection is already closing for a reason of ours."""
        if self._close_pending and self._options.tls is not None:
            # aioquic goes on until the close is sent, and may so complete a handshake it has just refused.
            return
        super().receive_datagram(data, addr, now)

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Any]]:
        """Return the datagrams due, after noting the address the peer has now."""
        if self._handshake_complete:
            addr = self._network_paths[0].addr
            # Identity first: this runs once per burst, an address changes once in a connection's life.
            if addr is not self._reported_addr and self._may_report_address:
                self._reported_addr = addr
                self.reporter.observe(SocketAddress.from_host(addr[0], addr[1]))
            if self._packet_number >= self._keys_due:
                self._look_after_keys(now)
        return super().datagrams_to_send(now)

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        if self._options.tls is not None:
            kind = ClientTlsContext if self._is_client else ServerTlsContext
            self.tls = kind.adopt(self.tls, self._options.tls)
            install_fast_crypto(self._cryptos, self._cryptos_initial, self._options.tally)
            self._install_key_updates()

    def _serialize_transport_parameters(self) -> bytes:
        standard = super()._serialize_transport_parameters()
        if self._options.extensions is None:
            return standard
        return standard + push_extension_parameters(self._options.extensions)

    def _parse_transport_parameters(self, data: bytes, from_session_ticket: bool = False) -> None:
        if self._options.extensions is not None:
            try:
                self.remote_extensions = pull_extension_parameters_untrusted(data, from_server=self._is_client)
            except TransportParameterDecodeError as exc:
                raise stock.QuicConnectionError(
                    error_code=QuicErrorCode.TRANSPORT_PARAMETER_ERROR,
                    frame_type=QuicFrameType.CRYPTO,
                    reason_phrase=str(exc),
                ) from exc
        super()._parse_transport_parameters(data, from_session_ticket)

    def _replenish_connection_ids(self) -> None:
        known = len(self._host_cids)
        super()._replenish_connection_ids()
        if self._options.new_connection_id is not None:
            for item in self._host_cids[known:]:
                self._assign_connection_id(item, self._options.new_connection_id())

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        if self.reporter.due is not None and self._may_report_address:
            self._write_observed_address_frame(builder, self.reporter.due)
        while self._addresses_due:
            self._write_extension_frame(builder, self._addresses_due[0], self._on_address_delivery)
            del self._addresses_due[0]
        super()._write_connection_limits(builder, space)

    def _confirm_handshake(self) -> None:
        super()._confirm_handshake()
        if self._node_tls is not None:
            # Three buffers of 16 kB that only a handshake fills; an idle connection is a third the size without.
            self._crypto_buffers = {epoch: Buffer(capacity=0) for epoch in self._crypto_buffers}

    # Our own steps.

    @property
    def _node_tls(self) -> RawPublicKeyMixin | None:
        context = getattr(self, "tls", None)
        return context if isinstance(context, RawPublicKeyMixin) else None

    @property
    def _may_report_address(self) -> bool:
        ours, theirs = self._options.extensions, self.remote_extensions
        return ours is not None and theirs is not None and sends_observed_address(ours, theirs)

    def _replace_first_connection_id(self, connection_id: bytes) -> None:
        self._assign_connection_id(self._host_cids[0], connection_id)
        self.host_cid = connection_id
        self._local_initial_source_connection_id = connection_id

    def _assign_connection_id(self, item: stock.QuicConnectionId, connection_id: bytes) -> None:
        item.cid = connection_id
        if self._options.stateless_reset_token is not None:
            item.stateless_reset_token = self._options.stateless_reset_token(connection_id)

    def _register_extension_frames(self) -> None:
        # The table is name-mangled by aioquic; nothing else lets a frame type be added.
        handlers: dict[int, Any] = self._QuicConnection__frame_handlers  # type: ignore[attr-defined]
        for frame_type, (handler, epochs) in handlers.items():
            # aioquic makes a set of epochs per frame type and connection: 7 kB for four different sets.
            handlers[frame_type] = (handler, _SHARED_EPOCHS.setdefault(epochs, epochs))
        extension = (self._handle_extension_frame, _SHARED_EPOCHS[stock.EPOCHS("01")])
        for frame_type in (*_OBSERVED_ADDRESS_TYPES, *_NAT_TRAVERSAL_TYPES):
            handlers[frame_type] = extension

    def _handle_extension_frame(self, context: stock.QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        ours, theirs = self._options.extensions, self.remote_extensions
        negotiated = False
        if ours is not None and theirs is not None:
            if frame_type in _OBSERVED_ADDRESS_TYPES:
                negotiated = receives_observed_address(ours, theirs)
            else:
                negotiated = nat_traversal_negotiated(ours, theirs)
        if not negotiated:
            raise stock.QuicConnectionError(
                error_code=QuicErrorCode.PROTOCOL_VIOLATION,
                frame_type=frame_type,
                reason_phrase="Frame of an extension that was not negotiated",
            )
        try:
            frame = pull_frame_untrusted(frame_type, buf)
        except FrameDecodeError as exc:
            raise stock.QuicConnectionError(
                error_code=QuicErrorCode.FRAME_ENCODING_ERROR,
                frame_type=frame_type,
                reason_phrase=str(exc),
            ) from exc
        self._trace_extension_frame(context.quic_logger_frames, frame_type, frame)
        self._events.append(ExtensionFrameReceived(frame=frame, used=self._apply(frame)))

    def _apply(self, frame: ExtensionFrame) -> bool:
        if isinstance(frame, ObservedAddress):
            return self.observed_by_peer.receive(frame)
        if isinstance(frame, AddAddress):
            return self.candidates.add(frame)
        if isinstance(frame, RemoveAddress):
            self.candidates.remove(frame.sequence_number)
            return True
        return False

    def _write_observed_address_frame(self, builder: QuicPacketBuilder, frame: ObservedAddress) -> None:
        self._write_extension_frame(builder, frame, self._on_observed_address_delivery)
        self.reporter.take_due()
        self._options.tally.observed_addresses_sent += 1

    def _write_extension_frame(self, builder: QuicPacketBuilder, frame: ExtensionFrame, handler: Any) -> None:
        buf = builder.start_frame(
            frame_type_of(frame), capacity=frame_capacity(frame), handler=handler, handler_args=(frame,)
        )
        push_frame_body(buf, frame)
        self._trace_extension_frame(builder.quic_logger_frames, frame_type_of(frame), frame)

    def _on_address_delivery(self, delivery: QuicDeliveryState, frame: AddAddress | RemoveAddress) -> None:
        if delivery != QuicDeliveryState.ACKED:
            self._addresses_due.append(frame)

    def _on_observed_address_delivery(self, delivery: QuicDeliveryState, frame: ObservedAddress) -> None:
        if delivery != QuicDeliveryState.ACKED:
            self.reporter.on_lost(frame)
