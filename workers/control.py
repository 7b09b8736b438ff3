"""
The worker's side of the conversation with the supervisor.

Heartbeats are timed by the event loop that moves the packets, so one that is stuck is seen to be stuck; how late a
heartbeat is called measures the loop's lag.
"""

import asyncio
import socket
from collections.abc import Callable

from antquic_server.config.model import LogSettings
from antquic_server.errors import AntQuicError, CertificateError
from antquic_server.ipc.channel import Channel
from antquic_server.ipc.log_messages import LogLevels, QlogStart, QlogStop
from antquic_server.ipc.messages import VERSION as MESSAGES_VERSION
from antquic_server.ipc.messages import (
    Assign,
    BootFailed,
    CertificateChanged,
    Drain,
    Drained,
    Heartbeat,
    HeartbeatAck,
    Hello,
    Introduce,
    Introduced,
    Message,
    PeerDown,
    PeerUp,
    Ready,
    SocketDescriptor,
)
from antquic_server.logs import change_levels, get_logger, settle_repeats
from antquic_server.net.packet_info import local_host
from antquic_server.net.udp import PathAddress
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.codepoints import ApplicationErrorCode
from workers.channel_control import knows_channels
from workers.connection import Connection
from workers.lifecycle import Stage
from workers.worker import Worker

log = get_logger(__name__)

UNREAD_SERVER_NAMES = (None, "localhost")
"""
SNI of connections on which an ant-quic peer reads no messages: those it opens for a relay session have none, those to
deliver one coordination request this one.
"""

SPARE_HEARTBEAT_INTERVAL_S = 0.25
"""Before the settings arrive there is nothing to read the interval from; this is its default."""


class Control:
    """Answers the supervisor; owns the worker it builds when a slot is assigned."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        pid: int,
        build: Callable[[Assign, "Control"], Worker],
        stopped: asyncio.Future[int],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.stage = Stage.SPARE
        self._build = build
        self._stopped = stopped
        self._loop = loop
        self._worker: Worker | None = None
        self._sockets: list[SocketDescriptor] = []
        self._sequence = 0
        self._interval_s = SPARE_HEARTBEAT_INTERVAL_S
        self._channel = Channel(sock, self._handle_message, self._handle_closed, loop)
        self._channel.send(Hello(version=MESSAGES_VERSION, pid=pid))
        self._due_s = loop.time() + self._interval_s
        self._timer = loop.call_at(self._due_s, self._beat)

    # What the endpoint reports.

    def peer_up(self, connection: Connection) -> None:
        """Tell the hub that an authenticated peer is here, or where it is now."""
        if connection.peer_id is not None:
            self._channel.send(
                PeerUp(
                    peer_id=connection.peer_id,
                    connection=connection.number,
                    host=connection.path.host,
                    port=connection.path.port,
                    readable=connection.quic.server_name not in UNREAD_SERVER_NAMES,
                    channels=knows_channels(connection),
                    advertised=[str(item) for item in connection.quic.candidates],
                    reached_at=self._reached_at(connection.path),
                )
            )

    def _reached_at(self, path: PathAddress) -> str:
        """The address of ours that a path leads to."""
        if not 0 <= path.socket_index < len(self._sockets):
            return ""
        bound = self._sockets[path.socket_index]
        return str(SocketAddress.from_host(local_host(path.local) or bound.host, bound.port).normalised())

    def peer_down(self, connection: Connection) -> None:
        """Tell the hub that one of a peer's connections has ended."""
        if connection.peer_id is not None:
            self._channel.send(PeerDown(peer_id=connection.peer_id, connection=connection.number))

    def tell_hub(self, message: Message) -> bool:
        """Send a message to the hub; False if its queue is full."""
        return self._channel.send(message)

    # What the supervisor says.

    def _handle_message(self, message: Message) -> None:
        if isinstance(message, Assign):
            self._assign(message)
        elif isinstance(message, HeartbeatAck):
            if self._worker is not None:
                self._worker.endpoint.connections_elsewhere = message.connections_elsewhere
        elif isinstance(message, Introduce):
            if self._worker is not None:
                self._worker.coordination.introduce(message)
        elif isinstance(message, Introduced):
            if self._worker is not None:
                self._worker.coordination.introduced(message)
        elif isinstance(message, Drain):
            self._drain()
        elif isinstance(message, LogLevels | QlogStart | QlogStop):
            self._observe(message)
        elif isinstance(message, CertificateChanged):
            self._change_certificate(message)
        elif self._worker is not None:
            self._worker.relay.handle_message(message)

    def _change_certificate(self, message: CertificateChanged) -> None:
        # A spare is assigned the new one with its slot.
        if self._worker is None:
            return
        try:
            self._worker.use_certificate(message)
        except CertificateError as error:
            log.error("certificate not changed", error=str(error))  # noqa: TRY400 - of the operator's file

    def _observe(self, message: LogLevels | QlogStart | QlogStop) -> None:
        if isinstance(message, LogLevels):
            # A spare hears of them too: until it has a slot it has no settings.
            change_levels(
                LogSettings(
                    level=message.level,
                    modules=message.modules,
                    repeat_burst=message.repeat_burst,
                    repeat_window_s=message.repeat_window_s,
                )
            )
        elif self._worker is None:
            return
        elif isinstance(message, QlogStart):
            self._worker.qlog.begin(message, self._worker.endpoint.connections.values())
        else:
            self._worker.qlog.end(message)

    def _assign(self, message: Assign) -> None:
        try:
            worker = self._build(message, self)
        except (AntQuicError, OSError) as error:
            self._channel.send(BootFailed(reason=str(error)))
            self._stop(3)
            return
        self._worker = worker
        self._sockets = message.sockets
        self._interval_s = worker.heartbeat_interval_s
        worker.endpoint.start()
        worker.relay.start()
        worker.loop_watch.start()
        worker.talkers.start()
        self.stage = Stage.SERVING
        self._channel.send(
            Ready(
                slot=message.slot,
                generation=message.generation,
                pqc_provider=worker.pool.name,
                offloads=worker.offloads,
            )
        )
        log.debug("slot assigned", slot=message.slot, generation=message.generation)

    def _drain(self) -> None:
        self.stage = Stage.DRAINING
        closed = 0
        if self._worker is not None:
            self._worker.relay.drain()
            closed = self._worker.endpoint.drain(ApplicationErrorCode.PEER_SHUTDOWN, "PeerShutdown")
            # Nobody is interested in a worker's last figures more than in those of its drain.
            self._beat()
        self._channel.send(Drained(connections=closed))
        # One turn of the loop, so that what the sockets and the channel took in halves goes out whole.
        self._loop.call_later(0.02, self._stop, 0)

    def _handle_closed(self, reason: str) -> None:
        # The supervisor is gone: without it nobody keeps the sockets or the other workers in step.
        log.error("supervisor is gone", reason=reason)
        self._stop(1)

    def _stop(self, exit_code: int) -> None:
        if self.stage is Stage.STOPPED:
            return
        self.stage = Stage.STOPPED
        self._timer.cancel()
        if self._worker is not None:
            self._worker.qlog.stop()
            self._worker.loop_watch.stop()
            self._worker.relay.stop()
            self._worker.talkers.stop()
            self._worker.endpoint.stop()
        if not self._stopped.done():
            self._stopped.set_result(exit_code)

    # Signs of life.

    def _beat(self) -> None:
        now_s = self._loop.time()
        lag_s = max(0.0, now_s - self._due_s)
        self._timer.cancel()
        self._due_s = now_s + self._interval_s
        self._timer = self._loop.call_at(self._due_s, self._beat)
        self._sequence += 1
        settle_repeats()
        worker = self._worker
        if worker is None:
            heartbeat = Heartbeat(
                sequence=self._sequence, connections=0, handshakes_in_flight=0, loop_lag_s=lag_s, counters={}
            )
        else:
            worker.endpoint.loop_lag_s = lag_s
            worker.qlog.tick()
            heartbeat = Heartbeat(
                sequence=self._sequence,
                connections=len(worker.endpoint.connections),
                handshakes_in_flight=worker.endpoint.half_open,
                loop_lag_s=lag_s,
                counters=worker.snapshot(lag_s),
            )
        self._channel.send(heartbeat)
