"""Tests of ``workers.control``: the conversation with the supervisor, over a socket pair."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from structlog.testing import capture_logs

from antquic_server.errors import CertificateError
from antquic_server.ipc.channel import Channel
from antquic_server.ipc.messages import (
    VERSION,
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
    LimitsChanged,
    Message,
    PeerDown,
    PeerUp,
    Ready,
    SocketDescriptor,
)
from antquic_server.ipc.relay_messages import RelayRate, RelayReserved, RelayRevoked, RelayShare
from antquic_server.net.udp import PathAddress
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.parameters import ExtensionParameters
from support.in_process import run, until
from workers.connection import Connection
from workers.control import SPARE_HEARTBEAT_INTERVAL_S, Control
from workers.lifecycle import Stage

PATH = PathAddress("192.0.2.7", 50007, 0, 0, b"", 0)
Kind = TypeVar("Kind", bound=Message)
ASSIGN = Assign(
    slot=3,
    worker_count=4,
    generation=2,
    cpu=-1,
    settings={},
    identity_seed=bytes(32),
    root_secret=bytes(32),
    certificate_pem=b"",
    certificate_key_pem=b"",
    sockets=[],
    steering_fd=-1,
    steering_fds=[],
    echo=False,
)


class FakeEndpoint:
    """What Control asks of an endpoint."""

    def __init__(self) -> None:
        self.connections: dict[int, object] = {1: object(), 2: object()}
        self.connections_elsewhere = 0
        self.half_open = 1
        self.greatest_lag_s = 0.0
        self.calls: list[Any] = []

    @property
    def loop_lag_s(self) -> float:
        """What admission would see; the test wants to know the greatest."""
        return self.greatest_lag_s

    @loop_lag_s.setter
    def loop_lag_s(self, lag_s: float) -> None:
        self.greatest_lag_s = max(self.greatest_lag_s, lag_s)

    def start(self) -> None:
        """Noted."""
        self.calls.append("start")

    def stop(self) -> None:
        """Noted."""
        self.calls.append("stop")

    def drain(self, code: int, reason: str) -> int:
        """Noted; closes everything."""
        self.calls.append(("drain", code, reason))
        count = len(self.connections)
        self.connections.clear()
        return count


class FakeWorker:
    """What Control asks of a worker."""

    def __init__(self) -> None:
        self.endpoint = FakeEndpoint()
        self.pool = type("Pool", (), {"name": "made-up"})()
        self.heartbeat_interval_s = 0.02
        self.offloads = ["gro"]
        self.introductions: list[Message] = []
        note = self.introductions.append
        self.coordination = SimpleNamespace(introduce=note, introduced=note)
        self.relayed: list[Message] = []
        self.certificates: list[CertificateChanged] = []
        self.traced: list[object] = []
        self.qlog = SimpleNamespace(
            begin=lambda request, connections: self.traced.append((request, list(connections))),
            end=self.traced.append,
            tick=lambda: None,
            stop=lambda: self.endpoint.calls.append("stop qlog"),
        )
        self.relay = SimpleNamespace(
            handle_message=self.relayed.append,
            start=lambda: self.endpoint.calls.append("start relay"),
            stop=lambda: self.endpoint.calls.append("stop relay"),
            drain=lambda: self.endpoint.calls.append("drain relay"),
        )
        self.loop_watch = SimpleNamespace(
            start=lambda: self.endpoint.calls.append("start watch"),
            stop=lambda: self.endpoint.calls.append("stop watch"),
        )
        self.talkers = SimpleNamespace(
            start=lambda: self.endpoint.calls.append("start talkers"),
            stop=lambda: self.endpoint.calls.append("stop talkers"),
        )

    def use_certificate(self, message: CertificateChanged) -> None:
        """Noted, unless it is garbage."""
        if message.certificate_pem == b"garbage":
            raise CertificateError("not a certificate")
        self.certificates.append(message)

    def snapshot(self, loop_lag_s: float) -> dict[str, float]:
        """Some counters."""
        return {"retries": 7.0}


class Bench:
    """A Control and the supervisor's end of its channel."""

    def __init__(self, build: Callable[[Assign, Control], Any] | None = None) -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        self.worker = FakeWorker()
        self.received: list[Message] = []
        self.closed: list[str] = []
        self.stopped: asyncio.Future[int] = loop.create_future()
        self.supervisor = Channel(ours, self.received.append, self.closed.append, loop)
        worker: Any = self.worker
        self.control = Control(
            theirs, pid=4711, build=build or (lambda _assign, _control: worker), stopped=self.stopped, loop=loop
        )

    def got(self, kind: type[Kind]) -> list[Kind]:
        """Messages of one kind so far."""
        return [message for message in self.received if isinstance(message, kind)]

    async def first(self, kind: type[Kind]) -> Kind:
        """Wait for a message."""
        return (await until(lambda: self.got(kind), kind.__name__))[0]


@asynccontextmanager
async def bench(build: Callable[[Assign, Control], Any] | None = None) -> AsyncIterator[Bench]:
    """One that is taken down at the end."""
    made = Bench(build)
    try:
        yield made
    finally:
        made.control._stop(0)
        made.control._channel.close()
        made.supervisor.close()


def fake_connection(
    peer_id: bytes | None,
    server_name: str | None = "peer",
    path: PathAddress = PATH,
    declared: ExtensionParameters | None = None,
) -> Connection:
    """A connection of an authenticated peer, or of nobody."""
    quic: Any = SimpleNamespace(
        server_name=server_name, candidates=[SocketAddress.parse("10.0.0.7:9")], remote_extensions=declared
    )
    connection = Connection(number=9, quic=quic, path=path, handshake_deadline_s=0.0)
    connection.peer_id = peer_id
    return connection


def test_first_word_is_hello() -> None:
    """A worker introduces itself and beats its heart before it has a slot."""

    async def story() -> None:
        async with bench() as it:
            assert it.control.stage is Stage.SPARE
            beat = await it.first(Heartbeat)
            assert it.received[0] == Hello(version=VERSION, pid=4711)
            assert (beat.sequence, beat.connections, beat.handshakes_in_flight, beat.counters) == (1, 0, 0, {})
            assert SPARE_HEARTBEAT_INTERVAL_S <= 0.25

    run(story())


def test_assignment_makes_it_serve() -> None:
    """Assign builds the worker, starts its endpoint, and only then says Ready."""

    async def story() -> None:
        async with bench() as it:
            it.supervisor.send(ASSIGN)
            ready = await it.first(Ready)
            assert ready == Ready(slot=3, generation=2, pqc_provider="made-up", offloads=["gro"])
            assert it.worker.endpoint.calls == ["start", "start relay", "start watch", "start talkers"]
            assert it.control.stage is Stage.SERVING

    run(story())


def test_heartbeats_carry_figures_and_rise() -> None:
    """At the interval of the settings, numbered, with counters and gauges."""

    async def story() -> None:
        async with bench() as it:
            it.supervisor.send(ASSIGN)
            await it.first(Ready)
            await until(lambda: len(it.got(Heartbeat)) >= 4, "heartbeats")
            beats = it.got(Heartbeat)
            assert [beat.sequence for beat in beats] == list(range(1, len(beats) + 1))
            assert (beats[-1].connections, beats[-1].handshakes_in_flight) == (2, 1)
            assert beats[-1].counters == {"retries": 7.0}

    run(story())


def test_stuck_loop_shows_as_lag() -> None:
    """A loop that does not get round to its heartbeat says so, to the supervisor and to the endpoint."""

    async def story() -> None:
        async with bench() as it:
            it.supervisor.send(ASSIGN)
            await it.first(Ready)
            await until(lambda: len(it.got(Heartbeat)) >= 2, "heartbeats")
            known = len(it.got(Heartbeat))
            # Not asleep but busy: nothing else runs meanwhile.
            loop = asyncio.get_running_loop()
            end_s = loop.time() + 0.3
            while loop.time() < end_s:
                pass
            await until(lambda: len(it.got(Heartbeat)) > known, "heartbeat")
            assert max(beat.loop_lag_s for beat in it.got(Heartbeat)[known:]) > 0.2
            assert it.worker.endpoint.greatest_lag_s > 0.2

    run(story())


def test_connections_elsewhere_are_passed_on() -> None:
    """What the other workers hold counts towards the bound of the node."""

    async def story() -> None:
        async with bench() as it:
            it.supervisor.send(HeartbeatAck(sequence=1, connections_elsewhere=5))
            it.supervisor.send(ASSIGN)
            await it.first(Ready)
            it.supervisor.send(HeartbeatAck(sequence=2, connections_elsewhere=11))
            await until(lambda: it.worker.endpoint.connections_elsewhere == 11, "figure")

    run(story())


def test_peers_are_reported() -> None:
    """Authenticated peers come and go; anonymous ones are nobody's business."""

    async def story() -> None:
        async with bench() as it:
            for peer_id in (None, b"p" * 32):
                it.control.peer_up(fake_connection(peer_id))
                it.control.peer_down(fake_connection(peer_id))
            await it.first(PeerDown)
            assert it.got(PeerUp) == [
                PeerUp(peer_id=b"p" * 32, connection=9, host=PATH.host, port=PATH.port, advertised=["10.0.0.7:9"])
            ]
            assert it.got(PeerDown) == [PeerDown(peer_id=b"p" * 32, connection=9)]

    run(story())


@pytest.mark.parametrize(
    ("server_name", "readable"),
    [("peer", True), ("nat-traversal-peer", True), ("peer-a7", True), ("localhost", False), (None, False)],
)
def test_connections_on_which_nobody_reads_are_told_apart(server_name: str | None, readable: bool) -> None:
    """ant-quic peers dial some connections only to ask something, and the name they dial tells."""

    async def story() -> None:
        async with bench() as it:
            it.control.peer_up(fake_connection(b"p" * 32, server_name))
            assert (await it.first(PeerUp)).readable is readable

    run(story())


@pytest.mark.parametrize(
    ("declared", "channels"),
    [(None, False), (ExtensionParameters(), False), (ExtensionParameters(relay_channels=True), True)],
)
def test_hub_is_told_who_knows_relay_channels(declared: ExtensionParameters | None, channels: bool) -> None:
    """Nobody else can be the target of one."""

    async def story() -> None:
        async with bench() as it:
            it.control.peer_up(fake_connection(b"p" * 32, declared=declared))
            assert (await it.first(PeerUp)).channels is channels

    run(story())


@pytest.mark.parametrize(
    ("index", "local", "reached_at"),
    [
        (0, b"", "192.0.2.1:10000"),
        (1, b"", "[2001:470::9]:10001"),
        (2, bytes(4) + bytes([198, 51, 100, 7]) + bytes(4), "198.51.100.7:10002"),
        (3, b"", ""),
    ],
)
def test_hub_is_told_which_address_of_ours_a_peer_has_reached(index: int, local: bytes, reached_at: str) -> None:
    """The bound one, or for a wildcard that of the datagram; nothing is said of a socket that nobody knows."""
    sockets = [
        SocketDescriptor(fd=-1, family=2, host="192.0.2.1", port=10000),
        SocketDescriptor(fd=-1, family=10, host="2001:470::9", port=10001),
        SocketDescriptor(fd=-1, family=2, host="0.0.0.0", port=10002),
    ]

    async def story() -> None:
        async with bench() as it:
            it.supervisor.send(replace(ASSIGN, sockets=sockets))
            await it.first(Ready)
            path = PATH._replace(socket_index=index, local=local)
            it.control.peer_up(fake_connection(b"p" * 32, path=path))
            assert (await it.first(PeerUp)).reached_at == reached_at

    run(story())


QUESTION = Introduce(
    request_id=7,
    expires_at_unix_ms=1,
    round=1,
    initiator=b"i" * 32,
    target=b"t" * 32,
    connection=3,
    address="192.0.2.9:9",
    advertised=[],
)


def test_introductions_go_both_ways() -> None:
    """What coordination says reaches the hub; the hub's questions and answers reach coordination."""

    async def story() -> None:
        async with bench() as it:
            answer = QUESTION.answer(reason="UnknownTarget")
            # Before there is a worker there is nobody to ask.
            it.supervisor.send(QUESTION)
            it.supervisor.send(ASSIGN)
            await it.first(Ready)
            it.supervisor.send(QUESTION)
            it.supervisor.send(answer)
            await until(lambda: len(it.worker.introductions) == 2, "introductions")
            assert it.worker.introductions == [QUESTION, answer]

            assert it.control.tell_hub(QUESTION)
            assert it.control.tell_hub(answer)
            assert await it.first(Introduced) == answer
            assert it.got(Introduce) == [QUESTION]

    run(story())


def test_word_of_the_hub_about_relaying_is_passed_on() -> None:
    """Once there is a worker: reservations, rates, ends, shares and changed limits."""

    async def story() -> None:
        async with bench() as it:
            said: list[Message] = [
                RelayReserved(session=1, refusal=""),
                RelayRate(session=1, rate_bytes_per_s=1.0, burst_bytes=2.0),
                RelayRevoked(session=1, reason="peer_bytes"),
                RelayShare(rate_bytes_per_s=1.0, burst_bytes=2.0),
                LimitsChanged(settings={}),
            ]
            it.supervisor.send(said[0])
            it.supervisor.send(ASSIGN)
            await it.first(Ready)
            for message in said:
                it.supervisor.send(message)
            await until(lambda: len(it.worker.relayed) == len(said), "messages")
            assert it.worker.relayed == said

    run(story())


def test_renewed_certificate_is_used() -> None:
    """Once there is a worker; one that cannot be used is said and changes nothing."""

    async def story() -> None:
        async with bench() as it:
            renewed = [CertificateChanged(certificate_pem=b"new", certificate_key_pem=key) for key in (b"a", b"b")]
            it.supervisor.send(renewed[0])
            it.supervisor.send(ASSIGN)
            await it.first(Ready)
            with capture_logs() as lines:
                it.supervisor.send(CertificateChanged(certificate_pem=b"garbage", certificate_key_pem=b""))
                it.supervisor.send(renewed[1])
                await until(lambda: it.worker.certificates, "message")
            assert it.worker.certificates == renewed[1:]
            assert [line["event"] for line in lines if line["log_level"] == "error"] == ["certificate not changed"]

    run(story())


def test_hub_that_does_not_listen_is_noticed() -> None:
    """A full queue says no instead of growing."""

    async def story() -> None:
        async with bench() as it:
            channel = it.control._channel
            channel._max_queued_bytes = 0
            assert not it.control.tell_hub(QUESTION)
            assert channel.dropped == 1

    run(story())


def test_drain_closes_reports_and_ends() -> None:
    """Drain: connections are closed, last figures and Drained are sent, and the process may end with 0."""

    async def story() -> None:
        async with bench() as it:
            it.supervisor.send(ASSIGN)
            await it.first(Ready)
            it.supervisor.send(Drain(deadline_s=5.0))
            assert await asyncio.wait_for(it.stopped, 5.0) == 0
            assert await it.first(Drained) == Drained(connections=2)
            before = it.received[it.received.index(Drained(connections=2)) - 1]
            assert isinstance(before, Heartbeat)
            assert before.connections == 0
            assert it.worker.endpoint.calls == [
                "start",
                "start relay",
                "start watch",
                "start talkers",
                "drain relay",
                ("drain", 0x4E5B02, "PeerShutdown"),
                "stop qlog",
                "stop watch",
                "stop relay",
                "stop talkers",
                "stop",
            ]
            assert it.control.stage is Stage.STOPPED
            count = len(it.received)
            await asyncio.sleep(0.1)
            assert len(it.received) == count

    run(story())


def test_spare_drains_at_once() -> None:
    """A worker without a slot has nothing to close."""

    async def story() -> None:
        async with bench() as it:
            it.supervisor.send(Drain(deadline_s=5.0))
            assert await asyncio.wait_for(it.stopped, 5.0) == 0
            assert await it.first(Drained) == Drained(connections=0)

    run(story())


def test_end_of_the_channel_ends_the_worker() -> None:
    """Without its supervisor a worker leaves, with a failure, and reads its sockets no more."""

    async def story() -> None:
        async with bench() as it:
            it.supervisor.send(ASSIGN)
            await it.first(Ready)
            it.supervisor.close()
            assert await asyncio.wait_for(it.stopped, 5.0) == 1
            assert it.worker.endpoint.calls == [
                "start",
                "start relay",
                "start watch",
                "start talkers",
                "stop qlog",
                "stop watch",
                "stop relay",
                "stop talkers",
                "stop",
            ]

    run(story())


def test_nonsense_on_the_channel_ends_the_worker() -> None:
    """A stream that has lost its framing cannot be trusted any more."""

    async def story() -> None:
        async with bench() as it:
            it.supervisor._sock.send(b"\xff" * 64)
            assert await asyncio.wait_for(it.stopped, 5.0) == 1

    run(story())


@pytest.mark.parametrize("error", [CertificateError("key does not match"), OSError(9, "Bad file descriptor")])
def test_worker_that_cannot_start_says_why(error: Exception) -> None:
    """A reason of ours ends in BootFailed and exit code 3."""

    def fail(*_: Any) -> Any:
        raise error

    async def story() -> None:
        async with bench(fail) as it:
            it.supervisor.send(ASSIGN)
            assert await asyncio.wait_for(it.stopped, 5.0) == 3
            assert (await it.first(BootFailed)).reason == str(error)
            assert it.got(Ready) == []

    run(story())
