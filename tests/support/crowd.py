"""
A node in one process, and a crowd of peers whose QUIC is only pretended.

The worker (``workers.control`` and everything below it), the channel between the processes, the fleet, the hub and the
status page are the real ones; what is left out is cryptography, which would make ten thousand peers a matter of many
minutes. Each peer has an id and an address of its own, and says one after the other everything that a peer can say.
"""

import asyncio
import socket
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, QuicEvent, StreamDataReceived

from antquic_server.config.model import NatSettings
from antquic_server.ipc.channel import Channel
from antquic_server.ipc.messages import Assign
from antquic_server.net.stray import make_stray_pairs
from antquic_server.net.udp import PathAddress
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.address_discovery import Mapping
from antquic_server.protocol.frames import ImmediateAck
from antquic_server.protocol.parameters import ExtensionParameters
from antquic_server.protocol.profiles import HandshakeProfile
from antquic_server.protocol.punch_report import PunchReport, encode_punch_report
from antquic_server.protocol.raw_public_key import ML_DSA_65_PUBLIC_KEY_BYTES
from antquic_server.protocol.raw_public_key import peer_id as derive_peer_id
from antquic_server.protocol.relay_control import ChannelClosed, ChannelRequest, encode_channel_message
from antquic_server.protocol.seam.connection import ExtensionFrameReceived
from antquic_server.supervisor.fleet import Fleet, FleetPlan
from antquic_server.supervisor.process import EndReason, FiguresReader, WorkerListener, WorkerProcess, WorkerState
from antquic_server.supervisor.status import NodeFacts, NodeStatus
from support.coordination import request
from support.in_process import close_worker, make_assign, settings_with, until
from workers.admission import Admitted
from workers.connection import Connection
from workers.control import Control
from workers.surroundings import Hooks
from workers.worker import Worker, build_worker

__all__ = ["Crowd", "crowd"]

STAY = 50
"""Peers that are connected at a time."""
CLOSE_CODES = tuple(range(64))
PROFILES = tuple(HandshakeProfile)


class PretendedQuic:
    """What a worker asks of a connection's state machine; ``events`` are handed out in order."""

    is_closing = is_pristine = False
    candidates: tuple[SocketAddress, ...] = ()
    issued_connection_ids: tuple[bytes, ...] = ()
    held_by_application_bytes = 0
    path_mtu_bytes = 1200
    server_name = "peer"
    remote_extensions = ExtensionParameters(relay_channels=True)

    def __init__(self, public_key: bytes, profile: HandshakeProfile, path: PathAddress) -> None:
        self.peer_public_key = public_key
        self.profile = profile
        self.path = self.validated_address = path
        self.events: deque[QuicEvent] = deque()

    def next_event(self) -> QuicEvent | None:
        """Hand out the next one."""
        return self.events.popleft() if self.events else None

    def get_peer_address(self) -> PathAddress:
        """Where the peer is."""
        return self.path

    def datagrams_to_send(self, now_s: float) -> list[Any]:
        """Nothing is ever sent."""
        return []

    def get_timer(self) -> float | None:
        """Nothing is ever due."""
        return None

    def send_message(self, data: bytes) -> bool:
        """The peer takes everything."""
        return True

    def dispose(self) -> None:
        """There is nothing to take apart."""


class PretendedProcess(WorkerProcess):
    """A worker that is no process: only the channel is real."""

    def __init__(self, sock: socket.socket, listener: WorkerListener, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._listener = listener
        self.pid = 1
        self.state = WorkerState.STARTING
        self.slot = None
        self.generation = 0
        self.started_s = self.changed_s = self.last_heartbeat_s = loop.time()
        self.ready_s = self.heartbeat = self.readiness = self.boot_failure = self.exit_code = self.figures = None
        self.end_reason = EndReason.CRASHED
        self._figures_reader = FiguresReader(1)
        self._channel = Channel(sock, self._heard, lambda _: None, loop)

    def kill(self, reason: EndReason) -> None:
        """The test is over."""

    def check_exit(self) -> None:
        """Nothing ends by itself."""

    def close(self) -> None:
        """Close our end of the channel."""
        self._channel.close()


class Crowd:
    """The node, and the peers that have come so far."""

    def __init__(self, fleet: Fleet, status: NodeStatus, control: Control, worker: Worker) -> None:
        self.fleet = fleet
        self.status = status
        self.peer_ids: list[bytes] = []
        self.hosts: list[str] = []
        self._control = control
        self._worker = worker
        self._here: deque[tuple[Connection, PretendedQuic, int]] = deque()

    async def come(self, count: int) -> None:
        """Let ``count`` more peers come, say what they have to say, and most of them leave again."""
        for _ in range(count):
            self._one()
            # As often as the loop of a busy worker: messages between the processes go through a socket.
            if len(self.peer_ids) % 10 == 0:
                await asyncio.sleep(0)
        await self.settle()

    async def settle(self) -> None:
        """Wait until the supervisor has a heartbeat with everything counted."""
        await until(lambda: not self._control._channel.queued_bytes, "empty queue")
        self._control._beat()
        sequence = self._control._sequence
        process = self.fleet.workers[0]
        await until(lambda: process.heartbeat is not None and process.heartbeat.sequence >= sequence, "heartbeat")
        self.fleet.tick()

    def _one(self) -> None:
        number = len(self.peer_ids)
        public_key = number.to_bytes(4, "big").ljust(ML_DSA_65_PUBLIC_KEY_BYTES, b"k")
        peer_id = derive_peer_id(public_key)
        host = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        other = self.peer_ids[-1] if self.peer_ids else bytes(32)
        path = PathAddress(host, 1024 + number % 60000, 0, 0, b"", 0)
        quic = PretendedQuic(public_key, PROFILES[number % len(PROFILES)], path)
        endpoint = self._worker.endpoint
        endpoint._make_quic = lambda _: quic  # type: ignore[assignment,return-value]
        now_s = self.fleet._clock()
        cid = number.to_bytes(8, "big")
        admitted = Admitted(destination_cid=cid, original_destination_cid=cid, retry_source_cid=None)
        connection = endpoint._add_connection(admitted, path, now_s)
        self.peer_ids.append(peer_id)
        self.hosts.append(host)
        quic.events += self._words(peer_id, other, number)
        endpoint.flush([connection], now_s + 0.01 * (number % 7))
        self._here.append((connection, quic, number))
        if len(self._here) > STAY:
            self._leave(*self._here.popleft())

    def _words(self, peer_id: bytes, other: bytes, number: int) -> list[QuicEvent]:
        """What a peer says; every tenth says the wrong things as well, with as much of its own as fits in."""
        words = peer_id.hex()
        messages = [
            request(peer_id, other),
            encode_channel_message(ChannelRequest(request_id=number, target=other)),
            encode_punch_report(PunchReport(other=other, succeeded=number % 3 > 0, nat_mapping=Mapping.DEPENDENT)),
        ]
        if number % 10 == 0:
            messages += [
                request(other, peer_id),
                request(peer_id, peer_id),
                b"AQCC\x01" + words.encode(),
                encode_channel_message(ChannelClosed(channel_id=peer_id[:7], reason=words)),
                b"AQRC\x01\x63" + peer_id,
                b"AQPR\x01" + peer_id,
                words.encode(),
            ]
        streams = [
            StreamDataReceived(data=data, end_stream=True, stream_id=4 * index + 2)
            for index, data in enumerate(messages)
        ]
        return [HandshakeCompleted(None, False, False), *streams, ExtensionFrameReceived(ImmediateAck(), used=False)]

    def _leave(self, connection: Connection, quic: PretendedQuic, number: int) -> None:
        code = CLOSE_CODES[number % len(CLOSE_CODES)]
        words = self.peer_ids[number].hex()
        quic.events.append(ConnectionTerminated(error_code=code, frame_type=number % 2 or None, reason_phrase=words))
        self._worker.endpoint.flush([connection], self.fleet._clock())


@asynccontextmanager
async def crowd() -> AsyncIterator[Crowd]:
    """Run the node."""
    loop = asyncio.get_running_loop()
    settings = settings_with(relay={"canary_interval_s": 0.0})
    stray = make_stray_pairs(1)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setblocking(False)
    udp.bind(("127.0.0.1", 0))
    assignment = make_assign(udp, stray, settings)
    udp.detach()  # the worker's from here on
    ours, theirs = socket.socketpair()
    built: list[Worker] = []

    def build(assign: Assign, control: Control) -> Worker:
        hooks = Hooks(peer_up=control.peer_up, peer_down=control.peer_down, tell_hub=control.tell_hub)
        built.append(build_worker(assign, hooks, loop))
        return built[0]

    ready = asyncio.Event()
    plan = FleetPlan(
        worker_count=1,
        standby_workers=0,
        heartbeat_interval_s=settings.endpoint.heartbeat_interval_s,
        heartbeat_timeout_s=60.0,
        max_connections=settings.endpoint.max_connections,
        start_worker=lambda listener: PretendedProcess(ours, listener, loop),
        assignment=lambda slot, generation: assignment,
        nat=NatSettings(coordination_rate_per_s=1e6, coordination_burst=1000),
    )
    fleet = Fleet(plan, clock=loop.time, on_ready=ready.set, on_hopeless=print, on_empty=lambda: None)
    facts = NodeFacts(peer_id=bytes(32), pid=1, listen=[], steered=True, started_s=loop.time())
    fleet.start()
    control = Control(theirs, pid=1, build=build, stopped=loop.create_future(), loop=loop)
    process: Any = fleet.workers[0]
    try:
        async with asyncio.timeout(20):
            await ready.wait()
        yield Crowd(fleet, NodeStatus(facts, fleet, clock=loop.time), control, built[0])
    finally:
        process.close()
        control._channel.close()
        control._stop(0)
        close_worker(built[0])
        for pair in stray:
            pair.receiver.close()
            pair.sender.close()
        await asyncio.sleep(0)
