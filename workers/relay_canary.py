"""
Proof that the relay forwards: bytes that this worker sends to itself, as peers would.

Sessions that open and carry nothing look well to every other counter, so each way to relay is tried every few seconds
through sockets of its own: what arrives must be what was sent, in both directions. The channel of a canary is in the
table of this slot like any other; it is not reserved with the hub, and no gauge counts it.
"""

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from ipaddress import ip_address
from itertools import count
from typing import Final

from antquic_server.errors import AntQuicError
from antquic_server.logs import get_logger
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.limits import TokenBucket
from antquic_server.protocol.relay_channel import (
    BOUND,
    KEY_BYTES,
    NO_NONCE,
    bind_nonce_untrusted,
    data_header,
    encode_bind,
    is_bind_answer_untrusted,
    new_channel_id,
)
from antquic_server.protocol.relay_limits import RelayMode
from antquic_server.protocol.relay_stream import encode_frame, frame_header
from antquic_server.protocol.relay_targets import TargetPolicy, TargetRules
from antquic_server.stats.counters import CounterSet
from workers.channel_table import Channel, ChannelTable
from workers.relay_meter import SessionMeter
from workers.relay_ports import RelayPorts
from workers.relay_session import RelayCounters, RelaySession

TIMEOUT_S: Final = 2.0
"""On loopback a round takes a millisecond; a worker that needs this long forwards nothing of use."""

REPEAT_S: Final = 0.25
"""A full socket buffer may cost a datagram without the relay being broken."""

PAYLOAD_BYTES: Final = 1000

_RATE: Final = 1e12
"""In effect none: a canary must not be the victim of a limit that is meant for peers."""

log = get_logger(__name__)


class RelayCanary:
    """Tries one way to relay; ``attempt`` returns the seconds that a round trip has taken."""

    def __init__(
        self,
        mode: RelayMode,
        attempt: Callable[[], Awaitable[float]],
        counters: CounterSet,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._mode = mode
        self._attempt = attempt
        self._counters = counters
        self._loop = loop
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Begin an attempt, unless one is under way."""
        if self._task is None:
            self._task = self._loop.create_task(self._run())

    def stop(self) -> None:
        """Give up an attempt under way; may be called twice."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                latency_s = await self._attempt()
        except (TimeoutError, OSError, AntQuicError) as error:
            self._counters.add("relay_canaries", 1, self._mode, "failed")
            log.warning("the relay does not forward", mode=str(self._mode), error=str(error) or "timeout")
        else:
            self._counters.add("relay_canaries", 1, self._mode, "ok")
            self._counters.set("relay_canary_latency_s", latency_s, self._mode)
        finally:
            self._task = None


class ChannelRound:
    """A round trip through a channel; ``host`` and ``port`` are where the node listens."""

    def __init__(self, table: ChannelTable, *, slot: int, worker_count: int, host: str, port: int) -> None:
        self._table = table
        self._slot = slot
        self._worker_count = worker_count
        self._node = (_reachable(host), port)

    async def __call__(self) -> float:
        """Open a channel, bind both legs, send both ways; raises OSError where a socket does."""
        channel_id = new_channel_id(self._slot, self._worker_count, os.urandom)
        initiator_key, target_key = os.urandom(KEY_BYTES), os.urandom(KEY_BYTES)
        session = SessionMeter(number=0, rate_bytes_per_s=_RATE, burst_bytes=_RATE, share=_unlimited())
        channel = Channel(
            channel_id,
            initiator_key=initiator_key,
            target_key=target_key,
            session=session,
            now_s=time.monotonic(),
        )
        with ExitStack() as stack:
            stack.callback(self._table.remove, channel_id)
            self._table.add(channel)
            initiator, target = (stack.enter_context(_open(self._node)) for _ in range(2))
            await _bind(initiator, channel_id, initiator_key)
            await _bind(target, channel_id, target_key)
            begun_s = time.monotonic()
            for sender, receiver in ((initiator, target), (target, initiator)):
                await _pass(sender, receiver, data_header(channel_id) + os.urandom(PAYLOAD_BYTES))
            return time.monotonic() - begun_s


class StreamRound:
    """
    A round trip through a session of the stream relay, from the frames of a stream to a third party and back.

    The session is an ordinary one with a port of its own, but for the stream: what the peer would send is fed to it,
    and what the peer would get is read from it. ``host`` is where the node listens.
    """

    def __init__(self, ports: RelayPorts, *, host: str) -> None:
        self._ports = ports
        self._host = _reachable(host)
        rules = TargetRules(
            # Loopback is no target of a peer's.
            allowed=(self._host,),
            denied=(),
            own_ports=frozenset(),
            session_ports=(0, 0),
        )
        self._policy = TargetPolicy(rules, lambda _: False)

    async def __call__(self) -> float:
        """Open a session, send both ways; raises OSError where a socket does, NoPortError without a port."""
        loop = asyncio.get_running_loop()
        port = self._ports.open(self._host)
        arrived: asyncio.Queue[bytes] = asyncio.Queue()
        session = RelaySession(
            port,
            deliver=arrived.put_nowait,
            room_bytes=lambda: 1 << 20,
            policy=self._policy,
            rate=_unlimited(),
            share=_unlimited(),
            counters=RelayCounters(CounterSet()),
            advertised_host=self._host,
            session_ports=(0, 0),
        )
        with ExitStack() as stack:
            stack.callback(session.close)
            session.start(loop)
            party = stack.enter_context(_open((self._host, port.port)))
            header = frame_header(SocketAddress.from_host(*party.getsockname()[:2]))
            begun_s = time.monotonic()
            payload = os.urandom(PAYLOAD_BYTES)
            frame = encode_frame(header, payload)
            session.feed(frame)
            session.send_untrusted()
            while not await _arrives(party, payload):
                session.feed(frame)
                session.send_untrusted()
            party.send(payload)
            while not await _is_next(arrived, frame):
                party.send(payload)
            return time.monotonic() - begun_s


def _unlimited() -> TokenBucket:
    return TokenBucket(_RATE, _RATE)


def _reachable(host: str) -> str:
    """Where to reach what is bound to an address, which may be that of all."""
    address = ip_address(host)
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"


def _open(remote: tuple[str, int]) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in remote[0] else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        # Connected, so that nobody else can answer.
        sock.connect(remote)
    except OSError:
        sock.close()
        raise
    return sock


async def _is_next(arrived: "asyncio.Queue[bytes]", expected: bytes) -> bool:
    """Wait for what the peer would get; False if it has not come within the time after which to repeat."""
    try:
        async with asyncio.timeout(REPEAT_S):
            while await arrived.get() != expected:
                pass
    except TimeoutError:
        return False
    return True


async def _bind(leg: socket.socket, channel_id: bytes, key: bytes) -> None:
    nonce = NO_NONCE
    for counter in count(time.time_ns() // 1000):
        bind = encode_bind(channel_id, counter, key, nonce)
        leg.send(bind)
        answer = await _read_until(leg, partial(is_bind_answer_untrusted, bind=bind, key=key))
        if answer is not None:
            if answer[0] == BOUND:
                return
            nonce = bind_nonce_untrusted(answer)


async def _pass(sender: socket.socket, receiver: socket.socket, datagram: bytes) -> None:
    sender.send(datagram)
    while not await _arrives(receiver, datagram):
        sender.send(datagram)


async def _arrives(receiver: socket.socket, expected: bytes) -> bool:
    """Read until this datagram comes; False if it has not within the time after which to repeat."""
    return await _read_until(receiver, expected.__eq__) is not None


async def _read_until(receiver: socket.socket, is_expected: Callable[[bytes], bool]) -> bytes | None:
    """Read until such a datagram comes, and return it; None if it has not within the time after which to repeat."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(REPEAT_S):
            while True:
                datagram = await loop.sock_recv(receiver, 2 * PAYLOAD_BYTES)
                if is_expected(datagram):
                    return datagram
    except TimeoutError:
        return None
