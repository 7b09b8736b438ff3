"""
The stream relay's sessions of one worker: how they are granted, and how they end.

::

    peer → worker   request                 is the peer authenticated?
    worker → hub    RelayReserve            may it have another session?
    hub → worker    RelayReserved           yes and how fast, or the limit that forbids it
    worker → peer   response                the address of its port, or a status with the limit's name
    peer ↔ worker   frames                  workers.relay_session

A session ends with its stream or its connection, or when the hub says so; its port is free at once. A stream that does
not keep to the format is reset.

What waits is bounded: requests by MAX_REQUEST_BYTES each, questions to the hub by MAX_WAITING per connection, what is
meant for a peer by ``relay.queue_bytes`` per session.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from ipaddress import ip_address

from antquic_server.config.model import RelaySettings, from_plain
from antquic_server.errors import NoPortError, RelayDecodeError
from antquic_server.ipc.messages import LimitsChanged, Message
from antquic_server.ipc.relay_messages import (
    RelayAddress,
    RelayRate,
    RelayReleased,
    RelayReserve,
    RelayReserved,
    RelayRevoked,
    RelayShare,
)
from antquic_server.logs import get_logger
from antquic_server.net.udp import PathAddress
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.codepoints import ApplicationErrorCode
from antquic_server.protocol.limits import TokenBucket
from antquic_server.protocol.relay_limits import STATUS, Refusal, RelayEnd, RelayMode
from antquic_server.protocol.relay_stream import ConnectUdpResponse, RelayStatus, encode_response
from antquic_server.protocol.relay_targets import TargetPolicy
from workers.connection import Connection
from workers.outcome import fault_location
from workers.relay_ports import RelayPorts
from workers.relay_reports import RelayReports
from workers.relay_session import RelayCounters, RelaySession
from workers.relay_stream import RelayStream, Stage

MAX_WAITING = 16
"""Questions to the hub per connection; it answers within a millisecond."""

ANSWER_TIMEOUT_S = 5.0
"""For the hub's answer, as for each step of a channel: one that was lost must not keep a peer waiting for ever."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaySurroundings:
    """
    What the stream relay needs of its worker.

    ``flush`` sends what was written to connections; ``local_host`` is the address of ours that a path leads to, empty
    if it is not known.
    """

    tell_hub: Callable[[Message], bool]
    flush: Callable[[Iterable[Connection]], None]
    local_host: Callable[[PathAddress], str]
    loop: asyncio.AbstractEventLoop


class RelayDesk:
    """Grants and ends the sessions of one worker; ``share`` is what all of them together may move."""

    def __init__(
        self,
        surroundings: RelaySurroundings,
        *,
        settings: RelaySettings,
        ports: RelayPorts,
        policy: TargetPolicy,
        share: TokenBucket,
        counters: RelayCounters,
        change_policy: Callable[[RelaySettings], None],
    ) -> None:
        self._around = surroundings
        self._settings = settings
        self._ports = ports
        self._policy = policy
        self._share = share
        self._counters = counters
        self._change_policy = change_policy
        self._numbered: dict[int, RelayStream] = {}
        """Those that the hub knows of."""
        self._last_number = 0
        self._open_sessions = 0
        self._draining = False
        self._fed: dict[RelayStream, None] = {}
        self._touched: dict[Connection, None] = {}
        self._turn_is_due = False
        self._reports = RelayReports(surroundings.tell_hub, self._sessions, surroundings.loop)
        self._count_sessions()

    # From the hub.

    def handle_message(self, message: Message) -> None:
        """React to what the hub says about stream sessions; what it says about channels is ignored."""
        if isinstance(message, RelayReserved):
            self._reserved(message)
        elif isinstance(message, RelayRate):
            stream = self._numbered.get(message.session)
            if stream is not None and stream.session is not None:
                stream.session.change_rate(message.rate_bytes_per_s, message.burst_bytes)
        elif isinstance(message, RelayRevoked):
            stream = self._numbered.get(message.session)
            if stream is not None:
                self._revoked(stream, _refusal(message.reason))
        elif isinstance(message, RelayShare):
            self._share.change(message.rate_bytes_per_s, message.burst_bytes, time.monotonic())
        elif isinstance(message, LimitsChanged):
            # Addresses that peers have been told of stay what they are until the node is started anew.
            self._settings = replace(
                from_plain(message.settings).relay,
                public_address=self._settings.public_address,
                port_range=self._settings.port_range,
            )
            self._change_policy(self._settings)

    def drain(self) -> None:
        """End every session and accept none any more."""
        self._draining = True
        for stream in list(self._numbered.values()):
            self._end(stream, Refusal.DRAINING)
        self._reports.stop()

    # From the peer.

    def reserve(self, stream: RelayStream) -> None:
        """Ask the hub for a session, or refuse it at once."""
        connection = stream.connection
        if self._draining:
            self.refuse(stream, Refusal.DRAINING)
        elif connection.peer_id is None:
            self.refuse(stream, Refusal.UNAUTHENTICATED)
        elif stream.waiting_siblings >= MAX_WAITING or not connection.proven_host:
            self.refuse(stream, Refusal.OPEN_RATE)
        else:
            self._last_number += 1
            question = RelayReserve(session=self._last_number, peer_id=connection.peer_id, host=connection.proven_host)
            if not self._around.tell_hub(question):
                self.refuse(stream, Refusal.INTERNAL)
                return
            stream.number = self._last_number
            stream.stage = Stage.WAITING
            stream.deadline = self._around.loop.call_later(ANSWER_TIMEOUT_S, self._unanswered, stream)
            self._numbered[stream.number] = stream

    def refuse(self, stream: RelayStream, reason: Refusal, *, counted: bool = False) -> None:
        """Answer with a status, and the reason's name, and end our side in order; the hub counts what it refuses."""
        if not counted:
            self._counters.set.add("relay_refusals", 1, RelayMode.STREAM, reason)
        log.debug("relay session refused", connection=stream.connection.number, reason=reason.value)
        self._release(stream)
        self._answer(stream, ConnectUdpResponse(status=STATUS[reason], reason=reason.value), end=True)

    def feed(self, stream: RelayStream, data: bytes) -> None:
        """Take data of an open session; it goes out at the end of this turn of the loop, together with the rest."""
        assert stream.session is not None
        stream.session.feed(data)
        self._fed[stream] = None
        self._turn_soon()

    def given_up(self, stream: RelayStream, *, by_sender: bool) -> None:
        """React to a peer that has reset its side, or does not want ours."""
        stream.ended = stream.ended or by_sender
        if stream.stage is not Stage.OVER:
            self._abort(stream, RelayEnd.CLOSED)
        stream.forget_if_over()

    def connection_lost(self, stream: RelayStream) -> None:
        """Free the port; there is nobody to tell."""
        self._end(stream, RelayEnd.CONNECTION_LOST)

    # Sessions.

    def _reserved(self, answer: RelayReserved) -> None:
        stream = self._numbered.get(answer.session)
        if stream is None or stream.stage is not Stage.WAITING:
            return  # the peer has gone meanwhile, which the hub has been told
        stream.wait_no_more()
        if answer.refusal:
            del self._numbered[answer.session]
            stream.number = 0
            self.refuse(stream, _refusal(answer.refusal), counted=True)
        elif stream.is_hasty:
            self.refuse(stream, Refusal.BAD_REQUEST)
        else:
            try:
                self._open(stream, answer)
            except NoPortError as error:
                self.refuse(stream, Refusal.FAMILY if error.unsupported else Refusal.NO_PORT)
        stream.forget_if_over()
        self._touch(stream.connection)

    def _unanswered(self, stream: RelayStream) -> None:
        self.refuse(stream, Refusal.INTERNAL)
        stream.forget_if_over()
        self._touch(stream.connection)

    def _open(self, stream: RelayStream, answer: RelayReserved) -> None:
        connection = stream.connection
        host = _normal(self._around.local_host(connection.path))
        if not host or ip_address(host).is_unspecified:
            raise NoPortError(host, True)
        advertised_host = host
        public = self._settings.public_address
        if public and ip_address(public).version == ip_address(host).version:
            advertised_host = public
        port = self._ports.open(host)
        quic, stream_id = connection.quic, stream.stream_id
        stream.session = RelaySession(
            port,
            deliver=lambda frames: self._deliver(stream, frames),
            room_bytes=lambda: self._settings.queue_bytes - quic.stream_backlog_bytes(stream_id),
            policy=self._policy,
            rate=TokenBucket(
                answer.rate_bytes_per_s, answer.burst_bytes, tokens=answer.start_bytes, since_s=time.monotonic()
            ),
            share=self._share,
            counters=self._counters,
            advertised_host=advertised_host,
            session_ports=self._settings.port_range,
        )
        stream.session.start(self._around.loop)
        stream.stage = Stage.OPEN
        self._open_sessions += 1
        self._count_sessions()
        self._counters.set.add("relay_sessions_opened", 1, RelayMode.STREAM)
        address = SocketAddress.from_host(advertised_host, port.port)
        log.debug("relay session opened", connection=connection.number, session=stream.number, address=address)
        self._answer(stream, ConnectUdpResponse(status=RelayStatus.OK, address=address), end=False)
        # If this is lost, introductions go on without it.
        self._around.tell_hub(RelayAddress(session=stream.number, address=str(address)))
        self._reports.wake()

    def _answer(self, stream: RelayStream, response: ConnectUdpResponse, *, end: bool) -> None:
        quic = stream.connection.quic
        if quic.stream_is_writable(stream.stream_id):
            quic.send_stream_data(stream.stream_id, encode_response(response), end_stream=end)

    def _revoked(self, stream: RelayStream, reason: Refusal) -> None:
        if stream.stage is Stage.OPEN:
            self._abort(stream, reason)
        else:
            self.refuse(stream, reason)
            self._touch(stream.connection)

    def _finish(self, stream: RelayStream) -> None:
        """The peer has ended its side between two frames: end ours."""
        self._end(stream, RelayEnd.STREAM_ENDED)
        stream.forget_if_over()
        quic = stream.connection.quic
        if quic.stream_is_writable(stream.stream_id):
            quic.send_stream_data(stream.stream_id, b"", end_stream=True)
        self._touch(stream.connection)

    def _abort(self, stream: RelayStream, reason: RelayEnd | Refusal) -> None:
        """Reset both sides."""
        self._end(stream, reason)
        quic = stream.connection.quic
        quic.reset_stream(stream.stream_id, ApplicationErrorCode.LIFECYCLE_CLEANUP)
        if not stream.ended:
            quic.stop_stream(stream.stream_id, ApplicationErrorCode.LIFECYCLE_CLEANUP)
        stream.forget_if_over()
        self._touch(stream.connection)

    def _end(self, stream: RelayStream, reason: RelayEnd | Refusal) -> None:
        """Close the port, if there is one, and tell the hub."""
        if stream.session is not None:
            self._counters.set.add("relay_sessions_closed", 1, RelayMode.STREAM, reason)
            log.debug(
                "relay session ended",
                connection=stream.connection.number,
                session=stream.number,
                reason=reason.value,
            )
        self._release(stream)

    def _release(self, stream: RelayStream) -> None:
        stream.wait_no_more()
        stream.stage = Stage.OVER
        stream.begun = b""
        session, stream.session = stream.session, None
        moved_bytes = 0
        if session is not None:
            session.close()
            moved_bytes = session.moved_bytes
            self._open_sessions -= 1
            self._count_sessions()
        if self._numbered.pop(stream.number, None) is not None:
            self._reports.tell(RelayReleased(session=stream.number, moved_bytes=moved_bytes))

    def _sessions(self) -> list[tuple[int, RelaySession]]:
        return [(number, item.session) for number, item in self._numbered.items() if item.session is not None]

    def _count_sessions(self) -> None:
        self._counters.set.set("relay_sessions", self._open_sessions, RelayMode.STREAM)

    # Turns of the loop.

    def _deliver(self, stream: RelayStream, frames: bytes) -> None:
        connection = stream.connection
        connection.quic.send_stream_data(stream.stream_id, frames)
        self._touch(connection)

    def _touch(self, connection: Connection) -> None:
        """Have a connection send what was written to it, once for all that is written in this turn of the loop."""
        self._touched[connection] = None
        self._turn_soon()

    def _turn_soon(self) -> None:
        if not self._turn_is_due:
            self._turn_is_due = True
            self._around.loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_is_due = False
        fed, self._fed = self._fed, {}
        for stream in fed:
            if stream.session is None:
                continue
            try:
                self._forward_untrusted(stream, stream.session)
            except Exception as error:  # noqa: BLE001
                # Top loop: a fault in one session must not take the others along.
                self._fail(stream, error)
        touched, self._touched = self._touched, {}
        if touched:
            self._around.flush(touched)

    def _fail(self, stream: RelayStream, error: Exception) -> None:
        log.error("relay session failed by a fault of ours", error=repr(error), where=fault_location(error))
        self._abort(stream, Refusal.INTERNAL)

    def _forward_untrusted(self, stream: RelayStream, session: RelaySession) -> None:
        try:
            session.send_untrusted()
        except RelayDecodeError:
            self._abort(stream, RelayEnd.STREAM_MALFORMED)
            return
        if stream.ended:
            if session.held_bytes:
                self._abort(stream, RelayEnd.STREAM_MALFORMED)
            else:
                self._finish(stream)


def _refusal(word: str) -> Refusal:
    try:
        return Refusal(word)
    except ValueError:
        return Refusal.INTERNAL


def _normal(host: str) -> str:
    """The address as it is written, IPv4 for an IPv4-mapped one."""
    return str(SocketAddress.from_host(host, 0).normalised().host) if host else ""
