"""
Turns datagrams into connections and back.

A burst is read, every datagram is given to its connection, and only then are the touched connections asked what they
have to send: so both datagrams of a post-quantum ClientHello are credited before the first byte of the answer is
(RFC 9000, section 8.1), acknowledgements are shared, and what goes to one peer leaves in one train.

Datagrams of relay channels share the sockets (``channel_table``). The first byte tells them apart, and a train may hold
both: whoever has a connection and a channel on one socket sends one flow.

What arrives, and what becomes of it, in the order of the checks:

==========================================  =============================================================
train of one relay channel                  passed on whole, as soon as it is read
other datagram of a relay channel           given to the channel table of its slot
other first byte below 0x40                 not QUIC (fixed bit, RFC 9000, section 17.2): dropped
known destination connection ID             given to its connection
ID of another slot                          passed on to that slot (once: it does not come back)
long header                                 admission decides: connection, Retry, refusal or drop
short header, ID of our making              stateless reset, rate-limited (RFC 9000, section 10.3)
anything else                               dropped
==========================================  =============================================================
"""

import asyncio
import time
from collections.abc import Callable, Iterable

from aioquic.quic.events import (
    ConnectionIdIssued,
    ConnectionIdRetired,
    ConnectionTerminated,
    HandshakeCompleted,
)

from antquic_server.logs import get_logger
from antquic_server.net.stray import StrayReceiver
from antquic_server.net.udp import PathAddress, UdpSocket
from antquic_server.protocol.raw_public_key import peer_id as derive_peer_id
from antquic_server.protocol.routing import (
    CONNECTION_ID_LENGTH_BYTES,
    destination_connection_id_untrusted,
)
from antquic_server.protocol.seam.connection import ExtensionFrameReceived, NodeQuicConnection
from antquic_server.stats.counters import CounterSet
from workers.admission import Admitted, Load
from workers.channel_table import ChannelTable
from workers.connection import Connection
from workers.incoming import FIXED_BIT, RECEIVE_BURST_DATAGRAMS, Incoming
from workers.outcome import fault_location, outcome_label
from workers.outgoing import Outgoing
from workers.service import Service
from workers.strangers import Strangers
from workers.surroundings import EndpointLimits, Hooks
from workers.timers import Alarm, TimerHeap, TimerOwner

_LONG_HEADER = 0x80
_SHORT_CID_END = 1 + CONNECTION_ID_LENGTH_BYTES

log = get_logger(__name__)


class Endpoint:
    """All connections of one slot."""

    def __init__(
        self,
        *,
        sockets: list[UdpSocket],
        stray: StrayReceiver,
        counters: CounterSet,
        make_strangers: Callable[[Callable[[PathAddress, bytes], None]], Strangers],
        make_quic: Callable[[Admitted], NodeQuicConnection],
        service: Service,
        channels: ChannelTable,
        hooks: Hooks,
        limits: EndpointLimits,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.connections: dict[int, Connection] = {}
        self.connections_elsewhere = 0
        self.loop_lag_s = 0.0
        self._sockets = sockets
        self._stray = stray
        self._counters = counters
        self._make_quic = make_quic
        self._service = service
        self._hooks = hooks
        self._limits = limits
        self._loop = loop
        self._outgoing = [Outgoing(sock, counters, loop) for sock in sockets]
        self._table: dict[bytes, Connection] = {}
        self._half_open: set[Connection] = set()
        self._timers = TimerHeap()
        self._alarm = Alarm(self._timers, self._deadlines_due, loop)
        self._next_number = 1
        self._drop_keys = [counters.declare("drops", reason) for reason in ("truncated", "stray_malformed")]
        self._strangers = make_strangers(self._reply)
        self._incoming = Incoming(channels, self._strangers, counters)

    # Life.

    def start(self) -> None:
        """Begin to read the sockets."""
        for index, sock in enumerate(self._sockets):
            self._loop.add_reader(sock.fileno(), self._socket_readable, index)
        self._loop.add_reader(self._stray.fileno(), self._stray_readable)

    def stop(self) -> None:
        """Read no more; the sockets stay open, they are the supervisor's."""
        for sock in self._sockets:
            self._loop.remove_reader(sock.fileno())
        self._loop.remove_reader(self._stray.fileno())
        for outgoing in self._outgoing:
            outgoing.close()
        self._alarm.cancel()

    def drain(self, error_code: int, reason: str) -> int:
        """Accept nobody any more and close every connection with an application close; returns how many."""
        self._strangers.accepting = False
        open_connections = list(self.connections.values())
        for connection in open_connections:
            connection.quic.close(error_code=error_code, reason_phrase=reason)
        self.flush(open_connections, time.monotonic())
        return len(open_connections)

    @property
    def half_open(self) -> int:
        """Handshakes in flight."""
        return len(self._half_open)

    @property
    def outgoing_datagrams(self) -> int:
        """Datagrams that wait for a socket."""
        return sum(outgoing.queued_datagrams for outgoing in self._outgoing)

    def collect(self) -> None:
        """Bring the counters up to date with what sockets count for themselves."""
        values = self._counters.values
        values["send_calls"] = sum(sock.send_calls for sock in self._sockets)
        values["receive_calls"] = sum(sock.receive_calls for sock in self._sockets)
        values[self._drop_keys[0]] = sum(sock.truncated for sock in self._sockets)
        values[self._drop_keys[1]] = self._stray.malformed
        values["timers"] = len(self._timers)

    # In.

    def _socket_readable(self, index: int) -> None:
        received = self._incoming.read(self._sockets[index], time.monotonic())
        if received:
            self._handle_burst(received, forward_strays=True)

    def _stray_readable(self) -> None:
        received = self._stray.receive_datagrams(RECEIVE_BURST_DATAGRAMS)
        self._counters.values["misrouted_received"] += len(received)
        self._handle_burst(received, forward_strays=False)

    def _handle_burst(self, received: list[tuple[bytes, PathAddress]], *, forward_strays: bool) -> None:
        now_s = time.monotonic()
        table = self._table
        touched: dict[Connection, None] = {}
        received_bytes = 0
        for data, path in received:
            received_bytes += len(data)
            if not data or data[0] < FIXED_BIT:
                self._incoming.receive_untrusted(data, path, now_s, forward_strays=forward_strays)
                continue
            is_long = data[0] & _LONG_HEADER
            cid = destination_connection_id_untrusted(data) if is_long else data[1:_SHORT_CID_END]
            connection = table.get(cid) if cid is not None else None
            if connection is None:
                if forward_strays and self._strangers.pass_on(data, path):
                    continue
                admitted = self._strangers.judge_untrusted(data, path, cid, load=self._load(), now_s=now_s)
                if admitted is None:
                    continue
                connection = self._add_connection(admitted, path, now_s)
            if not connection.ready and not connection.take_handshake_datagram():
                self._counters.add("drops", 1, "handshake_datagrams")
                continue
            self._give(connection, data, path, now_s)
            if connection.number in self.connections and connection.quic.is_pristine:
                # An Initial that does not decrypt made it; garbage must not occupy the table until a timeout.
                self._discard(connection, "initial_undecryptable")
                continue
            touched[connection] = None
        self._counters.values["bytes_received"] += received_bytes
        self.flush(touched, now_s)

    def _give(self, connection: Connection, data: bytes, path: PathAddress, now_s: float) -> None:
        try:
            connection.quic.receive_datagram(data, path, now_s)
        except Exception as error:  # noqa: BLE001
            # Top loop: a fault in one connection's state machine must not take the other thousands along.
            self._fail(connection, error)

    def _load(self) -> Load:
        return Load(
            connections_on_node=len(self.connections) + self.connections_elsewhere,
            half_open=len(self._half_open),
            loop_lag_s=self.loop_lag_s,
        )

    def _reply(self, path: PathAddress, datagram: bytes) -> None:
        self._outgoing[path.socket_index].send(path, [datagram])

    def _add_connection(self, admitted: Admitted, path: PathAddress, now_s: float) -> Connection:
        connection = Connection(
            number=self._next_number,
            quic=self._make_quic(admitted),
            path=path,
            handshake_deadline_s=now_s + self._limits.handshake_timeout_s,
            started_s=now_s,
        )
        self._next_number += 1
        self.connections[connection.number] = connection
        self._half_open.add(connection)
        self._map(admitted.destination_cid, connection)
        for cid in connection.quic.issued_connection_ids:
            self._map(cid, connection)
        return connection

    def _map(self, cid: bytes, connection: Connection) -> None:
        self._table[cid] = connection
        connection.connection_ids.add(cid)

    # Out.

    def find(self, number: int) -> Connection | None:
        """Return a connection by its number."""
        return self.connections.get(number)

    def flush_soon(self, connection: Connection) -> None:
        """Flush a connection in the next turn of the loop; safe while its events are being handled."""
        self._loop.call_soon(lambda: self.flush((connection,), time.monotonic()))

    def flush(self, touched: Iterable[Connection], now_s: float) -> None:
        """Handle the events of the given connections, send what they have to send, set their timers."""
        for connection in touched:
            try:
                self._flush_one(connection, now_s)
            except Exception as error:  # noqa: BLE001
                # Top loop, as in _give.
                self._fail(connection, error)
        self._alarm.arm()

    def _flush_one(self, connection: Connection, now_s: float) -> None:
        if connection.number not in self.connections:
            return  # it has failed in this burst: what it had still to say must not put it back into the table
        quic = connection.quic
        self._handle_events(connection, now_s)
        datagrams = quic.datagrams_to_send(now_s)
        if datagrams:
            # Nearly always one path; probes of another path come as a second run.
            start = 0
            count = len(datagrams)
            while start < count:
                path = datagrams[start][1]
                end = start + 1
                while end < count and datagrams[end][1] is path:
                    end += 1
                self._outgoing[path.socket_index].send(path, [item[0] for item in datagrams[start:end]])
                start = end
            # Connection IDs are announced by the act of writing them.
            self._handle_events(connection, now_s)
        if connection.number in self.connections:
            connection.timer_at_s = connection.next_deadline_s()
            self._timers.update(connection)

    def _handle_events(self, connection: Connection, now_s: float) -> None:
        quic = connection.quic
        event = quic.next_event()
        while event is not None:
            if isinstance(event, ConnectionIdIssued):
                self._map(event.connection_id, connection)
            elif isinstance(event, ConnectionIdRetired):
                self._table.pop(event.connection_id, None)
                connection.connection_ids.discard(event.connection_id)
            elif isinstance(event, HandshakeCompleted):
                self._handshake_completed(connection, now_s)
            elif isinstance(event, ConnectionTerminated):
                self._remove(connection, event)
            elif isinstance(event, ExtensionFrameReceived):
                name = type(event.frame).__name__
                self._counters.add("extension_frames_received", 1, name if event.used else f"{name}_ignored")
            else:
                self._service.handle_event(connection, event)
            event = quic.next_event()
        if connection.ready:
            self._follow_path(connection, now_s)
            if connection.peer_id is not None and connection.take_candidate_report(now_s):
                self._hooks.peer_up(connection)

    def _handshake_completed(self, connection: Connection, now_s: float) -> None:
        quic = connection.quic
        connection.ready = True
        connection.handshake_deadline_s = None
        self._half_open.discard(connection)
        self._counters.add("handshakes", 1, str(quic.profile))
        self._counters.histogram("handshake_duration_s", str(quic.profile)).observe(now_s - connection.started_s)
        public_key = quic.peer_public_key
        if public_key is not None:
            connection.peer_id = derive_peer_id(public_key)
            self._hooks.peer_up(connection)
        log.debug(
            "connection established",
            connection=connection.number,
            profile=quic.profile,
            peer=connection.path,
            peer_id=connection.peer_id,
        )

    def _follow_path(self, connection: Connection, now_s: float) -> None:
        path: PathAddress = connection.quic.get_peer_address() or connection.path
        if path is not connection.path and path != connection.path:
            log.debug("peer address changed", connection=connection.number, before=connection.path, after=path)
            connection.path = path
            self._counters.add("address_changes")
            if connection.peer_id is not None:
                self._hooks.peer_up(connection)
        if self._limits.keep_alive_s:
            connection.keep_alive_at_s = now_s + self._limits.keep_alive_s

    # Time.

    def _deadlines_due(self, due: list[TimerOwner], now_s: float) -> None:
        connections = [owner for owner in due if isinstance(owner, Connection)]
        for connection in connections:
            self._handle_deadline(connection, now_s)
        self.flush(connections, now_s)

    def _handle_deadline(self, connection: Connection, now_s: float) -> None:
        quic = connection.quic
        if connection.handshake_deadline_s is not None and now_s >= connection.handshake_deadline_s:
            connection.handshake_deadline_s = None
            # Silently: the peer has not completed a handshake, possibly because it is not there.
            quic.abandon(0, "handshake timeout")
            return
        if connection.keep_alive_at_s is not None and now_s >= connection.keep_alive_at_s:
            connection.keep_alive_at_s = now_s + self._limits.keep_alive_s
            if not quic.is_closing:
                quic.send_ping(0)
        deadline_s = quic.get_timer()
        if deadline_s is not None and now_s >= deadline_s:
            try:
                quic.handle_timer(now_s)
            except Exception as error:  # noqa: BLE001
                # Top loop, as in _give.
                self._fail(connection, error)

    # The end of a connection.

    def _remove(self, connection: Connection, event: ConnectionTerminated) -> None:
        if connection.number not in self.connections:
            return
        self._unlist(connection)
        if connection.ready:
            self._counters.add("connections_closed", 1, outcome_label(event))
        else:
            self._half_open.discard(connection)
            self._counters.add("handshake_failures", 1, outcome_label(event))
        log.debug(
            "connection ended",
            connection=connection.number,
            code=event.error_code,
            reason=event.reason_phrase,
            ready=connection.ready,
        )
        self._service.connection_closed(connection)
        if connection.peer_id is not None:
            self._hooks.peer_down(connection)
        # Whoever is still at work on the connection finishes first.
        self._loop.call_soon(connection.quic.dispose)

    def _discard(self, connection: Connection, reason: str) -> None:
        self._unlist(connection)
        self._half_open.discard(connection)
        self._counters.add("drops", 1, reason)
        self._loop.call_soon(connection.quic.dispose)

    def _unlist(self, connection: Connection) -> None:
        self.connections.pop(connection.number, None)
        for cid in connection.connection_ids:
            if self._table.get(cid) is connection:
                del self._table[cid]
        connection.timer_at_s = None
        connection.keep_alive_at_s = None

    def _fail(self, connection: Connection, error: Exception) -> None:
        log.error("connection failed by a fault of ours", error=repr(error), where=fault_location(error))
        self._remove(
            connection,
            ConnectionTerminated(error_code=1, frame_type=None, reason_phrase="internal error"),
        )
